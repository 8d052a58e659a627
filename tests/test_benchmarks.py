"""The benchmarks that need nothing that is not installed: do they measure what they say?"""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from conftest import small_model

from vae import Flow
from vae.data import binarize, load_examples
from vae.evaluate.measure import describe_dataset
from vae.figures import Figures, parse
from vae.images import to_unit
from vae.loss import importance_weighted_bound

SCRIPT = Path(__file__).with_name("benchmarks") / "likelihood.py"


def load(script: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Load a script as a module, with examples in the place of the pictures that it loads."""
    spec = importlib.util.spec_from_file_location(script.stem, script)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, script.stem, module)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "load_dataset", lambda name, *_: load_examples(name))
    return module


@pytest.fixture
def likelihood(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    return load(SCRIPT, monkeypatch)


def test_throughput_lets_all_take_turns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    throughput = load(SCRIPT.with_name("throughput.py"), monkeypatch)
    monkeypatch.setattr(throughput, "WARM_UP", 1)
    only = ("bare", "examples")
    throughput.main(batch_sizes=(2, 4), steps=1, rounds=1, precision="no", only=only, output=tmp_path)
    rows = json.loads((tmp_path / "throughput.json").read_text())["batch_sizes"]
    assert list(rows) == ["2", "4"]
    for row in rows.values():
        assert list(row) == ["bare", "examples", "ours"]
        assert row["ours"]["ours_to_it"] == 1
        for name in only:
            ratio = row["ours"]["images_per_second"] / row[name]["images_per_second"]
            assert row[name]["ours_to_it"] == pytest.approx(ratio)
    assert "| 4 | ours |" in capsys.readouterr().out
    assert (tmp_path / "throughput.png").is_file()


@pytest.mark.parametrize("prior", ["normal", "flow"])
def test_where_the_subset_is_all_pictures_nothing_is_estimated(
    likelihood: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str], prior: str
) -> None:
    model = small_model(likelihood="bernoulli")
    model.prior = Flow(6, 1, 8)
    model.prior.mean.fill_(1.0)  # far from N(0, I)
    model.save_pretrained(tmp_path)
    training = Figures.read(Path("weights/mnist")).training
    assert training is not None
    training = dataclasses.replace(training, binarize="dynamic", prior=prior, seed=3)
    Figures(dataset=describe_dataset("mnist"), training=training).write(tmp_path)
    likelihood.measure(tmp_path, few=2, many=30, subset=1000, write=True)
    figures = json.loads(capsys.readouterr().out)
    assert Figures.read(tmp_path).published_likelihood == figures

    x = to_unit(binarize(load_examples("mnist").images, 3))
    trained_with = model.prior if prior == "flow" else None
    generator = torch.Generator().manual_seed(5)
    bound = importance_weighted_bound(model, x, 30, prior=trained_with, generator=generator).mean().item()
    assert figures["negative_log_likelihood"] == pytest.approx(-bound, abs=0.1)
    assert figures["gain_of_many"] == pytest.approx(bound - figures["bound_of_few"], abs=0.1)
    assert figures["pictures"] == figures["subset"] == len(x)


def test_grey_pictures_have_no_published_likelihood(tmp_path: Path) -> None:
    small_model().save_pretrained(tmp_path)
    done = subprocess.run([sys.executable, SCRIPT, "measure", tmp_path], check=False, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == f"likelihood.py: {tmp_path} was not trained by train.py --binarize dynamic\n"


@pytest.mark.parametrize("path", sorted(SCRIPT.parent.glob("nll-*.json")), ids=lambda path: path.stem)
def test_the_published_likelihoods_are_those_of_the_table(path: Path) -> None:
    figures = parse(Figures, json.loads(path.read_text()), path.name)
    likelihood, training = figures.published_likelihood, figures.training
    written = f"{likelihood['negative_log_likelihood']:.2f} ± {likelihood['standard_error']:.2f}"
    (row,) = (
        line for line in SCRIPT.with_name("README.md").read_text(encoding="utf-8").splitlines() if written in line
    )
    assert row.startswith("| ours, N(0, I)" if training.prior == "normal" else "| ours, learned flow")


# --- the second classifier ---


@pytest.fixture
def second(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    return load(SCRIPT.with_name("second_classifier.py"), monkeypatch)


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_the_second_classifier_knows_what_it_was_trained_on(second: ModuleType, name: str) -> None:
    images, labels, _ = load_examples(name)
    network = second.load_second(name, torch.device("cpu"))
    with torch.no_grad():
        predicted = network.head(second.features(network, images)).argmax(dim=1)
    assert (predicted == labels[:, 0]).float().mean() > 0.85


@pytest.mark.parametrize("components", [None, 2])
def test_the_second_classifier_judges_beside_the_first(
    second: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str], components: int | None
) -> None:
    small_model().save_pretrained(tmp_path)
    Figures(dataset=describe_dataset("mnist")).write(tmp_path)
    second.compare([tmp_path], components=components)
    header, _, row = capsys.readouterr().out.splitlines()
    assert header.count("|") == row.count("|") == 7
    for both in row.split("|")[3:7]:
        assert all(float(distance) > 1 for distance in both.split(" / "))  # an untrained model's pictures are none
