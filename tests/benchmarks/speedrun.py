"""Train Fashion-MNIST from scratch to the Fréchet distances of the first bundled model: python tests/benchmarks/speedrun.py

It prints how long training and fitting the prior took, and of how many pictures, on whatever device is there; then, outside
of that time, both distances by the protocol of `python -m vae.evaluate`: 10,000 pictures, three draws of new ones.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import torch
import tyro
from accelerate import PartialState
from second_classifier import fit

import train
from vae import VAE, GaussianMixture
from vae.data import load_dataset
from vae.evaluate.features import load_classifier
from vae.evaluate.measure import encode_images, measure_generation
from vae.figures import Figures
from vae.training.speed import name_of

DATASET = "fashion-mnist"
TARGETS = {"reconstruction": 0.578, "prior": 0.570}  # of the first bundled model, which took 68 minutes on CPU cores
PICTURES, SEEDS = 10_000, 3  # of the protocol


def main(
    data_dir: Path = Path("data"),
    epochs: float = 10,
    latent_dim: int = 128,
    batch_size: int = 64,
    components: int = 100,
    output: Path = Path("speedrun"),
    only_measure: bool = False,
) -> None:
    """Train, fit, measure.

    Args:
        data_dir: Where Fashion-MNIST is, as for train.py.
        epochs: Passes over the training pictures.
        latent_dim: Numbers in a latent vector.
        batch_size: Pictures in a step.
        components: Gaussians in the mixture that new pictures are drawn from.
        output: Folder for the model.
        only_measure: Take the model that is in that folder, with its prior if it has one.
    """
    began = time.monotonic()
    if not only_measure:
        config = train.TrainConfig(
            data=train.DataOptions(dataset=DATASET, data_dir=data_dir),
            model=train.ModelOptions(latent_dim=latent_dim),
            run=train.RunOptions(epochs=epochs, batch_size=batch_size, evaluations=1, keep="last"),
            output=train.OutputOptions(output=output),
        )
        train.train(config)
    trained = time.monotonic()
    device = PartialState().device
    model = VAE.from_pretrained(output).to(memory_format=torch.channels_last).to(device)
    pictures, test = (load_dataset(DATASET, data_dir, split) for split in ("train", "test"))
    if not only_measure or not isinstance(model.prior, GaussianMixture):
        model.prior = fit(encode_images(model, pictures.images), components, pictures.labels[:, 0])
        model.save_pretrained(output)
    fitted = time.monotonic()
    training = Figures.read(output).training
    if training:
        seen = round(training.epochs * training.pictures)
        print(
            f"{training.seconds:.0f} s of steps in {training.mixed_precision}, {seen:,} pictures, "
            f"{seen / training.seconds:,.0f} images/s; on {name_of(device)}"
        )
    if not only_measure:
        print(
            f"{trained - began:.0f} s to train, with loading and measuring, {fitted - trained:.0f} s to fit the prior: "
            f"{fitted - began:.0f} s together"
        )
    generation, _ = measure_generation(
        model,
        load_classifier(DATASET).to(device),
        pictures,
        test,
        features=DATASET,
        priors={},
        pictures=PICTURES,
        seeds=SEEDS,
    )
    assert generation.prior
    reached = {"reconstruction": generation.reconstruction.frechet, "prior": generation.prior.frechet}
    names = {"reconstruction": "reconstructions", "prior": "new pictures"}
    for name, target in TARGETS.items():
        verdict = "reached" if reached[name] <= target else "missed"
        print(f"Fréchet distance of {names[name]}: {reached[name]:.3f}, target {target:.3f} {verdict}")
    if any(reached[name] > target for name, target in TARGETS.items()):
        sys.exit("the targets are not reached: train for more --epochs")


if __name__ == "__main__":
    tyro.cli(main)
