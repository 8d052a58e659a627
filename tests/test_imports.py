"""Who may import whom: read from the syntax tree of every module, imports inside functions included."""

from __future__ import annotations

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

# The floors of the house, the lowest first: a module may import modules of lower floors, and those of its own package.
FLOORS = (
    "vae.decode",
    "vae.config",
    "vae.files",
    "vae.images",
    "vae.prior",
    "vae.attributes",
    "vae.figures",
    "vae.card",
    "vae.hub",
    "vae.pretrained",
    "vae.model",
    "vae.loss",
    "vae.generate",
    "vae.latent",
    "vae.latent_map",
    "vae.space",
    "vae.data",
    "vae.evaluate",
    "vae.training",
    "vae.demo",
    "train",
    "app",
)
# What only some who use the package have; anything else is imported at the top of a module.
OPTIONAL = {
    "accelerate",
    "datasets",
    "dicebear",
    "fsspec",  # of datasets
    "matplotlib",
    "pillow_heif",
    "resource",  # not on Windows
    "resvg_py",
    "scipy",
    "sklearn",
    "torchvision",
    "tqdm",
    "trackio",
    "tyro",
}


def modules(root: Path) -> dict[str, Path]:
    paths = [root / "train.py", root / "app.py", *sorted((root / "vae").rglob("*.py"))]
    names = {".".join(path.relative_to(root).with_suffix("").parts): path for path in paths if path.exists()}
    return {name.removesuffix(".__init__"): path for name, path in names.items() if name != "vae.__init__"}


OURS = frozenset(modules(Path()))


@cache
def imports(source: str) -> list[tuple[str, bool]]:
    """List the modules that a source text imports, and whether a function does it."""
    found: list[tuple[str, bool]] = []
    tree = ast.parse(source)
    functions = [
        node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
    ]
    inner = {id(node) for function in functions for node in ast.walk(function)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(alias.name, id(node) in inner) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"a relative import of {node.module}"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            known = [name for name in names if node.module and name in OURS]
            found += [(name, id(node) in inner) for name in known or [str(node.module)]]
    return found


def room(module: str) -> str:
    """Return the floor that a module stands on."""
    return ".".join(module.split(".")[:2])


def faults(root: Path) -> list[str]:
    found = []
    graph: dict[str, set[str]] = {}
    for name, path in modules(root).items():
        graph[name] = set()
        for imported, is_inner in imports(path.read_text(encoding="utf-8")):
            if is_inner and imported.partition(".")[0] not in OPTIONAL:
                found.append(f"{name} imports {imported} inside a function")
            if imported.partition(".")[0] not in ("vae", "train", "app"):
                continue
            graph[name].add(imported)
            if room(imported) == "vae":
                found.append(f"{name} imports from vae itself, which imports everything")
            elif room(imported) != room(name) and FLOORS.index(room(imported)) >= FLOORS.index(room(name)):
                found.append(f"{name} imports {imported}, which stands above it")
    while leaves := [name for name, others in graph.items() if not others & graph.keys()]:
        for name in leaves:
            del graph[name]
    return found + ([f"a circle of imports: {', '.join(sorted(graph))}"] if graph else [])


def test_modules_import_downwards_only() -> None:
    assert faults(Path()) == []


@pytest.mark.parametrize(
    ("path", "line", "complaint"),
    [
        ("vae/config.py", "from vae.model import VAE", "vae.config imports vae.model, which stands above it"),
        ("vae/prior/base.py", "def f() -> None:\n    import vae.hub", "vae.prior.base imports vae.hub inside"),
        ("vae/loss.py", "from vae import VAE", "vae.loss imports from vae itself"),
        ("vae/data/specs.py", "import vae.data.sources", "a circle of imports: "),
    ],
)
def test_a_planted_fault_is_found(tmp_path: Path, path: str, line: str, complaint: str) -> None:
    for source in modules(Path()).values():
        copy = tmp_path / source
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(source.read_bytes())
    with (tmp_path / path).open("a") as file:
        file.write(f"\n\n{line}\n")
    assert any(complaint in fault for fault in faults(tmp_path))


def imported_by(statement: str) -> set[str]:
    code = f"import sys; {statement}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_the_package_is_light() -> None:
    heavy = {"gradio", "accelerate", "torchvision", "scipy", "sklearn", "matplotlib", "tyro", "datasets", "vae.data"}
    assert not imported_by("import vae") & heavy


def test_the_page_has_no_need_of_training() -> None:
    heavy = {"accelerate", "torchvision", "scipy", "sklearn", "matplotlib"}
    assert not imported_by("import vae.demo.interpolate, vae.demo.map, vae.demo.learn, vae.demo.reconstruct") & heavy
