from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from conftest import small_model
from safetensors.torch import load_file, save_file

from vae import VAE, GaussianMixture, StandardNormal, VAEConfig, generate, save_prior
from vae.attributes import AttributePrior, Directions, save_directions
from vae.card import model_card
from vae.data import DATASETS
from vae.files import read_metrics, write
from vae.hub import LATENTS, bundled_names, load_model, save_model
from vae.loss import overall_scale


@pytest.fixture
def folder(model: VAE, tmp_path: Path) -> Path:
    model.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_a_saved_model_comes_back_to_the_bit(model: VAE, folder: Path) -> None:
    assert {path.name for path in folder.iterdir()} == {"config.json", "model.safetensors"}
    loaded = VAE.from_pretrained(folder)
    assert not loaded.training
    assert loaded.config == model.config
    for key, value in model.state_dict().items():
        assert torch.equal(value, loaded.state_dict()[key]), key
    assert torch.equal(generate(model, range(8)), generate(loaded, range(8)))
    assert (folder / "model.safetensors").stat().st_mode & 0o777 == (folder / "config.json").stat().st_mode & 0o777


def test_a_model_of_another_memory_format_comes_back_too(model: VAE, tmp_path: Path) -> None:
    model.to(memory_format=torch.channels_last).save_pretrained(tmp_path)
    x = torch.rand(2, 1, 28, 28)
    torch.testing.assert_close(VAE.from_pretrained(tmp_path).encode(x).mean, model.encode(x).mean)


@pytest.mark.parametrize("name", bundled_names())
def test_bundled_models_are_found_by_name(name: str) -> None:
    model = VAE.from_pretrained(name)
    assert generate(model, [0]).shape == (1, model.config.channels, model.config.image_size, model.config.image_size)
    metrics = read_metrics(Path("weights") / name)
    assert metrics["dataset"] == name
    spec = DATASETS[name]
    assert (model.config.channels, model.config.image_size) == (spec.channels, spec.image_size)
    assert model.config.attribution == spec.attribution
    assert spec.attribution in (Path("weights") / name / "README.md").read_text(encoding="utf-8")
    assert model.directions is not None
    assert {key: tuple(values) for key, values in model.directions.attributes.items()} == spec.attributes
    assert (Path("weights") / name / "model.safetensors").stat().st_size <= 8_000_000
    assert metrics["test"]["scale"] == pytest.approx(overall_scale(model.log_scale).item())


def test_three_datasets_have_a_bundled_model() -> None:
    assert {"avatars", "mnist", "fashion-mnist"} <= set(bundled_names())


def test_an_unknown_name_is_refused_with_those_there_are() -> None:
    with pytest.raises(ValueError, match=r"there is no model 'fashion': name a folder, .* fashion-mnist, mnist"):
        VAE.from_pretrained("fashion")


@pytest.mark.parametrize("name", ["", "x" * 5000, "a/b/c", "nul\0"])
def test_a_name_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="there is no model"):
        VAE.from_pretrained(name)


def test_a_folder_that_happens_to_be_called_so_does_not_hide_a_bundled_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mnist").mkdir()
    monkeypatch.chdir(tmp_path)
    assert VAE.from_pretrained("mnist").config.latent_dim == 32


def test_a_config_of_before_there_were_attributions_is_read(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    del config["attribution"]
    (folder / "config.json").write_text(json.dumps(config))
    assert load_model(folder).config.attribution == ""


def test_directions_go_with_the_model_and_leave_with_it(model: VAE, tmp_path: Path) -> None:
    z = torch.randn(50, 6, generator=torch.Generator().manual_seed(0))
    model.directions = Directions.fit(z, (z[:, :1] > 0).long(), {"beard": ("no", "yes")})
    model.save_pretrained(tmp_path)
    loaded = VAE.from_pretrained(tmp_path)
    assert loaded.directions is not None
    assert torch.equal(loaded.directions.edit(z, {"beard": 1}), model.directions.edit(z, {"beard": 1}))
    model.prior = AttributePrior(model.directions)
    model.save_pretrained(tmp_path)
    again = VAE.from_pretrained(tmp_path)
    assert isinstance(again.prior, AttributePrior)
    assert torch.equal(generate(again, [1, 2]), generate(model, [1, 2]))
    assert not (tmp_path / "prior.safetensors").exists()
    model.prior = StandardNormal(6)
    model.save_pretrained(tmp_path)
    assert isinstance(VAE.from_pretrained(tmp_path).prior, StandardNormal)
    save_directions(Directions.fit(z[:, :5], (z[:, :1] > 0).long(), {"beard": ("no", "yes")}), tmp_path / LATENTS)
    with pytest.raises(ValueError, match="has 5 dimensions, and the latent vectors of its model 6"):
        load_model(tmp_path)
    model.directions = None  # and those of other weights would be wrong
    model.save_pretrained(tmp_path)
    assert not (tmp_path / LATENTS).exists()


def test_loading_takes_no_random_numbers(folder: Path) -> None:
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    VAE.from_pretrained(folder)
    assert torch.equal(torch.rand(1), expected)


def test_values_that_are_not_finite_are_refused(model: VAE, folder: Path) -> None:
    model.log_scale.fill_(float("nan"))
    model.save_pretrained(folder)
    with pytest.raises(ValueError, match="has values in log_scale that are not finite"):
        load_model(folder)


def test_a_loaded_model_can_be_trained_on(folder: Path) -> None:
    loaded = VAE.from_pretrained(folder)
    assert all(parameter.requires_grad for parameter in loaded.parameters())


def test_a_pickle_is_not_opened(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"holds no model\.safetensors"):
        load_model(folder)


@pytest.mark.parametrize("content", ["", "{", "[1]", "null", '"text"', "[" * 100_000, "\xff"])
def test_a_config_that_is_none_is_refused(folder: Path, content: str) -> None:
    (folder / "config.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(ValueError, match=r"config\.json(: a config must be a table| is not JSON)"):
        load_model(folder)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"widht": 8}, "unknown config key 'widht'"),
        ({"width": None}, "width must be a whole number from 4 to 512, got None"),
        ({"width": 10**12}, "width must be a whole number"),
        ({"width": 512, "depth": 16, "latent_dim": 4096, "image_size": 256}, "together ask for"),
        ({"likelihood": "../../etc/passwd"}, "likelihood must be one of"),
        ({"attribution": ["somebody"]}, "attribution must be a text of at most 1000 characters"),
        ({"attribution": "x" * 1001}, "attribution must be a text of at most 1000 characters"),
        ({"latent_dim": 7}, r"has decoder\.trunk\.0\.weight as torch\.float32 \(\d+, 6\), its config asks for"),
        ({"depth": 2}, r"(lacks|has) the tensor (decoder|encoder)\.trunk"),
    ],
)
def test_a_hostile_config_is_refused_by_the_name_of_the_field(folder: Path, change: dict, sentence: str) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(ValueError, match=sentence):
        load_model(folder)


def test_a_config_without_a_key_is_refused(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    del config["likelihood"]
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="config key 'likelihood' is missing"):
        load_model(folder)


def test_missing_extra_and_wrong_tensors_are_refused(folder: Path) -> None:
    weights = folder / "model.safetensors"
    tensors = load_file(weights)
    for changed, sentence in (
        ({key: value for key, value in tensors.items() if key != "log_scale"}, "lacks the tensor log_scale"),
        (tensors | {"extra": torch.zeros(1)}, "has the tensor extra, which the model of its config does not"),
        (tensors | {"log_scale": torch.zeros(2)}, r"has log_scale as torch\.float32 \(2,\), its config asks for"),
        (tensors | {"log_scale": torch.zeros((), dtype=torch.float16)}, r"has log_scale as torch\.float16"),
    ):
        save_file(changed, weights)
        with pytest.raises(ValueError, match=sentence):
            load_model(folder)


@pytest.mark.parametrize("damage", ["empty", "cut", "header", "length"])
def test_broken_weights_are_refused(folder: Path, damage: str) -> None:
    weights = folder / "model.safetensors"
    data = weights.read_bytes()
    weights.write_bytes(
        {
            "empty": b"",
            "cut": data[:-100],
            "header": data[:8] + b"x" + data[9:],
            "length": (2**62).to_bytes(8, "little") + data[8:],
        }[damage]
    )
    with pytest.raises(ValueError, match=r"model\.safetensors is broken, fetch or train it again"):
        load_model(folder)


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")

    def fail(part: Path) -> None:
        part.write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write(path, fail)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_metrics_that_cannot_be_read_are_none(folder: Path) -> None:
    assert read_metrics(folder) == {}
    for content in ("{", "[]", "[" * 100_000):
        (folder / "metrics.json").write_text(content)
        assert read_metrics(folder) == {}


def test_a_fitted_prior_is_kept_beside_the_weights_and_goes_with_them(model: VAE, folder: Path) -> None:
    model.prior = GaussianMixture(6, components=3)
    model.prior.means.copy_(torch.arange(18).view(3, 6))
    model.save_pretrained(folder)
    loaded = load_model(folder)
    assert torch.equal(generate(model, range(8)), generate(loaded, range(8)))
    assert not torch.equal(generate(loaded, range(8)), generate(loaded, range(8), prior=StandardNormal()))
    save_model(small_model(), folder)
    assert isinstance(load_model(folder).prior, StandardNormal)
    save_prior(GaussianMixture(7, components=3), folder / "prior.safetensors")
    with pytest.raises(ValueError, match=r"prior\.safetensors has 7 dimensions, and the latent vectors of its model 6"):
        load_model(folder)


def test_saving_over_a_model_replaces_it(folder: Path) -> None:
    other = small_model(latent_dim=9)
    save_model(other, folder)
    assert load_model(folder).config.latent_dim == 9


@pytest.mark.parametrize("name", bundled_names())
def test_a_card_is_what_its_metrics_say(name: str) -> None:
    folder = Path("weights") / name
    metrics = read_metrics(folder)
    config = VAEConfig.from_dict(json.loads((folder / "config.json").read_text()))
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert card == model_card(name, config, metrics, [path.name for path in folder.iterdir()])
    assert f'VAE.from_pretrained("{name}")' in card
    assert f"{metrics['test']['mse']:.5f}" in card
    for picture in ("samples.png", "curves.png"):
        assert (folder / picture).is_file()
