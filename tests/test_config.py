"""What a training does by default: the recipes of the datasets."""

from __future__ import annotations

import pytest

from vae.data import DATASETS
from vae.figures import published_command
from vae.training.checkpoint import options_of, to_plain
from vae.training.config import TrainConfig, peek, recipe
from vae.training.options import FinishOptions
from vae.training.setup import DataOptions, ModelOptions


@pytest.mark.parametrize("name", DATASETS)
def test_a_dataset_has_a_recipe_and_the_command_needs_no_more_than_its_name(name: str) -> None:
    config = recipe(name)
    options = options_of(to_plain(config))
    assert options.items() >= DATASETS[name].recipe.items()
    usual = options_of(to_plain(TrainConfig()))
    assert {key for key, value in options.items() if value != usual[key]} <= {"dataset", *DATASETS[name].recipe}
    assert published_command(config, recipe(name)) == f"python train.py --dataset {name}"


def test_weights_to_begin_with_keep_their_architecture() -> None:
    assert recipe("mnist").model != ModelOptions()
    assert recipe("mnist", init="weights/mnist").model == ModelOptions(init="weights/mnist")


@pytest.mark.parametrize("words", [["--dataset"], ["--init"], ["--what", "5"], []])
def test_nonsense_is_left_to_the_whole_parser(words: list[str]) -> None:
    assert peek(words).dataset == "fashion-mnist"


def test_options_are_found_in_both_ways_of_writing() -> None:
    assert peek(["--epochs", "3", "--dataset", "mnist"]).dataset == peek(["--dataset=mnist"]).dataset == "mnist"
    assert peek(["--resume", "out"]).resume == "out"


def test_what_none_says_is_nothing() -> None:
    assert peek(["--init", "None", "--resume", "None"]).init is None


def test_streamed_pictures_are_not_all_measured() -> None:
    with pytest.raises(ValueError, match="leave it or --streaming out"):
        TrainConfig(data=DataOptions(dataset="hub:a/b", streaming=True), finish=FinishOptions(evaluate=True))
