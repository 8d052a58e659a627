from __future__ import annotations

import math
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import pytest
import torch
from conftest import small_model
from PIL import Image
from torch import Tensor
from torch.distributions import MultivariateNormal

import vae.evaluate.__main__
import vae.evaluate.features
import vae.evaluate.fit
import vae.evaluate.measure
from vae import VAE, Flow, GaussianMixture
from vae.attributes import AttributePrior, Directions
from vae.data import Pictures, load_examples
from vae.evaluate.__main__ import Options, main
from vae.evaluate.features import CLASSIFIERS, load_classifier
from vae.evaluate.fit import compare_priors, fit_priors
from vae.evaluate.measure import (
    compare,
    describe_dataset,
    draw_samples,
    evaluate,
    measure_attributes,
    measure_latents,
    measure_likelihood,
)
from vae.figures import AttributeMetrics, Figures, Look
from vae.files import fingerprint
from vae.generate import encode
from vae.hub import bundled_names
from vae.images import ssim, to_unit
from vae.model import DiagonalGaussian
from vae.prior import StandardNormal

FEW: dict[str, Any] = {"samples": 3, "pictures": 5, "generated": 40, "seeds": 2}


def halves(name: str, data_dir: Path, split: Literal["train", "test"], **size: int) -> Pictures:
    """The examples in the place of the data that is not there: half of them, of all classes, are for training."""
    images, labels, attributes = load_examples(name)
    shuffled = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    part = shuffled[::2] if split == "train" else shuffled[1::2]
    return Pictures(images[part], labels[part], attributes)


@pytest.fixture(autouse=True)
def brief_flow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fit flows in no time."""
    fit = Flow.fit
    monkeypatch.setattr(Flow, "fit", lambda z: fit(z, layers=2, width=8, steps=20))


LOOK = Look(step=1, epochs=0.1, minutes=0.1, train_elbo=1.0, validation_elbo=2.0)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model's folder as train.py leaves it, and examples in the place of data."""
    monkeypatch.setattr(vae.evaluate.__main__, "load_dataset", halves)
    small_model().save_pretrained(tmp_path)
    training = Figures.read(Path("weights/mnist")).training
    Figures(dataset=describe_dataset("mnist"), history=[LOOK], training=training).write(tmp_path)
    return tmp_path


def run(folder: Path, **options: Any) -> Figures:
    """Run the command with few pictures, and read the figures that are then in the folder."""
    main(Options(str(folder), **FEW | options))
    return Figures.read(folder)


def save_other(model: VAE, folder: Path) -> None:
    """Put a model in the place of the one in folder, whose figures stay."""
    figures = Figures.read(folder)
    model.save_pretrained(folder)
    figures.write(folder)


def test_figures_prior_card_and_pictures_are_written(folder: Path) -> None:
    model = VAE.from_pretrained(folder)
    with torch.no_grad():
        model.encoder.mean.bias.add_(3)  # far from N(0, I), so that another prior is better
    save_other(model, folder)
    figures = run(folder, fit_prior=True, write=True)
    test, likelihood, latents, generation = figures.test, figures.likelihood, figures.latents, figures.generation
    assert test is not None
    assert likelihood is not None
    assert latents is not None
    assert generation is not None
    assert generation.prior is not None
    assert figures.history == [LOOK]  # what was there is kept
    assert figures.weights == fingerprint(folder)
    assert test.pictures == 120
    assert test.psnr == pytest.approx(-10 * math.log10(test.mse))
    assert likelihood.bound == pytest.approx(likelihood.elbo, abs=4)  # of an untrained model
    assert likelihood.bound_with_prior is not None
    assert latents.kl == pytest.approx(latents.mutual_information + latents.marginal_kl)
    assert generation.accuracy is not None
    assert generation.accuracy > 0.97
    assert generation.training_pictures.frechet < generation.standard_normal.frechet
    best = max(figures.priors.values(), key=lambda row: row.held_out)
    assert generation.prior == best.generation
    assert VAE.from_pretrained(folder).prior.latent_dim == 6
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert f"| new pictures from the fitted prior | {generation.prior.frechet:.3f} ± " in card
    assert f'VAE.from_pretrained("{folder.name}")' in card
    with Image.open(folder / "samples.png") as sheet:
        assert sheet.size == (2 * (16 * 28 + 15 * 2), 2 * (6 * 28 + 5 * 2))

    again = run(folder, write=True)  # the same figures of the same folder
    assert again.test == test
    assert again.generation == generation
    assert again.priors == figures.priors


def test_attributes_are_measured(folder: Path) -> None:
    figures = run(folder, fit_directions=True, write=True)
    assert VAE.from_pretrained(folder).directions is not None
    digit = figures.attributes["digit"]
    assert digit.pictures == 120
    assert digit.real > 0.97
    assert digit.edited is not None
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert f"| digit | {100 * digit.real:.1f} % |" in card
    assert "seeds 0 to 99](generated.png)" in card
    with Image.open(folder / "generated.png") as sheet:
        assert sheet.size == (2 * (10 * 28 + 9 * 2),) * 2
    assert run(folder) == figures  # without --write, nothing is


def test_labels_can_be_the_prior(folder: Path) -> None:
    figures = run(folder, fit_prior=True, prior="attributes", fit_directions=True, write=True)
    model = VAE.from_pretrained(folder)
    assert isinstance(model.prior, AttributePrior)
    assert model.directions is model.prior.directions
    assert not (folder / "prior.safetensors").exists()
    assert figures.generation is not None
    assert figures.generation.prior == figures.priors["attributes"].generation
    assert "the fitted prior" in (folder / "README.md").read_text(encoding="utf-8")
    assert run(folder, write=True).generation == figures.generation
    with pytest.raises(ValueError, match="is its directions: use --fit-prior --prior attributes"):
        run(folder, fit_directions=True)


def test_attributes_of_other_data_are_not_measured(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = VAE.from_pretrained(folder)
    z = torch.randn(50, 6, generator=torch.Generator().manual_seed(0))
    model.directions = Directions.fit(z, (z[:, :1] > 0).long(), {"digit": ("even", "odd")})
    save_other(model, folder)
    assert run(folder, write=True).attributes == {}
    assert "has other attributes than mnist, so they are not measured" in capsys.readouterr().out


def test_without_a_classifier_one_is_trained_for_attributes_and_new_pictures_are_not_measured(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(vae.evaluate.__main__, "CLASSIFIERS", ())
    monkeypatch.setattr(vae.evaluate.features, "MIN_STEPS", 60)
    monkeypatch.setattr(vae.evaluate.fit, "PICTURES_PER_COMPONENT", 10)
    monkeypatch.setattr(vae.evaluate.fit, "PICTURES_PER_DIMENSION", 1)
    figures = run(folder, fit_prior=True, prior="mixture", fit_directions=True, write=True)
    out = capsys.readouterr().out
    assert "no classifier for mnist: training one" in out
    assert "new pictures are not measured" in out
    assert figures.attributes["digit"].real > 0.3
    assert figures.generation is None
    assert figures.priors["flow"].generation is None
    stored = VAE.from_pretrained(folder).prior  # not the likeliest, but the one that was asked for
    assert isinstance(stored, GaussianMixture)
    assert stored.components == 8  # of 80 pictures


def test_what_can_not_be_done_is_said(folder: Path) -> None:
    with pytest.raises(ValueError, match="there is no prior flow: it needs --fit-prior"):
        run(folder, prior="flow")
    with pytest.raises(ValueError, match="--generated must be at least 5, got 4"):
        run(folder, generated=4)
    for option in FEW:
        with pytest.raises(ValueError, match=f"--{option} must be at least [15], got 0"):
            run(folder, **{option: 0})
    with pytest.raises(ValueError, match=r"was trained on mnist: leave out --dataset or --write"):
        run(folder, dataset="fashion-mnist", write=True)
    (folder / "metrics.json").write_text("{")
    with pytest.raises(ValueError, match=r"metrics\.json is not JSON"):
        run(folder, dataset="mnist", write=True)
    assert (folder / "metrics.json").read_text() == "{"
    (folder / "metrics.json").unlink()
    with pytest.raises(ValueError, match="doesn't say what it was trained on"):
        run(folder)


@pytest.mark.parametrize("binarized", [False, True])
def test_a_prior_learned_in_training_is_what_its_bounds_are_under(folder: Path, binarized: bool) -> None:
    model = small_model(likelihood="bernoulli")
    model.prior = Flow(model.config.latent_dim, 2, 8)
    model.prior.mean.fill_(3.0)  # far from the posteriors, so that no other prior could be meant
    save_other(model, folder)
    figures = Figures.read(folder)
    assert figures.training is not None
    training = replace(figures.training, prior="flow", binarize="dynamic" if binarized else None)
    replace(figures, training=training).write(folder)
    with pytest.raises(ValueError, match="learned its prior in training: leave --fit-prior out"):
        run(folder, fit_prior=True)
    measured = run(folder, write=True)
    assert measured.test is not None
    assert measured.test.kl > 0.4 * 9 * model.config.latent_dim
    assert measured.likelihood is not None
    assert measured.likelihood.bound == pytest.approx(measured.likelihood.elbo, abs=30)
    assert measured.likelihood.bound_with_prior is None
    assert (measured.generation is None) == binarized  # the classifiers know no binarized pictures


def test_weights_that_give_broken_pictures_are_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vae.evaluate.measure, "generate", lambda *_, **__: torch.full((40, 1, 28, 28), math.nan))
    with pytest.raises(ValueError, match="features are not finite"):
        run(folder)


def test_the_command_fails_in_one_sentence() -> None:
    command = [sys.executable, "-m", "vae.evaluate", "no-such-model"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("vae.evaluate: there is no model 'no-such-model'")
    assert done.stderr.count("\n") == 1


# --- the bundled models, measured again on the bundled test pictures --------------------------------------------------

MAX_DEVIATION = 4.0  # standard errors: what one in 16,000 measurements exceeds by chance


@pytest.mark.parametrize("name", bundled_names())
def test_a_bundled_model_is_as_good_as_its_figures_say(name: str) -> None:
    """On few test pictures, the means are those of the whole test set within their standard error."""
    model, claimed = VAE.from_pretrained(name), Figures.read(Path("weights") / name)
    images = load_examples(name).images
    shuffled = images[torch.randperm(len(images), generator=torch.Generator().manual_seed(0))]
    parts = [evaluate(model, part) for part in shuffled.split(len(images) // 12)]
    assert claimed.test is not None
    assert claimed.training is not None
    for metric in ("elbo", "reconstruction", "kl", "mse", "ssim", "sample_mse", "sample_ssim"):
        values = [getattr(part, metric) for part in parts]
        tolerance = MAX_DEVIATION * statistics.stdev(values) / math.sqrt(len(values))
        assert statistics.mean(values) == pytest.approx(getattr(claimed.test, metric), abs=tolerance), metric
    assert claimed.test.scale == pytest.approx(parts[0].scale)
    assert claimed.training.parameters == sum(parameter.numel() for parameter in model.parameters())
    pixels = images[0].numel()
    assert claimed.test.bits_per_dimension == pytest.approx(math.log2(255) - claimed.test.elbo / pixels / math.log(2))


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_attributes_of_a_bundled_model_are_edited_as_its_figures_say(name: str) -> None:
    model, claimed = VAE.from_pretrained(name), Figures.read(Path("weights") / name).attributes
    measured = measure_attributes(model, load_classifier(name), load_examples(name))
    assert claimed.keys() == measured.keys()
    for attribute, row in measured.items():
        other = claimed[attribute]
        pairs = [(row.real, other.real), (row.reconstructed, other.reconstructed), (row.edited, other.edited)]
        pairs += [(row.kept[key], other.kept[key]) for key in other.kept]
        for found, expected in pairs:
            assert found is not None
            assert expected is not None
            # A whole picture more, as the binomial spread is nothing where all are right.
            tolerance = MAX_DEVIATION * math.sqrt(expected * (1 - expected) / row.pictures) + 1.5 / row.pictures
            assert found == pytest.approx(expected, abs=tolerance), attribute


# --- the parts -------------------------------------------------------------------------------------------------------


def test_evaluate_measures_reconstructions_from_the_sample_as_from_the_mean() -> None:
    model = small_model()
    images = load_examples("mnist").images[:30]
    figures = evaluate(model, images)
    x = to_unit(images)
    with torch.no_grad():
        output = model(x, torch.Generator().manual_seed(0))
        mean_picture = model.decode(output.posterior.mean)
    assert figures.ssim == pytest.approx(ssim(mean_picture, x).mean().item(), rel=1e-4)
    assert figures.sample_ssim == pytest.approx(ssim(output.reconstruction, x).mean().item(), rel=1e-4)
    assert figures.sample_mse == pytest.approx((output.reconstruction - x).square().mean().item(), rel=1e-4)


def test_a_mixture_has_five_pictures_for_each_dimension_of_a_component(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has a covariance to learn: with fewer, held-out latents became less likely."""
    pictures = Pictures(torch.zeros(2200, 1, 28, 28, dtype=torch.uint8), torch.empty(2200, 0, dtype=torch.int64), {})
    monkeypatch.setattr(
        Flow, "fit", lambda z: Flow(z.shape[1], 1, 4).requires_grad_(False)
    )  # which is not what is tested
    for latent_dim, components in ((4, 40), (20, 20), (100, 4)):
        posterior = DiagonalGaussian(
            torch.randn(2200, latent_dim, generator=torch.Generator().manual_seed(0)),
            torch.full((2200, latent_dim), -1.0),
        )
        names = {row.name for row in compare_priors(posterior, pictures, 200)}
        assert f"mixture-{components}" in names


@pytest.mark.parametrize("sizes", [(600, 900), (1480, 20)])
def test_a_mixture_is_one_of_classes_that_have_enough_pictures(
    sizes: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[Any] = []

    def fit(z: Tensor, components: int, *, labels: Tensor | None = None, **_: Any) -> GaussianMixture:
        given.append(labels)
        return GaussianMixture(z.shape[1], components)

    monkeypatch.setattr(GaussianMixture, "fit", fit)
    monkeypatch.setattr(Flow, "fit", lambda z: Flow(z.shape[1], 1, 4).requires_grad_(False))
    labels = torch.cat([torch.full((size,), index) for index, size in enumerate(sizes)])[:, None]
    labels = torch.cat([labels, torch.zeros(200, 1, dtype=torch.int64)])  # held out
    images = torch.zeros(1700, 1, 28, 28, dtype=torch.uint8)
    posterior = DiagonalGaussian(torch.randn(1700, 4), torch.zeros(1700, 4))
    compare_priors(posterior, Pictures(images, labels, {"class": ("a", "b")}), 200)
    single, several = given
    assert single is None
    if min(sizes) < 50:
        assert several is None
    else:
        assert torch.equal(several, labels[:1500, 0])


def test_the_prior_that_fits_best_comes_first_and_tightens_the_bounds() -> None:
    """Where the aggregate posterior is far from N(0, I), even one Gaussian fitted to it is a better prior."""
    model = small_model()
    with torch.no_grad():
        model.encoder.mean.bias.add_(3)
    pictures = load_examples("mnist")
    images = pictures.images
    rows = fit_priors(model, pictures, 24)
    assert {row.name for row in rows} == {"normal", "gaussian", "mixture-3", "flow", "attributes"}
    assert rows[0].held_out == max(row.held_out for row in rows) > {row.name: row.held_out for row in rows}["normal"]
    unlabelled = Pictures(images, torch.empty(240, 0, dtype=torch.int64), {})
    assert {row.name for row in fit_priors(model, unlabelled, 24, components=0)} == {"normal", "gaussian", "flow"}
    single = next(row.prior for row in rows if row.name == "gaussian")
    z = encode(model, to_unit(images[:-80])).sample(torch.Generator().manual_seed(0))
    gaussian = MultivariateNormal(z.mean(0), torch.cov(z.T))
    torch.testing.assert_close(single.log_prob(z).mean(), gaussian.log_prob(z).mean(), atol=0.5, rtol=0)

    plain = measure_latents(model, images[:100])
    assert plain.marginal_kl_at_least is None
    model.prior = single
    fitted = measure_latents(model, images[:100])
    assert fitted.marginal_kl_at_least is not None
    assert fitted.mutual_information_at_most is not None
    assert fitted.kl == pytest.approx(fitted.marginal_kl_at_least + fitted.mutual_information_at_most)
    noise = 0.2  # of the samples
    assert 0.9 * fitted.marginal_kl < fitted.marginal_kl_at_least < fitted.marginal_kl + noise
    likelihood = measure_likelihood(model, images[:10], samples=20)
    assert likelihood.bound_with_prior is not None
    assert likelihood.bound_with_prior > likelihood.bound


@pytest.mark.parametrize("count", [20, 50, 200, 2000])
@pytest.mark.parametrize("kind", ["standard", "clusters", "narrow", "heavy tails"])
def test_the_prior_that_is_taken_is_never_worse_than_the_standard_normal(
    count: int, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On latent vectors that nothing was fitted to: with few pictures, a mixture or a flow learns them by heart."""
    if count <= 50:
        monkeypatch.undo()  # the whole flow
    generator, dimension = torch.Generator().manual_seed(count), 16
    z = torch.randn(count + 2000, dimension, generator=generator)
    if kind == "clusters":
        z = 0.6 * z + torch.randn(10, dimension, generator=generator)[torch.arange(len(z)) % 10]
    elif kind == "narrow":
        z = z * torch.linspace(0.05, 1, dimension)
    elif kind == "heavy tails":
        z = z / torch.rand(len(z), 1, generator=generator).sqrt()
    posterior = DiagonalGaussian(z[:count], torch.full((count, dimension), -6.0))
    pictures = Pictures(torch.empty(count, 0, dtype=torch.uint8), torch.empty(count, 0, dtype=torch.int64), {})
    best, *_ = compare_priors(posterior, pictures, num_held_out=count // 3)
    gain = best.prior.log_prob(z[count:]).mean() - StandardNormal().log_prob(z[count:]).mean()
    assert gain >= 0
    if kind in ("clusters", "narrow") and count >= 200:
        assert gain > 1  # nats


def test_compare_gives_mean_and_spread_over_sets() -> None:
    real = torch.randn(500, 4, generator=torch.Generator().manual_seed(0))
    row = compare(real, [real, real + 2])
    assert row.frechet == pytest.approx(8)
    assert row.frechet_spread == pytest.approx(8)
    assert row.precision > 0.5
    assert compare(real, [real]).frechet_spread == 0


class Transparent:
    """A model whose latents are two pixels of a picture, and a classifier that reads them: all is known exactly."""

    log_scale, training = torch.zeros(()), False
    config = SimpleNamespace(channels=1, image_size=2, latent_dim=2)

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
def test_edited_and_kept_are_what_they_say(leak: float) -> None:
    labels = torch.stack([torch.arange(300) % 3, torch.arange(300) // 3 % 2], dim=1)
    images = torch.zeros(300, 1, 2, 2, dtype=torch.uint8)
    images[:, 0, 0, :2] = (25.5 * labels).round().byte()
    attributes = {"size": ("small", "medium", "large"), "colour": ("red", "blue")}
    model: Any = Transparent(Directions.fit(labels.float(), labels, attributes), leak)
    table = measure_attributes(model, model, Pictures(images, labels, attributes))
    assert table["size"].real == table["colour"].real == 1
    assert table["size"].edited == 1
    if leak:  # the decoder shows the second attribute right only for those whose first is 0
        assert table["colour"].reconstructed == pytest.approx(1 / 3)
        assert table["size"].kept["colour"] == pytest.approx(1 / 3, abs=0.08)
        assert table["colour"].edited_by_value == pytest.approx({"red": 1 / 3, "blue": 1 / 3}, abs=0.08)
    else:
        every = dict.fromkeys(attributes["size"], 1.0)
        assert table["size"] == AttributeMetrics(
            pictures=300, real=1, reconstructed=1, edited=1, edited_by_value=every, kept={"colour": 1}
        )


@pytest.mark.parametrize("count", [1, 7, 20])
def test_the_sheet_has_a_row_for_each_kind_however_few_pictures_there_are(model: VAE, count: int) -> None:
    images = torch.full((count, 1, 28, 28), 255, dtype=torch.uint8)
    model.prior = Flow(6, layers=2, width=8)
    sheet = draw_samples(model, images)
    assert sheet.width / sheet.height == pytest.approx(
        16 / 6, rel=0.02
    )  # pictures, reconstructions, two rows of each prior
    cells = torch.tensor([sheet.getpixel((int((i + 0.5) * sheet.width / 16), sheet.height // 12)) for i in range(16)])
    assert (cells == 255).sum() == min(count, 16)


def test_a_terminal_without_the_letters_gets_others() -> None:
    code = "import vae.files; vae.files.replace_unprintable(); print('σ 0.1')"
    environment = {**os.environ, "PYTHONIOENCODING": "cp1252", "PYTHONUTF8": "0"}
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, env=environment)
    assert done.stdout.strip() == b"? 0.1"
