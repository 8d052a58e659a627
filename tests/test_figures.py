"""metrics.json comes back as written; malformed figures, and those of other weights, are refused; it holds no path."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from conftest import small_model

from vae.figures import DatasetFacts, Figures, parse, published_command, to_json
from vae.hub import bundled_names

MNIST = Path("weights/mnist")


def changed(*path: str, value: Any) -> str:
    """The figures of MNIST as JSON, with another value (or none, if it is `...`) in one place."""
    figures = json.loads((MNIST / "metrics.json").read_text())
    place = figures
    for key in path[:-1]:
        place = place[key]
    if value is ...:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return json.dumps(figures)


@pytest.mark.parametrize("name", bundled_names())
def test_figures_are_written_as_they_were_read(name: str, tmp_path: Path) -> None:
    folder = Path("weights") / name
    figures = Figures.read(folder)
    assert figures.dataset is not None
    assert figures.dataset.name == name
    figures.write(tmp_path)
    assert (tmp_path / "metrics.json").read_text() == (folder / "metrics.json").read_text()
    assert Figures.read(tmp_path) == figures


def test_a_folder_without_figures_has_none(tmp_path: Path) -> None:
    assert Figures.read(tmp_path) == Figures() == Figures.read(tmp_path / "missing")
    assert to_json(Figures()) == {}


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("{", "is not JSON"),
        ("\xff", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("1" * 5000, "is not JSON"),
        ("x" * 1_000_001, "has more than the 1,000,000 bytes allowed"),
        ("[]", r"metrics must be a Figures, got \[\]"),
        (changed("test", "mse", value="0.1"), 'metrics.test.mse must be a float, got "0.1"'),
        (changed("test", "mse", value=10**400), "metrics.test.mse must be a float, got 1000"),
        (changed("test", "mse", value=float("nan")), "metrics.test.mse must be a float, got NaN"),
        (changed("test", "mse", value=True), "metrics.test.mse must be a float, got true"),
        (changed("test", "elbo", value=...), "metrics.test has no elbo"),
        (changed("test", value=[]), r"metrics.test must be a TestMetrics, got \[\]"),
        (changed("test", "pictures", value=1.5), "metrics.test.pictures must be a int, got 1.5"),
        (changed("history", value={}), r"metrics.history must be a list, got {}"),
        (changed("training", "init", value=1), "metrics.training.init must be a TrainingRecord, got 1"),
        (changed("training", "seed", value=-1), "seed must be from 0 to"),
        (changed("priors", value={"flow": None}), "metrics.priors.flow must be a PriorMetrics, got null"),
        (changed("dataset", value="mnist"), 'dataset must be a DatasetFacts, got "mnist"'),  # of an older version
        ('{"training": ' + '{"init": ' * 900 + "1" + "}" * 901, "is not"),
    ],
)
def test_malformed_figures_are_refused_in_one_sentence(tmp_path: Path, content: str, sentence: str) -> None:
    (tmp_path / "metrics.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(ValueError, match=sentence) as caught:
        Figures.read(tmp_path)
    assert str(tmp_path / "metrics.json") in str(caught.value)
    assert len(str(caught.value)) < 500


def test_an_empty_text_comes_back(tmp_path: Path) -> None:
    figures = Figures(dataset=DatasetFacts(name="folder", title="", source="", licence=""))
    figures.write(tmp_path)
    assert Figures.read(tmp_path) == figures


def test_a_whole_number_is_a_float_and_unknown_keys_are_ignored() -> None:
    figures = parse(Figures, json.loads(changed("test", "elbo", value=3)) | {"later": 1}, "metrics")
    assert figures.test.elbo == 3.0
    assert type(figures.test.elbo) is float


def test_figures_of_other_weights_are_not_used(tmp_path: Path) -> None:
    small_model().save_pretrained(tmp_path)
    Figures.read(MNIST).write(tmp_path)
    with pytest.warns(UserWarning, match="is of other weights than those beside it and is not used"):
        assert Figures.read(tmp_path) == Figures()
    replace(Figures.read(MNIST), weights=None).write(tmp_path)
    assert Figures.read(tmp_path).test is not None


def test_figures_that_could_not_be_read_again_are_not_written(tmp_path: Path) -> None:
    figures = Figures.read(MNIST)
    with pytest.raises(ValueError, match=r"metrics.json would have .* bytes, more than the 1,000,000 that are read"):
        replace(figures, history=figures.history * 2000).write(tmp_path)
    assert not any(tmp_path.iterdir())


def test_figures_that_are_not_finite_are_not_written(tmp_path: Path) -> None:
    test = Figures.read(MNIST).test
    assert test is not None
    with pytest.raises(ValueError, match="not JSON compliant"):
        Figures(test=replace(test, elbo=float("nan"))).write(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_trainings_are_told_first_one_first() -> None:
    training = Figures.read(MNIST).training
    assert training is not None
    second = replace(training, command="second", init=replace(training, command="first"))
    assert [run.command for run in second.runs()] == ["first", "second"]


@dataclass
class Group:
    lr: float = 4e-3
    shift: bool = False


@dataclass
class Config:
    dataset: str = "fashion-mnist"
    data_dir: Path = Path("data")
    output: Path | None = None
    init: str | None = None
    compile: bool = True
    minutes: float | None = 3.0
    sizes: tuple[int, ...] = ()
    push_to_hub: str | None = None
    group: Group = field(default_factory=Group)


def test_a_published_command_holds_options_and_no_paths(tmp_path: Path) -> None:
    private = tmp_path / "My private pictures"
    config = Config(
        dataset="folder",
        data_dir=private,
        output=private / "out",
        init=str(private / "first model"),
        compile=False,
        minutes=None,
        sizes=(1, 2),
        push_to_hub="me/secret",
        group=Group(lr=1e-3, shift=True),
    )
    assert published_command(config, Config()) == (
        "python train.py --dataset folder --init 'first model' --no-compile --minutes None --sizes 1 2 --lr 0.001 "
        "--shift"
    )
    assert published_command(Config(), Config()) == "python train.py --dataset fashion-mnist"
    for init, last in (
        (r"C:\Users\me\first", "first"),
        ("weights/mnist", "mnist"),
        ("~/a/b/", "b"),
        ("me/vae@v1", "me/vae@v1"),
    ):
        assert published_command(Config(init=init), Config(), "python -m x").endswith(f"--init {last}"), init
