"""Names of models, without a network."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import small_model

from vae.data import DATASETS
from vae.figures import Figures
from vae.files import read_config
from vae.hub import bundled_names, find_model, resolve_model


@pytest.mark.parametrize("name", bundled_names())
def test_bundled_models_are_those_of_their_dataset(name: str) -> None:
    folder = find_model(name)
    assert folder == Path("weights", name).resolve()
    config, figures, spec = read_config(folder), Figures.read(folder), DATASETS[name]
    assert figures.dataset is not None
    assert figures.dataset.name == name
    assert (config.channels, config.image_size, config.attribution) == (
        spec.channels,
        spec.image_size,
        spec.attribution,
    )
    assert spec.attribution in (folder / "README.md").read_text(encoding="utf-8")
    files = (folder / file for file in ("model.safetensors", "prior.safetensors"))
    assert sum(file.stat().st_size for file in files if file.exists()) <= 10_000_000
    assert resolve_model(name) == ({}, None)


def test_three_datasets_have_a_bundled_model() -> None:
    assert {"avatars", "mnist", "fashion-mnist"} <= set(bundled_names())


def test_an_unknown_name_is_refused_with_those_there_are() -> None:
    with pytest.raises(ValueError, match=r"there is no model 'fashion': name a folder, .* fashion-mnist, mnist"):
        find_model("fashion")


@pytest.mark.parametrize("name", ["", "x" * 5000, "a/b/c", "nul\0", "a/b@", "a/b@c d", "/a/b"])
def test_a_name_that_is_none_is_refused(name: str) -> None:
    for find in (find_model, resolve_model):
        with pytest.raises(ValueError, match="there is no model"):
            find(name)


@pytest.mark.parametrize("name", ["mnist", "weights/mnist", Path("weights/mnist")])
def test_only_a_repo_has_revisions(name: str | Path) -> None:
    with pytest.raises(ValueError, match=r"only a Hub repo has revisions, and .*mnist is none: leave out v2"):
        find_model(name, revision="v2")


def test_a_path_is_never_a_repo() -> None:
    with pytest.raises(ValueError, match=r"there is no model 'weights/typo'"):
        find_model(Path("weights/typo"))


def test_a_folder_hides_a_repo_and_a_bundled_model_only_if_it_holds_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("mnist", "owner/name"):
        (tmp_path / name).mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert find_model("mnist") != Path("mnist")
    assert find_model(Path("mnist")) == Path("mnist")
    small_model().save_pretrained("mnist")
    assert find_model("mnist") == Path("mnist")
    assert find_model("owner/name") == Path("owner/name")
    with pytest.raises(ValueError, match=r"owner/name holds no config\.json"):
        resolve_model("owner/name")


def test_the_hub_of_the_environment_is_asked() -> None:
    code = "import vae; from huggingface_hub import hf_hub_url; print(hf_hub_url('owner/name', 'config.json'))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"HF_ENDPOINT": "http://127.0.0.1:9"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("http://127.0.0.1:9/owner/name/")
