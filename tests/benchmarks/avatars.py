"""Compare models of avatars, in a minute or two each: python tests/benchmarks/avatars.py FOLDER... [--data-dir data]

Of 2,000 reconstructions: squared error, Fréchet distance and how many attributes the package's classifier tells. Of 4,000
new pictures, from attributes fitted to 15,000 training pictures and from N(0, I): the Fréchet distance.
"""

from __future__ import annotations

from pathlib import Path

import torch
import tyro

from vae import VAE, generate, reconstruct
from vae.attributes import AttributePrior
from vae.data import load_dataset
from vae.evaluate.features import extract_features, load_classifier
from vae.evaluate.fit import directions_of
from vae.evaluate.metrics import frechet_distance
from vae.images import to_unit
from vae.prior import StandardNormal


def main(folders: tyro.conf.Positional[list[str]], data_dir: Path = Path("data")) -> None:
    test, train = (load_dataset("avatars", data_dir, side) for side in ("test", "train"))
    images, labels = test.images[:2000], test.labels[:2000]
    fitted_to = train._replace(images=train.images[:15_000], labels=train.labels[:15_000])
    classifier = load_classifier("avatars")
    few, more = (extract_features(classifier, test.images[:count]) for count in (2000, 4000))
    for folder in folders:
        model = VAE.from_pretrained(folder).eval()
        back = torch.cat([reconstruct(model, to_unit(part)) for part in images.split(500)])
        with torch.no_grad():
            told = torch.cat([classifier.predict(part) for part in back.split(500)]) == labels
        print(folder)
        print(f"  squared error {(back - to_unit(images)).square().mean():.6f}")
        print(
            "  told:",
            *(f"{name} {rate:.4f}" for name, rate in zip(test.attributes, told.double().mean(0), strict=True)),
        )
        print(f"  reconstructions {frechet_distance(few, extract_features(classifier, back)):.3f}")
        directions = directions_of(model, fitted_to)
        assert directions
        for name, prior in (("attributes", AttributePrior(directions)), ("N(0, I)", StandardNormal())):
            parts = [generate(model, range(start, start + 500), prior=prior) for start in range(0, 4000, 500)]
            new = torch.cat([extract_features(classifier, part) for part in parts])
            print(f"  new pictures from {name} {frechet_distance(more, new):.3f}", flush=True)


if __name__ == "__main__":
    tyro.cli(main)
