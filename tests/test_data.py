from __future__ import annotations

import itertools
import struct
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from conftest import write_celeba
from torch import Tensor

from vae.data import (
    DATASETS,
    Share,
    augment,
    batches,
    binarize,
    draw_binary,
    load_dataset,
    load_examples,
    prefetched,
    shuffled,
)


def write_idx(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(struct.pack(f">I{values.ndim}I", 0x0800 + values.ndim, *values.shape) + values.tobytes())


@pytest.fixture(scope="module")
def test_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with files of both datasets: those of the test set as long as the real ones, filled with noise."""
    folder = tmp_path_factory.mktemp("data")
    random = np.random.default_rng(0)
    for name in ("MNIST", "FashionMNIST"):
        raw = folder / name / "raw"
        write_idx(raw / "t10k-images-idx3-ubyte", random.integers(0, 256, (10_000, 28, 28), dtype=np.uint8))
        write_idx(raw / "t10k-labels-idx1-ubyte", random.integers(0, 10, 10_000, dtype=np.uint8))
        write_idx(raw / "train-images-idx3-ubyte", np.zeros((20, 28, 28), np.uint8))
        write_idx(raw / "train-labels-idx1-ubyte", np.zeros(20, np.uint8))
    return folder


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # a closed port
    # By which urllib remembers the proxies of its first request, for all later ones of this process.
    monkeypatch.setattr("urllib.request._opener", None)


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_torchvisions_files_are_read_as_they_are(test_files: Path, name: str) -> None:
    images, labels, attributes = load_dataset(name, test_files, "test")
    assert images.shape == (10_000, 1, 28, 28)
    assert images.dtype == torch.uint8
    assert labels.shape == (10_000, 1)
    assert attributes == DATASETS[name].attributes
    raw = test_files / {"mnist": "MNIST", "fashion-mnist": "FashionMNIST"}[name] / "raw"
    assert images.numpy().tobytes() == (raw / "t10k-images-idx3-ubyte").read_bytes()[16:]


@pytest.mark.usefixtures("no_network")
def test_without_files_and_network_the_sentence_names_the_files(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="could not be downloaded") as caught:
        load_dataset("mnist", tmp_path, "train")
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert "put train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte, " in sentence
    assert sentence.endswith(f"(or their .gz) into {tmp_path}/MNIST/raw")


@pytest.mark.parametrize("content", [b"", b"\x00\x00\x08\x03", b"no idx file at all", None])
def test_broken_files_are_named(test_files: Path, tmp_path: Path, content: bytes | None) -> None:
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for source in (test_files / "MNIST" / "raw").iterdir():
        (raw / source.name).write_bytes(source.read_bytes())
    images = raw / "t10k-images-idx3-ubyte"
    images.write_bytes(images.read_bytes()[:-1000] if content is None else content)
    with pytest.raises(
        ValueError, match="the files of mnist are broken: delete them and put train-images-idx3"
    ) as caught:
        load_dataset("mnist", tmp_path, "test")
    assert str(raw) in str(caught.value)


def test_the_wrong_number_of_pictures_is_noticed(test_files: Path) -> None:
    with pytest.raises(ValueError, match="holds 20 pictures instead of 60000"):
        load_dataset("mnist", test_files, "train")


def test_bad_requests_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match="no dataset 'minst': choose one of avatars, mnist, fashion-mnist, celeba, folder"
    ):
        load_dataset("minst", tmp_path, "train")
    with pytest.raises(ValueError, match="leave image_size and channels to it"):
        load_dataset("mnist", tmp_path, "train", image_size=64)


@pytest.mark.parametrize("name", ["folder", "mnist", "avatars", "celeba", "hub:owner/name"])
@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"split": "val"}, "split should be train or test, got 'val'"),
        ({"image_size": 0}, "image_size should be a whole number of pixels, 1 or more, got 0"),
        ({"image_size": -1}, "image_size should be a whole number of pixels, 1 or more, got -1"),
        ({"channels": 2}, "channels should be 1 or 3, got 2"),
        ({"pixel_range": "most"}, "pixel_range should be auto or full, got 'most'"),
    ],
)
def test_options_are_checked_before_anything_is_opened(name: str, options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        load_dataset(name, "nowhere", **{"split": "test"} | options)


def test_celeba_is_read_as_it_is_laid_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_celeba(tmp_path)
    splits: list[tuple[Literal["train", "test"], int]] = [("train", 0), ("test", 2)]
    for split, part in splits:
        images, labels, attributes = load_dataset("celeba", tmp_path, split)
        assert images.shape == (10, 3, 64, 64)
        assert attributes == {"blond hair": ("no", "yes"), "smiling": ("no", "yes")}
        expected = torch.arange(part, 30, 3)
        torch.testing.assert_close(images[:, 0, 32, 32].long(), 8 * expected, atol=4, rtol=0)
        assert torch.equal(labels, (expected % 2)[:, None].expand(10, 2))
    assert {path.name for path in (tmp_path / "celeba").iterdir()} == {
        "img_align_celeba",
        "list_attr_celeba.txt",
        "list_eval_partition.txt",
    }
    assert all(path.suffix == ".jpg" for path in (tmp_path / "celeba" / "img_align_celeba").iterdir())
    pictures = tmp_path / "celeba" / "img_align_celeba"
    (pictures / "000004.jpg").unlink()
    with pytest.raises(ValueError, match="holds 9 readable pictures"):
        load_dataset("celeba", tmp_path, "train")
    assert "1 of 10 files are left out" in capsys.readouterr().err


def test_a_celeba_that_is_not_whole_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"there is no .*list_eval_partition.txt: fetch .* and unpack them into"):
        load_dataset("celeba", tmp_path, "train")
    table = write_celeba(tmp_path) / "celeba" / "list_attr_celeba.txt"
    table.write_text("\n".join(table.read_text().splitlines()[:9]))
    with pytest.raises(ValueError, match=r"list_attr_celeba.txt or .* is broken, fetch it again"):
        load_dataset("celeba", tmp_path, "train")


def test_an_epoch_serves_every_picture_once_and_no_two_epochs_alike() -> None:
    images = torch.arange(240, dtype=torch.uint8).view(240, 1, 1, 1)
    epochs = [torch.cat(list(batches(images, 24, seed=1, epoch=epoch))) for epoch in (0, 1)]
    for epoch in epochs:
        assert epoch.dtype == torch.float32
        torch.testing.assert_close(epoch.flatten().sort().values * 255, torch.arange(240.0))
    assert not torch.equal(*epochs)
    assert torch.equal(epochs[0], torch.cat(list(batches(images, 24, seed=1, epoch=0))))
    assert not torch.equal(epochs[0], torch.cat(list(batches(images, 24, seed=2, epoch=0))))


@pytest.mark.parametrize("batch_size", [3, 24, 250])
def test_batches_without_end_hold_every_picture_once_in_each_pass(batch_size: int) -> None:
    batches = list(itertools.islice(shuffled(250, batch_size, seed=1), 751 // batch_size))
    passes = torch.cat(batches).split(250)
    for indices in passes[:-1]:
        assert torch.equal(indices.sort().values, torch.arange(250))
    assert not torch.equal(*passes[:2])
    for start in (1, len(batches) - 1):
        assert torch.equal(next(shuffled(250, batch_size, seed=1, start=start)), batches[start])


@pytest.mark.parametrize("processes", [2, 3])
def test_processes_treat_each_picture_as_one_does(processes: int) -> None:
    x = torch.rand(12, 3, 8, 8)

    def treat(x: Tensor, share: Share) -> Tensor:
        torch.manual_seed(0)
        return draw_binary(augment(x, 2, share), share)

    shares = [Share(rank, processes) for rank in range(processes)]
    assert torch.equal(treat(x, Share()), torch.cat([treat(share.of(x), share) for share in shares]))


def test_batches_are_prepared_ahead_in_their_order() -> None:
    batches = [torch.zeros(size) for size in range(10)]
    assert [batch.shape for batch in prefetched(iter(batches), torch.device("meta"))] == [b.shape for b in batches]
    assert list(prefetched(iter(batches[:1]), torch.device("cpu"))) == batches[:1]
    assert list(prefetched(iter(()), torch.device("cpu"))) == []
    endless = prefetched((torch.zeros(size) for size in itertools.count()), torch.device("meta"))
    assert [len(next(endless)) for _ in range(5)] == list(range(5))
    endless.close()


def test_batches_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match="there are no batches of 11 in 10 pictures"):
        next(batches(torch.zeros(10, 1, 2, 2, dtype=torch.uint8), 11, seed=0, epoch=0))


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_examples_are_24_real_pictures_of_each_class(name: str) -> None:
    images, labels, attributes = load_examples(name)
    assert images.shape == (240, 1, 28, 28)
    assert labels.shape == (240, 1)
    labels = labels[:, 0]
    assert torch.equal(labels.bincount(), torch.full((10,), 24))
    assert [len(values) for values in attributes.values()] == [10]
    assert len(images.flatten(1).unique(dim=0)) == 240
    # They are what they say: the nearest class mean is mostly their own.
    x = images.flatten(1).float()
    means = torch.stack([x[labels == label].mean(0) for label in range(10)])
    assert (torch.cdist(x, means).argmin(1) == labels).float().mean() > 0.7


def test_examples_of_nothing_known_are_refused() -> None:
    with pytest.raises(
        ValueError, match="no example pictures come for 'celeba', only for avatars, fashion-mnist, mnist"
    ):
        load_examples("celeba")


def test_augmented_pictures_are_moved_each_by_itself() -> None:
    x = torch.arange(1.0, 50).view(1, 1, 7, 7).repeat(500, 3, 1, 1)
    assert torch.equal(augment(x), x)
    moved = augment(x, shift=2)
    assert moved.shape == x.shape
    assert torch.equal(moved[:, 0], moved[:, 2])  # the colours stay together
    centres = moved[:, 0, 3, 3].int().unique(return_counts=True)
    assert centres[0].tolist() == [7 * row + column + 1 for row in range(1, 6) for column in range(1, 6)]
    assert centres[1].min() > 5
    corner = moved[moved[:, 0, 3, 3] == 9][0, 0]  # moved right and down by two: the edge is drawn out
    assert torch.equal(corner[:3, :3], torch.ones(3, 3))
    assert torch.equal(corner[2:, 2:], x[0, 0, :5, :5])


def test_binarized_pictures_are_white_as_often_as_they_are_bright() -> None:
    images = torch.tensor([0, 51, 128, 255], dtype=torch.uint8).view(1, 1, 1, 4).repeat(2500, 1, 5, 1)
    drawn = binarize(images, 0)
    assert drawn.shape == images.shape
    assert drawn.dtype == torch.uint8
    assert set(drawn.unique().tolist()) == {0, 255}
    torch.testing.assert_close(
        drawn.double().mean((0, 1, 2)) / 255, torch.tensor([0, 0.2, 128 / 255, 1]).double(), atol=0.015, rtol=0
    )
    assert torch.equal(drawn, binarize(images, 0))
    assert not torch.equal(drawn, binarize(images, 1))
