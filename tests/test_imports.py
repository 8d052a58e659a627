"""Who may import whom, each asked of a fresh interpreter."""

from __future__ import annotations

import subprocess
import sys

import pytest

MODEL = {"vae.model", "vae.prior"}
LATER = {
    "vae.model": set(),
    "vae.prior": set(),
    "vae.images": set(),
    "vae.data.avatars": {"vae.images"},
    "vae.latent": MODEL,
    "vae.loss": {"vae.model"},
    "vae.generate": MODEL,
    "vae.data": {"vae.data.avatars", "vae.images"},
    "vae.metrics": {"vae.model", "vae.loss", "vae.generate", "vae.prior"},
    "vae.features": {"vae.data.avatars", "vae.data", "vae.images"},
}


def imported_by(statement: str) -> set[str]:
    code = f"import sys, types; {statement}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize("module", LATER)
def test_a_room_imports_only_the_rooms_before_it(module: str) -> None:
    path = f"vae/{module.removeprefix('vae.')}.py"
    # An empty package stands in for vae/__init__.py, which imports several rooms itself.
    package = "package = types.ModuleType('vae'); package.__path__ = ['vae']; sys.modules['vae'] = package"
    siblings = {name for name in imported_by(f"{package}; import {module}") if name.startswith("vae.")}
    assert siblings - {module} <= LATER[module], path


def test_the_package_is_light() -> None:
    modules = imported_by("import vae")
    heavy = {"gradio", "accelerate", "torchvision", "sklearn", "matplotlib", "tyro", "huggingface_hub", "vae.data"}
    assert not modules & heavy


def test_only_the_demo_imports_gradio_and_it_has_no_need_of_training() -> None:
    assert "gradio" not in imported_by("import vae.hub, vae.evaluate")
    modules = imported_by("import vae.demo.generate, vae.demo.reconstruct, vae.demo.interpolate")
    assert not modules & {"accelerate", "torchvision", "sklearn", "matplotlib"}
