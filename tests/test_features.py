from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors import safe_open

import vae.evaluate.features
from vae.data import Pictures, load_examples
from vae.evaluate.features import (
    CLASSIFIERS,
    FOLDER,
    accuracy,
    extract_features,
    load_classifier,
    main,
    train,
)
from vae.images import to_unit


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_the_classifiers_that_come_sort_the_examples_as_well_as_their_files_say(name: str) -> None:
    network, path = load_classifier(name), FOLDER / f"{name}.safetensors"
    assert path.stat().st_size < 600_000
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    assert metadata["dataset"] == name
    assert float(metadata["accuracy"]) > 0.92
    examples = load_examples(name)  # of the test set
    assert accuracy(network, examples).mean().item() == pytest.approx(float(metadata["accuracy"]), abs=0.05)


def test_features_are_what_the_last_layer_decides_by() -> None:
    network = load_classifier("mnist")
    images = load_examples("mnist").images
    found = extract_features(network, images)
    assert found.shape == (240, 96)
    assert not found.requires_grad
    assert (found.std(dim=0) > 0).all()
    torch.testing.assert_close(network.head(found), network(to_unit(images)))
    torch.testing.assert_close(extract_features(network, to_unit(images)), found)


def test_pictures_of_any_number_give_the_same_features(monkeypatch: pytest.MonkeyPatch) -> None:
    network, images = load_classifier("mnist"), load_examples("mnist").images[:25]
    found = extract_features(network, images)
    monkeypatch.setattr(vae.evaluate.features, "CHUNK", 7)
    torch.testing.assert_close(extract_features(network, images), found)


def test_a_classifier_that_does_not_come_is_refused() -> None:
    with pytest.raises(ValueError, match="no classifier of 'folder': choose one of avatars, mnist, fashion-mnist"):
        load_classifier("folder")


def test_a_classifier_learns_and_the_same_seed_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vae.evaluate.features, "MIN_STEPS", 3)
    examples = load_examples("mnist")
    before = torch.random.get_rng_state()
    network = train(examples, mirror=False, epochs=60)
    assert accuracy(network, examples).item() > 0.9
    assert torch.equal(torch.random.get_rng_state(), before)
    few = Pictures(examples.images[:128], examples.labels[:128], examples.attributes)
    a, b = (train(few, mirror=True, epochs=1).state_dict() for _ in range(2))
    assert all(torch.equal(a[key], b[key]) for key in a)


def test_the_command_writes_what_load_classifier_reads(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(vae.evaluate.features, "load_dataset", lambda name, data_dir, split: load_examples(name))
    monkeypatch.setattr(vae.evaluate.features, "FOLDER", tmp_path)
    monkeypatch.setattr(vae.evaluate.features, "MIN_STEPS", 10)
    main("fashion-mnist")
    network = load_classifier("fashion-mnist")
    reached = accuracy(network, load_examples("fashion-mnist")).item()
    assert f"accuracy on class: {100 * reached:.2f} %" in capsys.readouterr().out
