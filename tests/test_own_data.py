"""Pictures of one's own: given from Python, or read through Hugging Face's `datasets`."""

from __future__ import annotations

import dataclasses
import io
import itertools
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import small_model
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset, TensorDataset

from train import ModelOptions, RunOptions, TrainConfig, train
from vae import VAE, VAEConfig, calibrate, score
from vae.data import Share, as_pictures, load_dataset, load_examples, short_name, split_pictures
from vae.data.own import fit, usable_labels
from vae.data.specs import HUB_NAME
from vae.data.stream import open_stream
from vae.evaluate import __main__ as evaluation
from vae.figures import Figures, last_part
from vae.images import to_pil, to_unit
from vae.training.setup import DataOptions

KINDS: dict[str, Callable[[Tensor, Tensor], Any]] = {
    "tensor": lambda images, labels: images,
    "array": lambda images, labels: images.permute(0, 2, 3, 1).float().div(255).numpy(),
    "dataset": lambda images, labels: TensorDataset(images, labels[:, 0]),
    "hub": lambda images, labels: of_hub(images, label=(labels[:, 0].tolist(), list("abcdefghij"))),
}


@pytest.mark.parametrize("kind", KINDS)
def test_one_call_trains_on_ones_own(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    images, labels, _ = load_examples("fashion-mnist")
    config = TrainConfig(model=ModelOptions(latent_dim=8, width=8, depth=1), run=RunOptions(epochs=10))
    train(config, pictures=KINDS[kind](images, labels))
    assert re.search(r"\d+ pictures to train on and \d+ to test; ", capsys.readouterr().err)
    folder = tmp_path / "weights" / "own"
    model, figures = VAE.from_pretrained(folder), Figures.read(folder)
    assert (model.config.image_size, model.config.channels) == (28, 1)
    assert figures.dataset
    assert figures.dataset.name == "own"
    assert figures.training
    assert figures.test
    assert figures.training.pictures + figures.training.validation_pictures + figures.test.pictures == 240
    assert (model.directions is not None) == (kind in ("dataset", "hub"))
    if kind == "hub":
        assert model.directions
        assert [*model.directions.attributes["label"]] == list("abcdefghij")


LOOP = """
import torch
from vae import VAE, VAEConfig, calibrate
from vae.data import batches, load_examples
from vae.loss import elbo, mean_error, optimal_log_scale

images = load_examples("fashion-mnist").images  # (240, 1, 28, 28) uint8
model = VAE(VAEConfig(image_size=28, channels=1, latent_dim=8, width=8, depth=1))
optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3)
for epoch in range(20):
    for x in batches(images, 24, seed=0, epoch=epoch):  # (24, 1, 28, 28) in [0, 1]
        output, likelihood = model(x), model.config.likelihood
        scale = optimal_log_scale(mean_error(x, output.reconstruction.detach(), likelihood), likelihood)
        loss = -elbo(x, output, likelihood, scale).total.mean() / x[0].numel()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
calibrate(model, images)  # σ, which is 1 before
model.eval().save_pretrained("mine")
"""


def test_a_loop_of_ones_own_ends_in_a_calibrated_model(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(Path.cwd())}
    command = [sys.executable, "-c", LOOP]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    x = to_unit(load_examples("fashion-mnist").images)
    model = VAE.from_pretrained(tmp_path / "mine")
    calibrated = score(model, x).mean()
    error = (model(x).reconstruction - x).square().mean().sqrt()
    torch.testing.assert_close(model.log_scale.exp(), error, rtol=0.05, atol=0)
    model.log_scale.zero_()
    assert calibrated > 0 > score(model, x).mean() + 500


def test_calibration_changes_nothing_but_the_scale() -> None:
    images = load_examples("fashion-mnist").images
    for mode in (True, False):
        model = small_model().train(mode)
        before = {name: value.clone() for name, value in model.state_dict().items()}
        calibrate(model, images)
        scale = model.log_scale.clone()
        calibrate(model, to_unit(images), chunk=100)
        torch.testing.assert_close(model.log_scale, scale, rtol=0.1, atol=0.01)  # of other noise
        assert model.training == mode
        changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
        assert changed == {"log_scale"}


# --- tensors, arrays and Datasets ------------------------------------------------------------------------------------


@pytest.fixture
def images() -> Tensor:
    """Noise, (12, 3, 20, 20) uint8."""
    return torch.randint(256, (12, 3, 20, 20), generator=torch.Generator().manual_seed(0)).byte()


@pytest.mark.parametrize(
    "given",
    [
        lambda images: images,
        lambda images: images.numpy(),
        lambda images: images.permute(0, 2, 3, 1),
        lambda images: images.float() / 255,
        lambda images: images.double().numpy() / 255,
        lambda images: images.half() / 255,
        lambda images: (images.float() / 255).numpy().astype(">f4"),
        lambda images: images.flip(3).numpy()[..., ::-1],  # which torch does not take
        lambda images: TensorDataset(images),
        lambda images: TensorDataset(images.permute(0, 2, 3, 1), torch.zeros(12)[:, None].long()),
        lambda images: Listed([Image.fromarray(image.permute(1, 2, 0).numpy()) for image in images]),
        lambda images: Listed([np.asarray(Image.fromarray(image.permute(1, 2, 0).numpy())) for image in images]),
        lambda images: Streamed([*images]),
    ],
)
def test_the_same_pictures_in_every_form(images: Tensor, given: Callable[[Tensor], Any]) -> None:
    pictures = as_pictures(given(images))
    assert torch.equal(pictures.images, images)
    assert pictures.labels.shape == (12, 0)
    assert pictures.attributes == {}


class Listed(Dataset):
    def __init__(self, items: list[Any], **attributes: Any) -> None:
        self.items = items
        vars(self).update(attributes)

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Any:
        return self.items[index]


class Streamed(IterableDataset):
    def __init__(self, items: list[Any]) -> None:
        self.items = items

    def __iter__(self) -> Any:
        return iter(self.items)


class Endless(Dataset):
    def __getitem__(self, index: int) -> Any:
        return torch.zeros(3, 20, 20)


def test_grey_pictures_need_no_channel(images: Tensor) -> None:
    assert torch.equal(as_pictures(images[:, 0]).images, images[:, :1])
    masks = as_pictures(images[:, 0] > 127).images
    assert torch.equal(masks, 255 * (images[:, :1] > 127).byte())


def test_long_doubles_are_pictures(images: Tensor) -> None:
    assert torch.equal(as_pictures(images.numpy().astype(np.longdouble) / 255).images, images)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"image_size": 0}, "image_size should be a whole number of pixels, 1 or more, got 0"),
        ({"image_size": 2.5}, "image_size should be a whole number of pixels, 1 or more, got 2.5"),
        ({"channels": 2}, "channels should be 1 or 3, got 2"),
        ({"pixel_range": "most"}, "pixel_range should be auto or full, got 'most'"),
    ],
)
def test_options_that_make_no_pictures_are_refused(images: Tensor, options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        as_pictures(images, **options)
    with pytest.raises(ValueError, match=sentence):
        open_stream("hub:owner/name", **options)


def test_pictures_are_made_as_the_options_say(images: Tensor) -> None:
    pictures = as_pictures(images, image_size=16, channels=1).images
    assert pictures.shape == (12, 1, 16, 16)
    wide = Listed([Image.new("RGB", (200 + index, 100), (index, 0, 0)) for index in range(12)])
    assert as_pictures(wide).images.shape == (12, 3, 64, 64)  # files are made no larger than this
    assert as_pictures(torch.zeros(12, 100, 120)).images.shape == (12, 1, 100, 100)  # tensors are as they are
    deep = Listed([Image.fromarray(np.full((20, 20), 4095, np.uint16)) for _ in range(12)])
    assert as_pictures(deep).images.unique().tolist() == [255]
    assert as_pictures(deep, pixel_range="full").images.unique().tolist() == [16]


def test_labels_are_what_sliders_can_be_made_of(images: Tensor, capsys: pytest.CaptureFixture[str]) -> None:
    forms = (0, True, np.int64(2), np.uint8(3), torch.tensor(4), torch.tensor([5]))
    items = [(image, forms[index % 6]) for index, image in enumerate(images)]
    pictures = as_pictures(Listed(items))
    assert pictures.labels[:, 0].tolist() == [0, 1, 2, 3, 4, 5] * 2
    assert pictures.attributes == {"class": ["0", "1", "2", "3", "4", "5"]}
    names = as_pictures(Listed(items, classes=["a", "b", "c", "d", "d", "\n"])).attributes["class"]
    assert names == ["a", "b", "c", "d", "d (2)", "�"]
    assert capsys.readouterr().err == ""
    for value, reason in ((-1, "some pictures have no value of it"), (5000, "more than 1,000 values are too many")):
        pictures = as_pictures(Listed([*items[:11], (images[11], value)]))
        assert pictures.labels.shape == (12, 0)
        assert pictures.attributes == {}
        assert f"the label 'class' is left out: {reason}" in capsys.readouterr().err


ZERO = torch.zeros(3, 20, 20)


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        (
            [ZERO] * 12,
            "pictures should be a tensor, an array, a torch.utils.data.Dataset or a datasets.Dataset, got list",
        ),
        (torch.zeros(12, 400), "should be (N, H, W), (N, C, H, W) or (N, H, W, C) with 1 or 3 channels, got (12, 400)"),
        (torch.zeros(12, 4, 20, 20), "with 1 or 3 channels, got (12, 4, 20, 20)"),
        (torch.zeros(12, 20, 0), "got (12, 20, 0)"),
        (torch.zeros(12, 20, 20).long(), "should be uint8, or numbers from 0 to 1, got torch.int64"),
        (255 * torch.ones(12, 20, 20), "should be numbers from 0 to 1, got 255 to 255: rescale them"),
        (torch.full((12, 20, 20), torch.nan), "should be numbers from 0 to 1, got nan to nan"),
        (np.array([["a"]]), "should be uint8, or numbers from 0 to 1, got <U1"),
        (torch.zeros(9, 20, 20), "there are 9 pictures: at least 10 are needed"),
        ({"train": ZERO, "test": ZERO}, "these are several splits: give one of train, test"),
        (Endless(), "the dataset has no length: give it __len__, or make it an IterableDataset"),
        (Listed([ZERO, "a.png"]), "picture 1 should be a tensor, an array or one of PIL, got str"),
        (Listed([ZERO, ZERO - 1]), "picture 1 should be numbers from 0 to 1, got -1 to -1"),
        (Listed([(ZERO, 1, 2)]), "picture 0 comes with 2 more things"),
        (Listed([(ZERO, "cat")]), "the label of picture 0 should be a whole number, got 'cat'"),
        (Listed([(ZERO, 0.5)]), "the label of picture 0 should be a whole number, got 0.5"),
        (Listed([(ZERO, torch.tensor(1.0, requires_grad=True))]), "the label of picture 0 should be a whole number"),
        (Listed([Image.new("RGB", (0, 5))]), "picture 0 has no pixels: leave it out"),
        (Listed([(ZERO, 1)], classes=5), "the classes of the dataset should be the names of its labels, got 5"),
        (Listed([(ZERO, 1)], classes="ab"), "the classes of the dataset should be the names of its labels, got 'ab'"),
        (Listed([(ZERO, 1)] * 9 + [ZERO]), "some pictures have labels and some have none"),
    ],
)
def test_what_cant_be_trained_on_gets_one_sentence(source: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match=re.escape(sentence)) as caught:
        as_pictures(source)
    assert "\n" not in str(caught.value)


def test_a_picture_never_changes_sides() -> None:
    pictures = load_examples("fashion-mnist")
    sides = split_pictures(pictures)
    assert len(sides["train"].images) + len(sides["test"].images) == 240
    assert 10 <= len(sides["test"].images) <= 40
    for side in sides.values():
        assert len(side.labels.unique()) > 3  # mixed
        for image, label in zip(side.images[:5], side.labels[:5], strict=True):  # each has its own label still
            (index,) = (pictures.images == image).flatten(1).all(dim=1).nonzero().flatten()
            assert label == pictures.labels[index]
    fewer = split_pictures(pictures._replace(images=pictures.images[::3], labels=pictures.labels[::3]))
    for name in ("train", "test"):
        before = {image.numpy().tobytes() for image in sides[name].images}
        assert {image.numpy().tobytes() for image in fewer[name].images} <= before
    with pytest.raises(ValueError, match="all pictures are the same"):
        split_pictures(as_pictures(torch.zeros(12, 20, 20)))


# --- Hugging Face's datasets -----------------------------------------------------------------------------------------


def png(image: Tensor) -> bytes:
    file = io.BytesIO()
    to_pil(to_unit(image)).save(file, "png")
    return file.getvalue()


def of_hub(images: Tensor, **columns: Any) -> Any:
    """A `datasets.Dataset` with pictures as PNG in the column "photo"."""
    datasets = pytest.importorskip("datasets")
    table = datasets.Dataset.from_dict({"id": list(range(len(images))), "photo": [{"bytes": png(i)} for i in images]})
    table = table.cast_column("photo", datasets.Image())
    for name, (values, names) in columns.items():
        table = table.add_column(name, values).cast_column(name, datasets.ClassLabel(names=names))
    return table


def test_a_dataset_of_hugging_face_has_its_columns_for_labels(images: Tensor) -> None:
    table = of_hub(images, kind=([0, 1, 2] * 4, ["a", "b", "c"]), side=([1, 0] * 6, ["left", "right"]))
    for given in (table, table.with_format("torch"), table.to_iterable_dataset()):
        pictures = as_pictures(given)
        assert torch.equal(pictures.images, images)
        assert pictures.labels.tolist() == [[index % 3, 1 - index % 2] for index in range(12)]
        assert pictures.attributes == {"kind": ["a", "b", "c"], "side": ["left", "right"]}
    with pytest.raises(
        ValueError, match="no column of pictures 'image' among id, photo, kind, side: choose one of photo"
    ):
        as_pictures(table, column="image")
    with pytest.raises(ValueError, match=r"among id: make one with cast_column\(name, datasets.Image\(\)\)"):
        as_pictures(table.select_columns("id"))


def test_a_broken_picture_of_a_dataset_is_named(images: Tensor) -> None:
    datasets = pytest.importorskip("datasets")
    for content, sentence in (
        (b"no picture", "picture 3 is not a picture in a known format"),
        (None, "picture 3 is missing"),
    ):
        rows: list[Any] = [{"bytes": png(image)} for image in images]
        rows[3] = content and {"bytes": content}
        table = datasets.Dataset.from_dict({"image": rows}).cast_column("image", datasets.Image())
        with pytest.raises(ValueError, match=sentence):
            as_pictures(table)


@pytest.fixture
def on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two folders that `datasets` reads: "saved" with both splits, and "parquet" with one file."""
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "SLEEP_TIME_ON_THREADS_SHUTDOWN", 0)  # for threads of parquet; 5 s otherwise
    pictures = load_examples("fashion-mnist")
    images, labels = pictures.images[::2], pictures.labels[::2, 0].tolist()
    names = pictures.attributes["class"]
    train = of_hub(images[:90], label=(labels[:90], names))
    test = of_hub(images[80:], label=([-1] * 40, names))  # 10 of them copies
    datasets.DatasetDict({"train": train, "test": test}).save_to_disk(tmp_path / "saved")
    (tmp_path / "parquet").mkdir()
    train.to_parquet(tmp_path / "parquet" / "train.parquet")
    (tmp_path / "files").mkdir()
    for index in range(90):
        (tmp_path / "files" / f"{index:02}.png").write_bytes(png(images[index]))
    return tmp_path


def test_splits_of_a_dataset_are_taken_as_they_are(on_disk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train, test = (load_dataset(f"hub:{on_disk / 'saved'}", "", side) for side in ("train", "test"))
    assert train.images.shape == (80, 1, 28, 28)  # without those that are test pictures
    assert test.images.shape == (40, 1, 28, 28)
    assert len(train.attributes["label"]) == 10
    assert test.attributes == {}
    assert "'label' is left out: some pictures have no value of it" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["saved:train", "saved:train:photo", "parquet", "parquet:train[:100%]"])
def test_a_dataset_without_test_pictures_is_split(on_disk: Path, name: str) -> None:
    train, test = (load_dataset(f"hub:{on_disk / name}", "", side, channels=1) for side in ("train", "test"))
    assert len(train.images) + len(test.images) == 90
    assert len(train.attributes["label"]) == len(test.attributes["label"]) == 10


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("hub:saved:valid", "has no split 'valid': choose one of train, test, as hub:…:SPLIT"),
        ("hub:saved:train:image", "no column of pictures 'image'"),
        ("hub:parquet:test", "can't be loaded (Unknown split"),
        ("hub:nowhere", "nowhere is neither owner/name of the Hub nor a folder"),
        ("hub:", "names no dataset of the Hub: write hub:owner/name[:split[:column]]"),
    ],
)
def test_a_dataset_that_cant_be_had_gets_one_sentence(
    on_disk: Path, monkeypatch: pytest.MonkeyPatch, name: str, sentence: str
) -> None:
    monkeypatch.chdir(on_disk)
    with pytest.raises(ValueError, match=re.escape(sentence)) as caught:
        load_dataset(name, "", "train")
    assert "\n" not in str(caught.value)


def test_the_program_trains_on_a_dataset_of_the_hub_and_evaluates_it(on_disk: Path) -> None:
    name, output = f"hub:{on_disk / 'saved'}", on_disk / "out"
    small = ["--width", "8", "--depth", "1", "--latent-dim", "8", "--epochs", "20"]
    command = [sys.executable, "train.py", "--dataset", name, "--streaming", *small, "--output", str(output)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert VAE.from_pretrained(output).directions is not None
    assert str(on_disk) not in (output / "metrics.json").read_text() + (output / "README.md").read_text()
    training = Figures.read(output).training
    assert training
    assert training.streaming
    command = [sys.executable, "-m", "vae.evaluate", str(output), "--dataset", name, "--samples", "2"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert "has other attributes than" in done.stdout


@pytest.mark.parametrize("name", ["saved", "parquet", "saved:test", "files"])
def test_a_streamed_dataset_is_read_once_in_each_pass_by_all_processes_together(on_disk: Path, name: str) -> None:
    sides = open_stream(f"hub:{on_disk / name}", channels=1)
    stream, (train, test) = sides.stream, (sides["train"].images, sides["test"].images)
    assert len(stream) + sides.num_held_out == len(train)  # so few pictures are all looked at
    assert len(test) == 40 if name == "saved" else len(test) + len(train) == (40 if name == "saved:test" else 90)
    told = sorted(image.numpy().tobytes() for image in train[: len(stream)])

    def read(processes: int, seed: int) -> list[list[bytes]]:
        """The pictures of the first pass of each process."""
        passes = []
        for rank in range(processes):
            batches = stream.batches(processes, seed=seed, share=Share(rank, processes))
            number = sum(1 for _ in stream.read(Share(rank, processes), seed, 0))
            passes.append([next(batches)[0].numpy().tobytes() for _ in range(number)])
        return passes

    (alone,) = read(1, seed=0)
    assert sorted(alone) == told
    assert sorted(itertools.chain(*read(2, seed=0))) == told
    assert alone != read(1, seed=1)[0]
    first, second, again = (list(stream.read(Share(), 0, epoch)) for epoch in (0, 1, 1))
    assert first != second == again
    assert Counter(first) == Counter(second)
    later = next(stream.batches(4, seed=0, start=3))
    assert [image.numpy().tobytes() for image in later] == alone[12:16]


def test_a_streamed_model_is_measured_on_pictures_that_it_was_not_trained_on(
    on_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"hub:{on_disk / 'parquet'}"
    training = Figures.read(Path("weights/mnist")).training
    assert training
    figures = Figures(training=dataclasses.replace(training, streaming=True))
    model = VAE(VAEConfig(latent_dim=2, width=4, depth=1))
    load = evaluation.loader(name, evaluation.Options("mnist"), model, figures)
    sides = open_stream(name, image_size=28, channels=1)
    trained_on = {fit(file, (1, 28, 28), "auto").numpy().tobytes() for file in sides.stream.read(Share(), 0, 0)}
    test = {image.numpy().tobytes() for image in load("test").images}
    held_out = {image.numpy().tobytes() for image in load("train").images[-sides.num_held_out :]}
    assert test
    assert held_out
    assert not trained_on & (test | held_out)
    binarized = dataclasses.replace(training, streaming=True, binarize="dynamic")
    load = evaluation.loader(name, evaluation.Options("mnist"), model, Figures(training=binarized))
    assert set(load("test").images.unique().tolist()) == {0, 255}
    load = evaluation.loader("mnist", evaluation.Options("mnist"), model, figures)  # another dataset, by --dataset
    monkeypatch.setattr(evaluation, "load_dataset", lambda name, *_, **__: load_examples(name))
    assert len(load("test").images) == len(load_examples("mnist").images)


def test_a_picture_of_a_stream_that_cant_be_read_does_not_end_it(
    on_disk: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stream = open_stream(f"hub:{on_disk / 'parquet'}", channels=1).stream
    read = stream.read

    def with_broken_ones(*arguments: Any) -> Iterator[Any]:
        files = list(read(*arguments))
        return iter([b"broken", files[1], b"broken", files[3], *[b"and another"] * 4])

    monkeypatch.setattr(stream, "read", with_broken_ones)
    batches = stream.batches(4, seed=0)
    batch = next(batches)
    assert torch.equal(batch[0], batch[1])
    assert torch.equal(batch[2], batch[1])
    assert not torch.equal(batch[3], batch[1])
    assert capsys.readouterr().err.count("a picture of the stream is left out: it is not a picture") == 1
    with pytest.raises(ValueError, match="no picture of a batch can be read: one is not a picture"):
        next(batches)


def test_no_more_labels_are_taken_than_a_model_has_sliders_for(capsys: pytest.CaptureFixture[str]) -> None:
    labels = torch.tensor([[0, 1] * 35, [1, 0] * 35])
    taken, attributes = usable_labels(labels, {f"label {index}": ("no", "yes") for index in range(70)})
    assert taken.shape == (2, 64)
    assert len(attributes) == 64
    assert capsys.readouterr().err.count("more than 64 labels are too many") == 6


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"dataset": "mnist"}, "--streaming is for --dataset hub:owner/name, got mnist"),
        ({"dataset": "hub:a/b", "validation": 3}, "--validation is not for --streaming"),
    ],
)
def test_what_cant_be_streamed_gets_one_sentence(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        DataOptions(streaming=True, **options)


@pytest.mark.parametrize(
    ("name", "place", "split", "column"),
    [
        (r"hub:C:\data\mine", r"C:\data\mine", None, None),
        (r"hub:c:/data/mine:train[:10%]:image", "c:/data/mine", "train[:10%]", "image"),
        ("hub:owner/mine:train:a:b", "owner/mine", "train", "a:b"),
        ("hub:mine:C:/image", "mine", "C", "/image"),
    ],
)
def test_a_place_may_begin_with_a_drive(name: str, place: str, split: str | None, column: str | None) -> None:
    match = HUB_NAME.fullmatch(name)
    assert match
    assert (match["place"], match["split"], match["column"]) == (place, split, column)
    assert short_name(name) == "mine"


def test_a_dataset_of_the_hub_is_named_and_one_on_the_disk_is_not() -> None:
    assert last_part("hub:owner/name:train:image") == "hub:owner/name:train:image"
    assert last_part("hub:/home/me/name") == "name"
    assert last_part("hub:tests/benchmarks:train") == "benchmarks:train"
