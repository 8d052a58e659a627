from __future__ import annotations

import struct
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from conftest import write_celeba
from PIL import Image

from vae.data import DATASETS, augment, batches, binarize, load_dataset, load_examples


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


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # a closed port


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
    with pytest.raises(ValueError, match=f"there is no folder {tmp_path}/nowhere"):
        load_dataset("folder", tmp_path / "nowhere", "train")
    with pytest.raises(ValueError, match="holds 0 readable pictures"):
        load_dataset("folder", tmp_path, "train")


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Twelve good pictures of several formats and sizes, two broken ones, and things that are none."""
    folder = tmp_path / "pictures"
    (folder / "deeper").mkdir(parents=True)
    for index in range(12):
        extension = ("png", "jpg", "webp", "gif")[index % 4]
        picture = Image.new("RGB", (20 + 7 * index, 90 - 5 * index), (20 * index, 0, 255 - 20 * index))
        picture.save(folder / ("deeper" if index % 2 else ".") / f"{index:02}.{extension}")
    (folder / "half.png").write_bytes((folder / "00.png").read_bytes()[:60])
    (folder / "words.jpg").write_text("not a picture")
    (folder / "notes.txt").write_text("not even called one")
    (folder / ".hidden.png").write_text("hidden")
    return folder


def test_a_folder_of_any_pictures_becomes_one_tensor(pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train = load_dataset("folder", pictures, "train", image_size=16).images
    said = capsys.readouterr().err
    assert "2 of 14 files are left out" in said
    assert "half.png" in said
    assert "words.jpg" in said
    test = load_dataset("folder", pictures, "test", image_size=16).images
    assert train.shape == (11, 3, 16, 16)
    assert test.shape == (1, 3, 16, 16)
    reds = torch.cat([train, test])[:, 0, 8, 8]
    torch.testing.assert_close(reds.sort().values.int(), torch.arange(0, 240, 20, dtype=torch.int32), atol=4, rtol=0)
    assert load_dataset("folder", pictures, "train", image_size=16, channels=1).images.shape == (11, 1, 16, 16)


def test_folders_within_a_folder_are_its_labels(pictures: Path) -> None:
    assert load_dataset("folder", pictures, "train").attributes == {}  # some lie in none
    shallow = pictures / "shallow"
    shallow.mkdir()
    for path in [path for path in pictures.iterdir() if path.is_file()]:
        path.rename(shallow / path.name)
    splits: list[tuple[Literal["train", "test"], int]] = [("train", 11), ("test", 1)]
    for split, count in splits:
        images, labels, attributes = load_dataset("folder", pictures, split, image_size=16)
        assert attributes == {"folder": ["deeper", "shallow"]}
        assert labels.shape == (count, 1)
        reds = (images[:, 0, 8, 8].double() / 20).round().int()  # which picture it is
        assert torch.equal(labels[:, 0], 1 - reds % 2)


def test_folders_that_are_no_labels_are_none(pictures: Path) -> None:
    """Too many of them, or called what no page could show."""
    for path in [path for path in pictures.rglob("*") if path.suffix in (".png", ".jpg", ".webp", ".gif")]:
        folder = pictures / f"family\u200d{len(path.stem) % 2}"
        folder.mkdir(exist_ok=True)
        path.rename(folder / path.name)
    attributes = load_dataset("folder", pictures, "train").attributes
    assert all(name.isprintable() for name in attributes.get("folder", []))
    (pictures / f"family\u200d{0}").rename(pictures / ("x" * 101))
    assert load_dataset("folder", pictures, "train").attributes == {}


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


def test_a_folder_is_decoded_once(pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = load_dataset("folder", pictures, "train").images

    def decode(*_: object, **__: object) -> None:
        raise AssertionError("decoded again")

    with monkeypatch.context() as patch:
        patch.setattr("vae.data.cache.to_pixels", decode)
        assert torch.equal(load_dataset("folder", pictures, "train").images, first)
    (pictures / "00.png").unlink()  # now the folder is another one
    assert len(load_dataset("folder", pictures, "train").images) == len(first) - 1


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04 half a file", None])
def test_a_damaged_cache_is_made_again(pictures: Path, damage: bytes | None) -> None:
    first = load_dataset("folder", pictures, "train").images
    (cache,) = (pictures / ".vae-cache").iterdir()
    cache.write_bytes(cache.read_bytes()[:-100] if damage is None else damage)
    assert torch.equal(load_dataset("folder", pictures, "train").images, first)


def test_an_epoch_serves_every_picture_once_and_no_two_epochs_alike() -> None:
    images = torch.arange(240, dtype=torch.uint8).view(240, 1, 1, 1)
    epochs = [torch.cat(list(batches(images, 24, seed=1, epoch=epoch))) for epoch in (0, 1)]
    for epoch in epochs:
        assert epoch.dtype == torch.float32
        torch.testing.assert_close(epoch.flatten().sort().values * 255, torch.arange(240.0))
    assert not torch.equal(*epochs)
    assert torch.equal(epochs[0], torch.cat(list(batches(images, 24, seed=1, epoch=0))))
    assert not torch.equal(epochs[0], torch.cat(list(batches(images, 24, seed=2, epoch=0))))


@pytest.mark.parametrize("world_size", [2, 3])
def test_processes_share_the_very_batches_of_one(world_size: int) -> None:
    images = torch.arange(250, dtype=torch.uint8).view(250, 1, 1, 1)
    alone = list(batches(images, 24, seed=1, epoch=5))
    shares = [list(batches(images, 24, seed=1, epoch=5, rank=r, world_size=world_size)) for r in range(world_size)]
    assert len(alone) == 250 // 24
    for whole, *parts in zip(alone, *shares, strict=True):
        assert torch.equal(whole, torch.cat(parts))


@pytest.mark.parametrize(("batch_size", "world_size"), [(11, 1), (5, 2)])
def test_batches_that_cannot_be_are_refused(batch_size: int, world_size: int) -> None:
    images = torch.zeros(10, 1, 2, 2, dtype=torch.uint8)
    with pytest.raises(ValueError, match=f"can't share batches of {batch_size} out of 10 pictures"):
        next(batches(images, batch_size, seed=0, epoch=0, world_size=world_size))


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
