"""The tutorial: its code is ours, its tiny models are what they are said to be, and pictures lie where they lie."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from vae import VAE
from vae.demo.export import decoder_bytes
from vae.demo.learn import EXCERPTS, Excerpt, code, excerpt, place, tiny_models
from vae.files import fingerprint, read_metadata
from vae.generate import encode, latents, reconstruct
from vae.hub import bundled_names
from vae.model import kl_divergence

MAX_DECODER_BYTES = 150_000


@pytest.mark.parametrize("card", EXCERPTS)
def test_each_card_shows_a_few_lines_of_our_code(card: str) -> None:
    lines = [line for part in code()[card] for line in part["lines"].splitlines()]
    assert 3 <= len(lines) <= 8
    sources = "\n".join(
        Path("vae", name).read_text(encoding="utf-8") for name in ("model.py", "loss.py", "generate.py")
    )
    for line in lines:
        assert line.strip() in sources


def test_an_excerpt_that_is_gone_is_missed() -> None:
    assert excerpt(Excerpt(kl_divergence, "return")) == inspect.getsource(kl_divergence).splitlines()[-1].strip()
    with pytest.raises(LookupError, match="kl_divergence has no line 'gone'"):
        excerpt(Excerpt(kl_divergence, "gone"))
    with pytest.raises(LookupError, match="has no line 'def'"):
        excerpt(Excerpt(kl_divergence, "return", "def"))


def test_the_tiny_models_differ_in_beta_alone() -> None:
    tiny = tiny_models()
    assert [each.beta for each in tiny] == [0, 0.1, 1, 2, 4]
    readme = Path("weights/learn/README.md").read_text(encoding="utf-8")
    commands = set()
    for each in tiny:
        training, folder = each.figures.training, each.model.origin
        assert training is not None
        assert folder is not None
        assert each.model.config.latent_dim == 2
        assert training.seed == 0
        assert training.init is None
        assert each.figures.test is not None
        error = each.figures.test.mse * each.model.config.image_size**2
        assert f"| {each.beta:g} | {error:.1f} | {each.figures.test.kl:.1f} | `{training.command}` |" in readme
        commands.add(training.command.replace(f" --beta {each.beta:.1f}", ""))
        assert each.figures.weights == fingerprint(folder)
        assert read_metadata(folder / "map.safetensors")["weights"] == f'"{fingerprint(folder)}"'
        assert len(decoder_bytes(each.model)) <= MAX_DECODER_BYTES
    assert len(commands) == 1
    assert "learn" not in bundled_names()


def test_the_tiny_models_tell_the_tutorials_story() -> None:
    tiny = tiny_models()
    kls = [each.figures.test.kl for each in tiny if each.figures.test]
    assert kls == sorted(kls, reverse=True)
    assert kls[-1] < 0.5  # nearly collapsed
    inside = [(each.chart.points.norm(dim=1) < 2).float().mean().item() for each in tiny]
    assert inside[0] < 0.4  # of the plain autoencoder's pictures lie where N(0, I) would draw them
    assert 0.75 < inside[2] < 0.95  # 0.86 of N(0, I) itself
    spread = [each.chart.std.mean().item() for each in tiny if each.chart.std is not None]
    assert spread == sorted(spread)


def described(z: Tensor) -> dict[str, Any]:
    return {"z": z.tolist()}


def test_a_picture_is_placed_where_the_encoders_put_it() -> None:
    model = VAE.from_pretrained("mnist")
    z = latents(model, [3])[0]
    with torch.no_grad():
        x = model.decode(z[None])
    told = place(model, None, described(z))
    posterior = encode(model, x)
    assert torch.allclose(torch.tensor(told["mean"]), posterior.mean[0], atol=1e-4)
    assert told["is_own"]
    for own, tiny in zip(told["tiny"], tiny_models(), strict=True):
        there = encode(tiny.model, x)
        assert torch.allclose(torch.tensor(own["std"]), there.std[0], atol=1e-4)
        assert own["kl"] == pytest.approx(there.kl().item(), rel=1e-3)
        assert own["error"] == pytest.approx((reconstruct(tiny.model, x) - x).square().sum().item(), rel=1e-3)


def test_tiny_models_are_shown_a_digit_in_place_of_a_face() -> None:
    model = VAE.from_pretrained("avatars")
    first, second = (place(model, None, described(latents(model, [seed])[0])) for seed in (0, 1))
    assert first["mean"] != second["mean"]
    assert not first["is_own"]
    assert first["tiny"] == second["tiny"]
    with pytest.raises(ValueError, match="z must be 64 numbers"):
        place(model, None, {"z": [0.0]})
