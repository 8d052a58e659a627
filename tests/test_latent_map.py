"""The map of a latent space: its file, the command that draws it, and what the page tells of it."""

from __future__ import annotations

import base64
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import small_model
from safetensors.torch import load_file, save_file
from torch import Tensor

import vae.evaluate.map
from vae import VAE
from vae.attributes import fit_attributes
from vae.data import Pictures, load_examples
from vae.demo.map import MAX_INTEGER, describe_map, map_of
from vae.evaluate.map import Options, draw_map, lay_out, main
from vae.files import MAP, read_metadata
from vae.generate import encode
from vae.hub import bundled_names
from vae.images import to_unit
from vae.latent_map import LatentMap, load_map, save_map

MAX_MAP_BYTES = 300_000


def chart(latent_dim: int, attributes: dict[str, tuple[str, ...]] | None = None) -> LatentMap:
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(20, latent_dim, generator=generator)
    attributes = {"digit": ("a", "b"), "2": ("x", "y", "z")} if attributes is None else attributes
    labels = [torch.randint(len(values), (20,), generator=generator) for values in attributes.values()]
    return LatentMap(
        points=z[:, :2],
        latents=z,
        std=z.abs() if latent_dim == 2 else None,
        labels=torch.stack(labels, dim=1) if labels else torch.empty(20, 0, dtype=torch.int64),
        attributes=attributes,
    )


@pytest.mark.parametrize(("latent_dim", "attributes"), [(2, None), (5, None), (5, {})])
def test_a_saved_map_is_read_again(
    tmp_path: Path, latent_dim: int, attributes: dict[str, tuple[str, ...]] | None
) -> None:
    saved = chart(latent_dim, attributes)
    save_map(saved, tmp_path / MAP)
    loaded = load_map(tmp_path / MAP)
    assert torch.equal(loaded.points, saved.points)
    assert torch.equal(loaded.labels, saved.labels)
    assert [*loaded.attributes.items()] == [(name, list(values)) for name, values in saved.attributes.items()]
    step = saved.latents.abs().amax(dim=0) / 127
    assert ((loaded.latents - saved.latents).abs() <= 0.51 * step * (latent_dim != 2)).all()  # exact, where D is 2
    assert (loaded.std is None) == (saved.std is None)


def spoil(path: Path, change: Any) -> None:
    tensors, metadata = load_file(path), read_metadata(path)
    change(tensors, metadata)
    save_file(tensors, path, metadata)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda t, m: t["labels"].fill_(2), "labels should be the numbers of values"),
        (lambda t, m: t.pop("step"), "it lacks the tensor step"),
        (lambda t, m: t["points"].fill_(torch.nan), "values in points are not finite"),
        (lambda t, m: m.pop("map"), "its metadata has no map in JSON"),
        (lambda t, m: m.update(map="[]"), "should say pictures, latent_dim and attributes"),
        (lambda t, m: m.update(map='{"pictures": 1e9, "latent_dim": 5, "attributes": []}'), "pictures of a map should"),
        (lambda t, m: m.update(map='{"pictures": 20, "latent_dim": 5, "attributes": [1]}'), "pairs of a name"),
        (lambda t, m: m.update(map='{"pictures": 20, "latent_dim": 5, "attributes": [[[], []]]}'), "have names"),
    ],
)
def test_a_broken_map_is_refused_in_words(tmp_path: Path, change: Any, complaint: str) -> None:
    save_map(chart(5), tmp_path / MAP)
    spoil(tmp_path / MAP, change)
    with pytest.raises(ValueError, match=complaint) as error:
        load_map(tmp_path / MAP)
    assert MAP in str(error.value)
    assert "\n" not in str(error.value)


def test_neighbours_stay_neighbours() -> None:
    generator = torch.Generator().manual_seed(0)
    groups = torch.arange(3).repeat_interleave(15)
    z = 8 * torch.randn(3, 10, generator=generator)[groups] + torch.randn(45, 10, generator=generator)
    points = lay_out(z)
    assert points.abs().max() == 1
    nearest = torch.cdist(points, points).fill_diagonal_(torch.inf).argmin(dim=1)
    assert torch.equal(groups[nearest], groups)


@pytest.mark.parametrize("value", [0.0, 1 / 3])
def test_latents_that_are_equal_are_laid_out_at_the_origin(value: float) -> None:
    assert torch.equal(lay_out(torch.full((20, 4), value)), torch.zeros(20, 2))


@pytest.mark.parametrize("spread", [1e-30, 1e-12, 1e-6])
def test_latents_that_are_nearly_equal_are_laid_out(spread: float) -> None:
    points = lay_out(spread * torch.randn(20, 4, generator=torch.Generator().manual_seed(0)))
    assert (points.abs() <= 1).all()


def test_the_map_of_one_picture_repeated_can_be_saved(tmp_path: Path, model: VAE) -> None:
    save_map(draw_map(model, torch.full((20, 1, 28, 28), 100, dtype=torch.uint8)), tmp_path / MAP)
    assert torch.equal(load_map(tmp_path / MAP).points, torch.zeros(20, 2))


def test_the_command_writes_the_map_of_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("config.json", "model.safetensors", "metrics.json"):
        shutil.copyfile(Path("weights/learn/beta-1", name), tmp_path / name)
    digits = load_examples("mnist")
    monkeypatch.setattr(vae.evaluate.map, "load_dataset", lambda name, *_, **__: digits if name == "mnist" else None)
    main(Options(str(tmp_path), pictures=100))
    written, is_test = map_of(VAE.from_pretrained(tmp_path))
    expected = encode(VAE.from_pretrained(tmp_path), to_unit(digits.images[:100]))
    assert is_test
    assert torch.allclose(written.latents, expected.mean, atol=1e-4)
    assert written.std is not None
    assert torch.allclose(written.std, expected.std, atol=1e-4)
    assert torch.equal(written.labels, digits.labels[:100])
    with pytest.raises(ValueError, match="in the cache of the Hub"):
        main(Options("somebody/digits"))
    (tmp_path / "metrics.json").unlink()
    with pytest.raises(ValueError, match="doesn't say which of"):
        main(Options(str(tmp_path)))


@pytest.mark.parametrize("name", bundled_names())
def test_bundled_models_bring_a_map_of_their_own(name: str) -> None:
    model = VAE.from_pretrained(name)
    drawn, is_test = map_of(model)
    assert is_test, f"the weights of {name} have changed: python -m vae.evaluate.map {name}"
    assert Path("weights", name, MAP).stat().st_size <= MAX_MAP_BYTES
    assert len(drawn.points) == 2000
    assert model.directions is not None
    assert [*drawn.attributes] == [*model.directions.attributes]
    told = (model.directions.predict(drawn.latents) == drawn.labels).float().mean()
    assert told > 0.8  # these are the latent vectors of those pictures


def numbers(text: str, kind: str) -> Tensor:
    return torch.from_numpy(np.frombuffer(base64.b64decode(text), kind).copy())


def test_other_models_get_a_map_of_their_prior(tmp_path: Path) -> None:
    model = small_model()
    z = torch.randn(50, 6, generator=torch.Generator().manual_seed(0))
    model.directions = fit_attributes(z, (z[:, :1] > 0).long(), {"side": ("left", "right")})
    told = describe_map(model)
    assert not told["has_pictures"]
    latents = numbers(told["latents"], "<i1").view(-1, 6) * torch.tensor(told["step"])
    labels = numbers(told["labels"], "<i2").view(-1, 1)
    points = numbers(told["points"], "<f4").view(-1, 2)
    assert len(points) == len(latents) == len(labels)
    assert points.abs().max() == 1
    assert told["attributes"] == [["side", ["left", "right"]]]
    assert (model.directions.predict(latents) == labels).float().mean() > 0.98  # but for rounding
    assert numbers(told["latents"], "<i1").abs().max() == MAX_INTEGER

    # A map that was drawn of other weights, or is broken, is left alone.
    model.save_pretrained(tmp_path)
    save_map(chart(6), tmp_path / MAP, weights="others")
    assert not map_of(VAE.from_pretrained(tmp_path))[1]
    (tmp_path / MAP).write_bytes(b"no map")
    assert not map_of(VAE.from_pretrained(tmp_path))[1]


def test_a_space_of_one_dimension_has_a_map() -> None:
    told = describe_map(small_model(latent_dim=1))
    points = numbers(told["points"], "<f4").view(-1, 2)
    assert points[:, 0].abs().max() == 1
    assert (points[:, 1] == 0).all()


def test_pictures_without_labels_have_a_map(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("config.json", "model.safetensors", "metrics.json"):
        shutil.copyfile(Path("weights/learn/beta-1", name), tmp_path / name)
    bare = Pictures(load_examples("mnist").images, torch.empty(240, 0, dtype=torch.int64), {})
    monkeypatch.setattr(vae.evaluate.map, "load_dataset", lambda *_, **__: bare)
    main(Options(str(tmp_path), pictures=10))
    assert load_map(tmp_path / MAP).attributes == {}
