"""Folders of models: what is saved comes back, what was left by a kill or by other weights is not used in silence."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import small_model
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from vae import VAE, Flow, GaussianMixture, StandardNormal, generate, save_prior
from vae.attributes import AttributePrior, Directions, save_directions
from vae.figures import Figures
from vae.files import CONFIG, LATENTS, PRIOR, WEIGHTS
from vae.hub import bundled_names
from vae.loss import overall_scale


@pytest.fixture
def folder(model: VAE, tmp_path: Path) -> Path:
    model.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def directions() -> Directions:
    z = torch.randn(50, 6, generator=torch.Generator().manual_seed(0))
    return Directions.fit(z, (z[:, :1] > 0).long(), {"beard": ("no", "yes")})


def config_of(weights: Path) -> dict[str, object]:
    with safe_open(weights, "pt") as file:
        return json.loads(file.metadata()["config"])


# --- what is saved comes back ---


def test_a_saved_model_comes_back_to_the_bit(model: VAE, folder: Path) -> None:
    assert {path.name for path in folder.iterdir()} == {CONFIG, WEIGHTS}
    loaded = VAE.from_pretrained(folder)
    assert not loaded.training
    assert loaded.config == model.config
    assert all(parameter.requires_grad for parameter in loaded.parameters())
    for key, value in model.state_dict().items():
        assert torch.equal(value, loaded.state_dict()[key]), key
    torch.testing.assert_close(generate(loaded, range(8)), generate(model, range(8)))
    assert (folder / WEIGHTS).stat().st_mode & 0o777 == (folder / CONFIG).stat().st_mode & 0o777


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("name", ["mnist", "avatars"])
def test_loading_and_seeds_do_not_depend_on_the_default_type(name: str, dtype: torch.dtype) -> None:
    expected = generate(VAE.from_pretrained(name), [3])
    torch.set_default_dtype(dtype)
    try:
        model = VAE.from_pretrained(name)
        again = generate(model, [3])
    finally:
        torch.set_default_dtype(torch.float32)
    assert {value.dtype for value in model.state_dict().values()} == {torch.float32, torch.int64}
    torch.testing.assert_close(again, expected)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"prior": GaussianMixture(7, 1)}, "prior must be of 6 dimensions, .* got 7"),
        ({"directions": "of 4"}, "directions must be of 6 dimensions, .* got 4"),
        ({"prior": type("Own", (StandardNormal,), {})(6)}, "of a known latent_dim can be saved, got Own"),
    ],
)
def test_what_could_not_be_loaded_again_is_refused_before_anything_is_written(
    folder: Path, model: VAE, changes: dict[str, object], sentence: str
) -> None:
    before = {path: path.read_bytes() for path in folder.iterdir()}
    for name, value in changes.items():
        z = torch.randn(50, 4)
        own = Directions.fit(z, (z[:, :1] > 0).long(), {"beard": ("no", "yes")}) if value == "of 4" else value
        setattr(model, name, own)
    with pytest.raises(ValueError, match=sentence):
        model.save_pretrained(folder)
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_a_model_of_another_memory_format_comes_back_too(model: VAE, tmp_path: Path) -> None:
    model.to(memory_format=torch.channels_last).save_pretrained(tmp_path)
    x = torch.rand(2, 1, 28, 28)
    torch.testing.assert_close(VAE.from_pretrained(tmp_path).encode(x).mean, model.encode(x).mean)


def test_loading_takes_no_random_numbers(folder: Path) -> None:
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    VAE.from_pretrained(folder)
    assert torch.equal(torch.rand(1), expected)


@pytest.mark.parametrize("name", bundled_names())
def test_bundled_models_have_all_that_the_page_shows(name: str) -> None:
    model = VAE.from_pretrained(name)
    assert generate(model, [0]).shape == (1, model.config.channels, model.config.image_size, model.config.image_size)
    assert not isinstance(model.prior, StandardNormal)
    assert model.directions is not None
    figures = Figures.read(Path("weights", name))
    assert figures.test is not None
    assert figures.test.scale == pytest.approx(overall_scale(model.log_scale).item())


@pytest.mark.parametrize("prior", [GaussianMixture(6, components=3), Flow(6, layers=2, width=8)])
def test_a_fitted_prior_goes_with_the_model_and_leaves_with_it(
    model: VAE, folder: Path, prior: GaussianMixture | Flow
) -> None:
    for tensor in prior.state_dict().values():
        tensor.add_(0.1)
    if isinstance(prior, GaussianMixture):
        prior.weights.fill_(1 / 3)
        prior.scale_tril.copy_(torch.eye(6).expand(3, 6, 6))
    model.prior = prior
    model.save_pretrained(folder)
    loaded = VAE.from_pretrained(folder)
    assert type(loaded.prior) is type(prior)
    for key, value in prior.state_dict().items():
        assert torch.equal(loaded.prior.state_dict()[key], value), key
    small_model().save_pretrained(folder)
    assert not (folder / PRIOR).exists()
    assert isinstance(VAE.from_pretrained(folder).prior, StandardNormal)


def test_directions_go_with_the_model_and_leave_with_it(model: VAE, tmp_path: Path, directions: Directions) -> None:
    model.directions = directions
    model.save_pretrained(tmp_path)
    loaded = VAE.from_pretrained(tmp_path)
    assert loaded.directions is not None
    assert isinstance(loaded.prior, StandardNormal)
    z = torch.randn(5, 6, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(loaded.directions.edit(z, {"beard": 1}), directions.edit(z, {"beard": 1}))
    model.prior = AttributePrior(directions)
    model.save_pretrained(tmp_path)
    again = VAE.from_pretrained(tmp_path)
    assert isinstance(again.prior, AttributePrior)
    torch.testing.assert_close(generate(again, [1, 2]), generate(model, [1, 2]))
    assert not (tmp_path / PRIOR).exists()
    model.prior = StandardNormal(6)
    model.save_pretrained(tmp_path)
    assert isinstance(VAE.from_pretrained(tmp_path).prior, StandardNormal)
    model.directions = None  # and those of other weights would be wrong
    model.save_pretrained(tmp_path)
    assert not (tmp_path / LATENTS).exists()


def test_saving_over_a_model_replaces_it(folder: Path) -> None:
    small_model(latent_dim=9).save_pretrained(folder)
    assert VAE.from_pretrained(folder).config.latent_dim == 9


# --- folders that do not fit together ---


def test_the_config_that_the_weights_carry_is_the_one_that_counts(folder: Path) -> None:
    """As after a kill between the two writes: the weights are new, and config.json is of the model before."""
    small_model(latent_dim=9, width=12).save_pretrained(folder.with_name("new"))
    shutil.copy(folder.with_name("new") / WEIGHTS, folder / WEIGHTS)
    assert json.loads((folder / CONFIG).read_text())["latent_dim"] == 6
    assert config_of(folder / WEIGHTS)["latent_dim"] == 9
    assert VAE.from_pretrained(folder).config.latent_dim == 9


def test_weights_without_a_config_of_their_own_take_that_of_the_folder(model: VAE, folder: Path) -> None:
    save_file(load_file(folder / WEIGHTS), folder / WEIGHTS)  # as models were before
    loaded = VAE.from_pretrained(folder)
    assert loaded.config == model.config
    for key, value in model.state_dict().items():
        assert torch.equal(value, loaded.state_dict()[key]), key


def test_what_was_fitted_to_other_weights_is_not_used(model: VAE, folder: Path, directions: Directions) -> None:
    model.prior, model.directions = GaussianMixture(6, components=3), directions
    model.save_pretrained(folder)
    with torch.no_grad():
        next(model.parameters()).add_(0.01)
    model.prior, model.directions = StandardNormal(6), None
    model.save_pretrained(folder.with_name("new"))
    shutil.copy(folder.with_name("new") / WEIGHTS, folder / WEIGHTS)
    with pytest.warns(UserWarning, match="was fitted to other weights") as warned:
        loaded = VAE.from_pretrained(folder)
    assert len(warned) == 2
    assert isinstance(loaded.prior, StandardNormal)
    assert loaded.directions is None


def test_a_prior_or_directions_of_another_size_are_refused(folder: Path) -> None:
    save_prior(GaussianMixture(7, components=3), folder / PRIOR)
    with pytest.raises(ValueError, match=r"prior\.safetensors has 7 dimensions, the model's latent vectors 6"):
        VAE.from_pretrained(folder)
    (folder / PRIOR).unlink()
    z = torch.randn(50, 5, generator=torch.Generator().manual_seed(0))
    save_directions(Directions.fit(z, (z[:, :1] > 0).long(), {"beard": ("no", "yes")}), folder / LATENTS)
    with pytest.raises(ValueError, match=r"latents\.safetensors has 5 dimensions, the model's latent vectors 6"):
        VAE.from_pretrained(folder)


def test_a_pickle_is_not_opened(folder: Path) -> None:
    (folder / WEIGHTS).rename(folder / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"holds no model\.safetensors, and no other kind of file is opened"):
        VAE.from_pretrained(folder)


def test_weights_replaced_under_a_model_in_use_do_not_kill_it(folder: Path) -> None:
    """A file that were mapped into memory, and cut while it is read, would end the process with SIGBUS."""
    code = """
import sys
from pathlib import Path
from vae import VAE, generate
folder = Path(sys.argv[1])
model = VAE.from_pretrained(folder)
before = generate(model, range(4))
for content in (b"", b"x" * 1000):
    (folder / "model.safetensors").write_bytes(content)  # in place, as cp does
    assert (generate(model, range(4)) - before).abs().max() < 1e-5
    assert all(value.double().sum().isfinite() for value in model.state_dict().values())
print("alive")
"""
    done = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "alive\n"), done.stderr
