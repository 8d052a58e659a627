"""What surrounds the code: the package that is built, the requirements, the README."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.metadata import requires, version
from pathlib import Path

from huggingface_hub import metadata_load
from packaging.requirements import Requirement

from vae.data import DATASETS
from vae.figures import Figures, format_mse
from vae.hub import bundled_names

README = Path("README.md").read_text(encoding="utf-8")


def test_requirements_are_the_package_with_its_demo_and_training() -> None:
    wanted = set()
    for line in requires("unvaelievable") or []:
        requirement = Requirement(line)
        if requirement.marker is None or any(requirement.marker.evaluate({"extra": e}) for e in ("demo", "train")):
            wanted.add(f"{requirement.name}{requirement.specifier}")
    lines = Path("requirements.txt").read_text().splitlines()
    listed = {str(Requirement(line)) for line in lines if line and not line.startswith("#")}
    assert listed == wanted


def test_the_front_matter_is_what_a_space_takes() -> None:
    front = metadata_load("README.md")
    assert front is not None
    assert front["sdk"] == "gradio"
    assert front["sdk_version"] == version("gradio")
    assert Path(front["app_file"]).is_file()
    assert len(front["short_description"]) <= 60
    assert front["license"] == "apache-2.0"
    assert front["python_version"] == "3.11"
    assert {name.partition("/")[2] for name in front["models"]} == set(bundled_names())
    assert {spec.hub_id for spec in DATASETS.values() if spec.hub_id} == set(front["datasets"])
    assert {"title", "emoji", "colorFrom", "colorTo", "tags", "suggested_hardware"} <= front.keys()


def test_the_readme_points_at_files_that_exist() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", README)
    assert links
    for link in links:
        assert link.startswith("https://") or Path(link).exists(), link


def test_the_readmes_figures_are_those_of_the_metrics() -> None:
    for name in bundled_names():
        figures = Figures.read(Path("weights") / name)
        assert figures.test
        assert figures.generation
        assert figures.generation.prior
        (row,) = (line for line in README.splitlines() if line.startswith(f"| [{name}]"))
        expected = [format_mse(figures.test.mse), format_mse(figures.test.pca_mse or 0), f"{figures.test.elbo:.1f}"]
        for comparison in (figures.generation.reconstruction, figures.generation.prior):
            expected.append(f"{comparison.frechet:.3f}")
        expected.append(f"{figures.generation.standard_normal.frechet:.2f}")
        assert [cell.strip() for cell in row.split("|")[2:-1]] == expected


def test_the_readme_is_short_and_its_excerpts_are_our_code() -> None:
    told = README[README.index("# unvaelievable") : README.index("## Licence")]
    assert len(re.findall(r"\S*[A-Za-z]\S*", told)) <= 700
    sources = ("vae/model.py", "vae/loss.py", "vae/generate.py", "train.py")
    lines = {line.strip() for source in sources for line in Path(source).read_text(encoding="utf-8").splitlines()}
    excerpts = re.findall(r"```python\n(.*?)```", told[told.index("## How it works") :], re.DOTALL)
    assert len(excerpts) == 6  # the steps of the tutorial
    for line in "".join(excerpts).splitlines():
        assert line.strip() in lines, line


def test_the_readmes_code_runs() -> None:
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    first, second = (next(block for block in blocks if word in block) for word in ("import VAE", "avatars ="))
    code = f"{first}\nprint(pictures.shape == again.shape == (16, 1, 28, 28))\n{second}\nprint(pictures.shape, odd)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "True\ntorch.Size([16, 3, 128, 128]) tensor(3)\n"
