"""The package as it is installed: beside somebody's own vae.py, under the name that nobody else uses."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the built wheel is unpacked to."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, check=True, capture_output=True, timeout=120)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "installed")
    return folder / "installed"


def run(installed: Path, work: Path, code: str) -> subprocess.CompletedProcess[str]:
    """Run a script of somebody who has a vae.py of his own."""
    (work / "vae.py").write_text("VAE = 'mine'\n")
    (work / "script.py").write_text(code)
    environment = os.environ | {"PYTHONPATH": str(installed)}
    return subprocess.run(
        [sys.executable, "script.py"], cwd=work, env=environment, capture_output=True, text=True, check=False
    )


def test_the_other_name_stands_beside_the_package(installed: Path) -> None:
    assert (installed / "unvaelievable.py").is_file()
    assert not (installed / "vae" / "unvaelievable.py").exists()


def test_the_other_name_finds_the_package_beside_a_script_called_vae(installed: Path, tmp_path: Path) -> None:
    done = run(
        installed,
        tmp_path,
        "import unvaelievable\n"
        "from unvaelievable import VAE, VAEConfig, generate\n"
        "import vae, vae.loss\n"  # from now on this is the package, too
        "assert vae.VAE is VAE is unvaelievable.VAE\n"
        "assert set(unvaelievable.__all__) == set(vae.__all__) <= set(dir(unvaelievable))\n"
        "print(generate(VAE.from_pretrained('mnist'), [0]).shape, vae.__file__, unvaelievable.__version__)\n",
    )
    assert done.returncode == 0, done.stderr
    assert str(installed / "vae" / "__init__.py") in done.stdout


def test_after_another_vae_the_other_name_says_what_to_do(installed: Path, tmp_path: Path) -> None:
    done = run(installed, tmp_path, "import vae\nassert vae.VAE == 'mine'\nimport unvaelievable\n")
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError: ")
    assert f"{tmp_path / 'vae.py'} is imported as vae and is not this package" in last


def test_after_the_package_the_other_name_is_the_same(installed: Path, tmp_path: Path) -> None:
    code = "import sys\nsys.path.pop(0)\nimport vae, unvaelievable\nassert unvaelievable.VAE is vae.VAE\n"
    done = run(installed, tmp_path, code)
    assert done.returncode == 0, done.stderr


def test_the_wheel_carries_weights_and_examples_and_nothing_else(installed: Path, tmp_path: Path) -> None:
    names = [path.relative_to(installed).as_posix() for path in installed.rglob("*") if path.is_file()]
    assert not [name for name in names if name.startswith("tests/") or re.search(r"\.(bin|pt|pth|ckpt|pkl)$", name)]
    top = {name.partition("/")[0] for name in names if ".dist-info/" not in name}
    assert top == {"vae", "unvaelievable.py", "unvaelievable_app.py", "unvaelievable_train.py"}
    code = (
        "import sys\nsys.path.pop(0)\nimport vae, vae.data\nprint(vae.__file__)\n"
        "print(vae.VAE.from_pretrained('mnist').config.latent_dim, len(vae.data.load_examples('mnist').images))\n"
    )
    done = run(installed, tmp_path, code)
    assert done.stdout.split() == [str(installed / "vae" / "__init__.py"), "32", "240"]


def test_the_console_scripts_of_the_wheel_run_from_any_folder(installed: Path, tmp_path: Path) -> None:
    (path,) = installed.glob("*.dist-info/entry_points.txt")
    scripts = dict(line.split(" = ") for line in path.read_text().splitlines() if " = " in line)
    assert scripts.keys() == {"unvaelievable-demo", "unvaelievable-evaluate", "unvaelievable-train"}
    code = f"""
import importlib, sys
sys.path.pop(0)
for name, place in {scripts}.items():
    module, function = place.split(":")
    sys.argv = [name, "--help"]
    try:
        getattr(importlib.import_module(module), function)()
    except SystemExit as end:
        assert not end.code, end.code
from vae.training.push import command
print(command("--resume", "out"))
"""
    done = run(installed, tmp_path, code)
    assert done.returncode == 0, done.stderr
    for option in ("--share", "--fit-prior", "--epochs"):
        assert option in done.stdout
    assert done.stdout.splitlines()[-1] == "unvaelievable-train --resume out"
