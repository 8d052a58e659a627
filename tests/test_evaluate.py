from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from conftest import small_model
from PIL import Image
from torch import Tensor
from torch.distributions import MultivariateNormal

import vae.evaluate.__main__
import vae.evaluate.measure
from vae import Flow, GaussianMixture, load_prior, save_prior
from vae.attributes import AttributePrior, Directions
from vae.data import Pictures, load_examples
from vae.evaluate.__main__ import disagreements, main
from vae.evaluate.fit import fit_priors
from vae.evaluate.measure import compare, measure_attributes, measure_latents, measure_likelihood
from vae.files import read_metrics
from vae.generate import encode
from vae.hub import load_model
from vae.images import ssim, to_unit
from vae.model import DiagonalGaussian

FEW: dict[str, Any] = {"samples": 3, "pictures": 5, "generated": 40, "seeds": 2}


def halves(name: str, data_dir: Path, split: Literal["train", "test"], **size: int) -> Pictures:
    """The examples in the place of the data that is not there: every other one is for training."""
    images, labels, attributes = load_examples(name)
    part = slice(0, None, 2) if split == "train" else slice(1, None, 2)
    return Pictures(images[part], labels[part], attributes)


@pytest.fixture(autouse=True)
def brief_flow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fit flows in no time."""
    fit = Flow.fit
    monkeypatch.setattr(Flow, "fit", lambda z: fit(z, layers=2, width=8, steps=20))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model's folder as train.py leaves it, and examples in the place of data."""
    monkeypatch.setattr(vae.evaluate.__main__, "load_dataset", halves)
    small_model().save_pretrained(tmp_path)
    training = read_metrics(Path("weights/mnist"))["training"]
    (tmp_path / "metrics.json").write_text(json.dumps({"dataset": "mnist", "history": [1, 2], "training": training}))
    return tmp_path


def test_figures_that_are_written_are_found_to_be_so_when_checked(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(str(folder), **FEW, fit_prior=True, write=True)
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["history"] == [1, 2]  # what was there is kept
    assert metrics["test"]["pictures"] == 120
    assert metrics["test"]["psnr"] == pytest.approx(-10 * math.log10(metrics["test"]["mse"]))
    assert metrics["likelihood"]["bound"] == pytest.approx(metrics["likelihood"]["elbo"], abs=2)  # of an untrained one
    assert {"bound_with_prior", "standard_error"} < metrics["likelihood"].keys()
    latents = metrics["latents"]
    assert latents["kl"] == pytest.approx(latents["mutual_information"] + latents["marginal_kl"])
    assert sum(latents["kl_per_dimension"]) == pytest.approx(latents["kl"], rel=1e-5)
    generation = metrics["generation"]
    assert generation["accuracy"] > 0.97
    assert {"training-pictures", "reconstruction", "standard-normal", "prior"} < generation.keys()
    assert generation["training-pictures"]["frechet"] < generation["standard-normal"]["frechet"]
    best = max(metrics["priors"].values(), key=lambda row: row["held_out"])
    assert generation["prior"]["frechet"] == best["frechet"]
    assert load_model(folder).prior.latent_dim == 6
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert f"| new pictures from the fitted prior | {best['frechet']:.3f} ± " in card
    assert "two rows of the same seeds from the fitted prior](samples.png)" in card
    with Image.open(folder / "samples.png") as sheet:
        assert sheet.size == (2 * (16 * 28 + 15 * 2), 2 * (6 * 28 + 5 * 2))

    main(str(folder), **FEW, check=True)
    assert "all that metrics.json claims of test, likelihood, latents, generation was found" in capsys.readouterr().out

    metrics["test"]["elbo"] *= 1.02
    metrics["generation"]["prior"]["recall"] += 0.1
    (folder / "metrics.json").write_text(json.dumps(metrics))
    with pytest.raises(SystemExit) as caught:
        main(str(folder), **FEW, check=True)
    first, second = str(caught.value).splitlines()
    assert first.startswith("metrics.json: test: elbo is claimed to be ")
    assert second.startswith("metrics.json: generation: prior: recall is claimed to be ")


def test_attributes_are_measured_and_checked(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(str(folder), **FEW, fit_directions=True, write=True)
    assert load_model(folder).directions is not None
    measured = json.loads((folder / "metrics.json").read_text())["attributes"]
    assert measured["pictures"] == 120
    assert measured["digit"]["told"] > 0.97
    assert {"reconstructed", "turned"} < measured["digit"].keys()
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert f"| digit | {100 * measured['digit']['told']:.1f} % |" in card
    assert "seeds 0 to 99](generated.png)" in card
    with Image.open(folder / "generated.png") as sheet:
        assert sheet.size == (2 * (10 * 28 + 9 * 2),) * 2
    main(str(folder), **FEW, check=True)
    assert "claims of test, likelihood, latents, generation, attributes was found" in capsys.readouterr().out
    main(str(folder), **FEW)  # and measuring leaves it as it is
    assert json.loads((folder / "metrics.json").read_text())["attributes"] == measured


def test_labels_can_be_the_prior(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(str(folder), **FEW, fit_prior=True, prior="attributes", fit_directions=True, write=True)
    model = load_model(folder)
    assert isinstance(model.prior, AttributePrior)
    assert model.directions is model.prior.directions
    assert not (folder / "prior.safetensors").exists()
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["generation"]["prior"]["frechet"] == metrics["priors"]["attributes"]["frechet"]
    assert "the fitted prior" in (folder / "README.md").read_text(encoding="utf-8")
    main(str(folder), **FEW, check=True)
    assert "was found to be so" in capsys.readouterr().out
    with pytest.raises(ValueError, match="are its prior: --fit-prior --prior attributes fits both"):
        main(str(folder), **FEW, fit_directions=True)


def test_attributes_of_other_data_are_not_measured(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = load_model(folder)
    z = torch.randn(50, 6, generator=torch.Generator().manual_seed(0))
    model.directions = Directions.fit(z, (z[:, :1] > 0).long(), {"digit": ("even", "odd")})
    metrics = (folder / "metrics.json").read_text()
    model.save_pretrained(folder)
    (folder / "metrics.json").write_text(metrics)
    main(str(folder), **FEW, write=True)
    assert "knows other attributes than mnist has, so they are not measured" in capsys.readouterr().out
    assert "attributes" not in json.loads((folder / "metrics.json").read_text())


def test_attributes_of_data_without_a_classifier_are_told_by_one_trained_for_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(vae.evaluate.__main__, "CLASSIFIERS", ())
    main(str(folder), **FEW, fit_directions=True, write=True)
    assert "no classifier comes for mnist: one is trained" in capsys.readouterr().out
    assert json.loads((folder / "metrics.json").read_text())["attributes"]["digit"]["told"] > 0.5


def test_another_prior_than_the_likeliest_can_be_taken(folder: Path) -> None:
    main(str(folder), **FEW, fit_prior=True, prior="mixture-100", write=True)
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["generation"]["prior"]["frechet"] == metrics["priors"]["mixture-100"]["frechet"]
    stored = load_prior(folder / "prior.safetensors")
    assert isinstance(stored, GaussianMixture)
    assert stored.components == 100


def test_a_model_without_a_classifier_is_measured_but_for_its_new_pictures(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(vae.evaluate.__main__, "CLASSIFIERS", ())
    main(str(folder), **FEW, write=True)
    assert "new pictures are not measured" in capsys.readouterr().out
    assert "generation" not in json.loads((folder / "metrics.json").read_text())


def test_what_can_not_be_done_is_said(folder: Path) -> None:
    with pytest.raises(ValueError, match="claims nothing that could be checked"):
        main(str(folder), **FEW, check=True)
    with pytest.raises(ValueError, match="there is no flow to take: it needs --fit-prior"):
        main(str(folder), **FEW, prior="flow")
    with pytest.raises(ValueError, match="compared with 5 test pictures at the least, and here are 4"):
        main(str(folder), **FEW | {"generated": 4})
    for option in FEW:
        with pytest.raises(ValueError, match=f"--{option} must be at least 1, got 0"):
            main(str(folder), **FEW | {option: 0})
    with pytest.raises(ValueError, match=r"--write is for the dataset that .* was trained on"):
        main(str(folder), dataset="fashion-mnist", write=True, **FEW)
    save_prior(GaussianMixture(7, 1), folder / "prior.safetensors")
    with pytest.raises(ValueError, match=r"prior\.safetensors has 7 dimensions, and the latent vectors of its model 6"):
        main(str(folder), **FEW)
    (folder / "prior.safetensors").unlink()
    (folder / "metrics.json").write_text("{")
    with pytest.raises(ValueError, match="can't be read: remove it, or train the model again"):
        main(str(folder), dataset="mnist", write=True, **FEW)
    assert (folder / "metrics.json").read_text() == "{"
    (folder / "metrics.json").unlink()
    with pytest.raises(ValueError, match="doesn't say what it was trained on"):
        main(str(folder), **FEW)
    small_model(channels=3, image_size=16).save_pretrained(folder)
    with pytest.raises(ValueError, match="features of mnist are of pictures of 1x28x28"):
        main(str(folder), dataset="folder", features="mnist", **FEW)


@pytest.mark.parametrize("binarized", [False, True])
def test_a_prior_learned_in_training_is_what_its_bounds_are_under(
    folder: Path, capsys: pytest.CaptureFixture[str], binarized: bool
) -> None:
    model = small_model(likelihood="bernoulli")
    model.prior = Flow(model.config.latent_dim, 2, 8)
    model.prior.mean.fill_(3.0)  # far from the posteriors, so that no other prior could be meant
    model.save_pretrained(folder)
    metrics = read_metrics(folder)
    metrics["training"] |= {"prior": "flow", "binarize": "dynamic" if binarized else None}
    (folder / "metrics.json").write_text(json.dumps(metrics))
    with pytest.raises(ValueError, match="learned its prior in training: leave --fit-prior out"):
        main(str(folder), **FEW, fit_prior=True)
    if binarized:
        with pytest.raises(ValueError, match="knows black and white pictures only"):
            main(str(folder), **FEW, features="mnist")
    main(str(folder), **FEW, write=True)
    measured = read_metrics(folder)
    assert measured["test"]["kl"] > 0.4 * 9 * model.config.latent_dim
    assert measured["likelihood"]["bound"] == pytest.approx(measured["likelihood"]["elbo"], abs=30)
    assert "bound_with_prior" not in measured["likelihood"]
    assert ("generation" in measured) != binarized  # the classifiers know no binarized pictures
    main(str(folder), **FEW, check=True)
    assert "was found to be so" in capsys.readouterr().out


def test_weights_that_give_broken_pictures_are_refused(folder: Path) -> None:
    model = load_model(folder)
    for name, buffer in model.decoder.named_buffers():
        if name.endswith("running_var"):
            buffer.fill_(-1)
    metrics = (folder / "metrics.json").read_text()
    model.save_pretrained(folder)
    (folder / "metrics.json").write_text(metrics)
    with pytest.raises(ValueError, match="not finite"):
        main(str(folder), **FEW)


def test_the_command_fails_in_one_sentence() -> None:
    command = [sys.executable, "-m", "vae.evaluate", "no-such-model"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("vae.evaluate: there is no model 'no-such-model'")
    assert done.stderr.count("\n") == 1


NESTED: Any = 1.0
for _ in range(600):
    NESTED = {"elbo": NESTED}


# --- the parts -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("claimed", "measured", "agree"),
    [
        ({"elbo": 800.0}, {"elbo": 803.0, "more": 1}, True),
        ({"elbo": 800.0}, {"elbo": 805.0}, False),
        ({"elbo": 800.0}, {"elbo": math.nan}, False),
        ({"elbo": math.nan}, {"elbo": math.nan}, False),
        ({"elbo": math.inf}, {"elbo": 800.0}, False),
        ({"elbo": 10**400}, {"elbo": 800.0}, False),
        ({"elbo": NESTED}, {"elbo": 800.0}, False),
        ({"mse": 0.000087}, {"mse": 0.0000871}, True),
        ({"mse": 0.0}, {"mse": 0.000087}, False),
        ({"elbo": 800.0}, {}, False),
        ({"elbo": 800.0}, None, False),
        ({"bits_per_dimension": None}, {"bits_per_dimension": None}, True),
        ({"bits_per_dimension": None}, {"bits_per_dimension": 6.0}, False),
        ({"pictures": 10_000}, {"pictures": 10_001}, False),
        ({"prior": {"frechet": 3.0}}, {"prior": {"frechet": 3.14}}, True),
        ({"prior": {"frechet": 3.0}}, {"prior": {"frechet": 3.17}}, False),
        ({"prior": {"frechet": 0.0}}, {"prior": {"frechet": 0.034}}, False),
        ({"prior": {"frechet_spread": 0.01}}, {"prior": {"frechet_spread": 0.03}}, True),
        ({"prior": {"frechet_spread": 0.01}}, {"prior": {"frechet_spread": 0.1}}, False),
        ({"kl_per_dimension": [1.0, 2.0]}, {"kl_per_dimension": [1.01, 2.0]}, True),
        ({"kl_per_dimension": [1.0, 2.0]}, {"kl_per_dimension": [1.1, 2.0]}, False),
        ({"kl_per_dimension": [1.0, 2.0]}, {"kl_per_dimension": [1.0]}, False),
        ({"features": "mnist"}, {"features": "inception"}, False),
        ({"beard": {"kept_of": {"hair": 0.9}}}, {"beard": {"kept_of": {"hair": 0.91}}}, True),
        ({"beard": {"kept_of": {"hair": 0.9}}}, {"beard": {"kept_of": {"hair": 0.93}}}, False),
    ],
)
def test_claims_are_compared_within_their_tolerances(claimed: Any, measured: Any, agree: bool) -> None:
    assert (disagreements(claimed, measured) == []) is agree


def test_evaluate_measures_reconstructions_from_the_sample_as_from_the_mean() -> None:
    model = small_model()
    images = load_examples("mnist").images[:30]
    figures = vae.evaluate.measure.evaluate(model, images)
    x = to_unit(images)
    with torch.no_grad():
        output = model(x, torch.Generator().manual_seed(0))
        mean_picture = model.decode(output.posterior.mean)
    assert figures["ssim"] == pytest.approx(ssim(mean_picture, x).mean().item(), rel=1e-4)
    assert figures["sample_ssim"] == pytest.approx(ssim(output.reconstruction, x).mean().item(), rel=1e-4)
    assert figures["sample_mse"] == pytest.approx((output.reconstruction - x).square().mean().item(), rel=1e-4)


def test_the_prior_that_fits_best_comes_first_and_tightens_the_bounds() -> None:
    """Where the aggregate posterior is far from N(0, I), even one Gaussian fitted to it is a better prior."""
    model = small_model()
    with torch.no_grad():
        model.encoder.mean.bias.add_(3)
    pictures = load_examples("mnist")
    images = pictures.images
    rows = fit_priors(model, pictures, components=(1, 3))
    assert [row.held_out for row in rows] == sorted((row.held_out for row in rows), reverse=True)
    assert {row.name for row in rows} == {"mixture-1", "mixture-3", "flow", "attributes"}
    assert len(fit_priors(model, Pictures(images, torch.empty(240, 0, dtype=torch.int64), {}), components=())) == 1
    wide = small_model(latent_dim=400)
    assert {row.name for row in fit_priors(wide, pictures, components=(1, 75))} == {"mixture-1", "flow", "attributes"}
    single = next(row.prior for row in rows if row.name == "mixture-1")
    assert isinstance(single, GaussianMixture)
    z = encode(model, images[:-24]).sample(torch.Generator().manual_seed(0))
    gaussian = MultivariateNormal(z.mean(0), torch.cov(z.T))
    torch.testing.assert_close(single.log_prob(z).mean(), gaussian.log_prob(z).mean(), atol=0.3, rtol=0)

    plain = measure_latents(model, images[:100])
    assert "marginal_kl_at_least" not in plain
    model.prior = single
    fitted = measure_latents(model, images[:100])
    assert fitted["kl"] == pytest.approx(fitted["marginal_kl_at_least"] + fitted["mutual_information_at_most"])
    noise = 0.2  # of the samples
    assert 0.9 * fitted["marginal_kl"] < fitted["marginal_kl_at_least"] < fitted["marginal_kl"] + noise
    likelihood = measure_likelihood(model, images[:10], samples=20)
    assert likelihood["bound_with_prior"] > likelihood["bound"]


def test_compare_gives_mean_and_spread_over_sets() -> None:
    real = torch.randn(500, 4, generator=torch.Generator().manual_seed(0))
    row = compare(real, [real, real + 2])
    assert row["frechet"] == pytest.approx(8)
    assert row["frechet_spread"] == pytest.approx(8)
    assert row["precision"] > 0.5
    assert compare(real, [real])["frechet_spread"] == 0


class Transparent:
    """A model whose latents are two pixels of a picture, and a classifier that reads them: all is known exactly."""

    log_scale = torch.zeros(())

    def __init__(self, directions: Directions, leak: float) -> None:
        self.directions, self.leak = directions, leak

    def parameters(self) -> Iterator[Tensor]:
        return iter([self.log_scale])

    def encode(self, x: Tensor) -> DiagonalGaussian:
        return DiagonalGaussian(10 * x[:, 0, 0, :2], torch.zeros(len(x), 2))

    def decode(self, z: Tensor) -> Tensor:
        x = torch.zeros(len(z), 1, 2, 2)
        x[:, 0, 0, :2] = z / 10
        x[:, 0, 0, 1] += self.leak * z[:, 0] / 10
        return x

    def predict(self, x: Tensor) -> Tensor:
        return (10 * x[:, 0, 0, :2]).round().long()


@pytest.mark.parametrize("leak", [0.0, 1.0])
def test_turned_and_kept_are_what_they_say(leak: float) -> None:
    labels = torch.stack([torch.arange(300) % 3, torch.arange(300) // 3 % 2], dim=1)
    images = torch.zeros(300, 1, 2, 2, dtype=torch.uint8)
    images[:, 0, 0, :2] = (25.5 * labels).round().byte()
    attributes = {"size": ("small", "medium", "large"), "colour": ("red", "blue")}
    model: Any = Transparent(Directions.fit(labels.float(), labels, attributes), leak)
    table = measure_attributes(model, model, Pictures(images, labels, attributes))
    assert table["size"]["told"] == table["colour"]["told"] == 1
    assert table["size"]["turned"] == 1
    if leak:  # the decoder shows the second attribute right only for those whose first is 0
        assert table["colour"]["reconstructed"] == pytest.approx(1 / 3)
        assert table["size"]["kept"] == pytest.approx(1 / 3, abs=0.08)
    else:
        turned = {"turned": 1, "kept": 1, "kept_of": {"colour": 1}}
        assert table["size"] == {"told": 1, "reconstructed": 1, "told_by_latents": 1, **turned}
