"""Users' folders of pictures: every file is used or named, and no picture changes sides."""

from __future__ import annotations

import errno
import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from folders import BOTH, cache, everything, folder, load, numbers_of, picture, read, write
from PIL import Image

import vae.data.cache
from vae.data.folder import MAX_NAME, NO_CLASS, choose_test, describe_left_out, find_files, read_layout

pytestmark = pytest.mark.usefixtures("cache")
__all__ = ["cache", "folder", "read"]  # fixtures


# --- which files -----------------------------------------------------------------------------------------------------


def test_contents_say_what_a_picture_is_and_the_rest_is_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(folder / "deeper", range(10))
    for number, (name, kind) in enumerate(
        [("no suffix", "PNG"), ("wrong.txt", "JPEG"), ("a.webp", "WEBP"), ("a.gif", "GIF"), ("a.ppm", "PPM")], 10
    ):
        picture(number).convert("P" if kind == "GIF" else "RGB").save(folder / name, format=kind)
    (folder / "half.png").write_bytes((folder / "deeper" / "000.png").read_bytes()[:60])
    (folder / "deeper" / "words.jpg").write_text("not a picture")
    (folder / "deeper" / "notes").write_text("not even called one")
    (folder / "empty.png").touch()
    (folder / ".hidden.png").write_text("hidden")
    for _ in range(2):  # the second time from the cache
        assert everything(folder) == list(range(15))
        said = capsys.readouterr().err
        assert "5 of 20 files are left out:\n" in said
        assert "  2 in deeper: not a picture in a known format: use PNG, JPEG or WebP: notes, words.jpg\n" in said
        assert "  1 in .: could not be read, the file seems to be broken (" in said
        assert "): half.png\n" in said
        assert "  1 in .: empty: empty.png\n" in said
        assert "  1 in .: hidden: .hidden.png\n" in said
        assert said.count("left out") == 1  # for test not again what was just said for train
    assert len(load(folder, channels=1).images[0]) == 1


def test_photographs_of_telephones_are_read(folder: Path) -> None:
    pillow_heif = pytest.importorskip("pillow_heif")
    write(folder, range(10))
    pillow_heif.from_pillow(picture(10).resize((64, 64))).save(folder / "010.HEIC")
    assert everything(folder) == list(range(11))


def test_photographs_of_telephones_are_named_where_they_cannot_be_read(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], read: list[str]
) -> None:
    write(folder, range(10))
    (folder / "photo.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(100))
    monkeypatch.setattr(vae.data.cache, "formats", lambda: ["PNG"])
    for _ in range(2):
        load(folder)
        said = capsys.readouterr().err
        assert "1 in .: HEIC, which needs a package that isn't installed: pip install pillow-heif: photo.heic" in said
    assert read.count("photo.heic") == 2  # as the package may be there now
    assert read.count("000.png") == 1


def test_values_of_more_than_8_bits_are_scaled_by_the_range_in_use(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ramp = np.linspace(0, 1, 16)[None].repeat(16, 0)
    write(folder / "train", range(10))
    Image.fromarray((4095 * ramp).astype(np.uint16)).save(folder / "train" / "12 bits.png")
    (folder / "test").mkdir()
    Image.fromarray((6 * ramp - 3).astype(np.float32)).save(folder / "test" / "float.tiff")
    for _ in range(2):
        train = load(folder)
        assert train.images.flatten(1).amin(1).min() == 0
        assert train.images.flatten(1).amax(1).max() == 255
        said = capsys.readouterr().err
        assert "2 pictures of more than 8 bits: each is scaled by the range it uses, mostly: its values were" in said
    (values,) = load(folder, "test").images
    assert values.min() == 0
    assert values.max() == 255
    capsys.readouterr()
    assert load(folder, pixel_range="full").images.flatten(1).amax(1).min() < 20
    assert "scaled" not in capsys.readouterr().err


def test_links_are_followed_once_and_loops_are_not(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    outside = folder.parent / "outside"
    write(outside / "dogs", range(5, 10))
    write(folder / "cats", range(5))
    write(folder.parent / "beside", [100])  # in the folder around both, to which a link must not lead
    (folder / ".store").mkdir()
    picture(10).save(folder / ".store" / "a", format="PNG")
    links = {
        "dogs": outside / "dogs",
        "dogs again": outside / "dogs",
        "cats again": folder / "cats",
        "cats/000 again.png": folder / "cats" / "000.png",
        "cats/in": folder,
        "cats/out": folder.parent,
        "cats/a": folder / ".store" / "a",
        "cats/b": folder / ".store" / "a",
        "nothing": folder / "nowhere",
        "self": folder / "self",
    }
    for name, target in links.items():
        (folder / name).symlink_to(target)
    (outside / "dogs" / "back").symlink_to(folder)
    assert everything(folder) == list(range(11))
    said = capsys.readouterr().err
    assert "2 classes from the names of folders (cats, dogs)" in said
    assert "  2 in .: a link to what is here already: cats again, dogs again\n" in said
    assert "  2 in cats: a link to what is here already: 000 again.png, b\n" in said
    assert "  2 in cats: a link to a folder that holds it: in, out\n" in said
    assert "  1 in dogs: a link to a folder that holds it: back\n" in said
    assert "  2 in .: a link to what isn't there: nothing, self\n" in said


def test_any_name_can_be_read_and_shown(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(folder / "plain", range(9))
    odd = Path(os.fsdecode(bytes(folder) + b"/line\nbreak \xff"))
    odd.mkdir()
    picture(9).save(odd / "009.png")
    Path(os.fsdecode(bytes(odd) + b"/caf\xe9\x1b[31m.txt")).write_text("no picture")
    for _ in range(2):
        assert everything(folder) == list(range(10))
        assert "  1 in line�break �: not a picture in a known format: use PNG, JPEG or WebP: caf��[31m.txt\n" in (
            capsys.readouterr().err
        )
    assert load(folder).attributes == {"folder": ["line�break �", "plain"]}


def test_what_cannot_be_opened_is_named_and_tried_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write(folder, range(10))
    write(folder / "closed", [10])
    write(folder / "secret", [11])
    (folder / "gone.png").write_bytes((folder / "000.png").read_bytes())
    (folder / "growing.png").write_bytes((folder / "000.png").read_bytes())
    scandir, real_open, fstat = os.scandir, open, os.fstat
    grown: list[int] = []

    def scan(path: str) -> Any:
        if str(path).endswith("closed"):
            raise PermissionError(errno.EACCES, "Permission denied")
        return scandir(path)

    def open_or_refuse(path: Any, *arguments: Any, **options: Any) -> Any:
        if str(path).endswith("011.png"):
            raise PermissionError(errno.EACCES, "Permission denied")
        if str(path).endswith("gone.png"):
            (folder / "gone.png").unlink()
        file = real_open(path, *arguments, **options)
        if str(path).endswith("growing.png"):
            grown.append(file.fileno())
        return file

    def grow(number: int) -> os.stat_result:
        status = fstat(number)
        if number in grown:
            grown.clear()
            with real_open(folder / "growing.png", "ab") as file:
                file.write(b"more")
        return status

    with monkeypatch.context() as patch:
        patch.setattr("os.scandir", scan)
        patch.setattr("os.fstat", grow)
        patch.setattr("builtins.open", open_or_refuse)
        assert everything(folder) == list(range(10))
    said = capsys.readouterr().err
    assert "1 in .: a folder that can't be opened (Permission denied): closed" in said
    assert "1 in secret: can't be read (Permission denied): 011.png" in said
    assert "1 in .: can't be read (No such file or directory): gone.png" in said
    assert "1 in .: changed while it was read: growing.png" in said
    assert everything(folder) == [0, *range(12)]


def test_a_folder_without_enough_pictures_is_refused_in_a_sentence(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ValueError, match=r"there is no folder .*nowhere: name one that holds pictures with --data-dir"):
        load(folder / "nowhere")
    with pytest.raises(ValueError, match="holds 0 readable pictures: at least 10 are needed"):
        load(folder)
    for index in range(12):
        picture(0).save(folder / f"{index}.png")
    with pytest.raises(ValueError, match=r"all pictures in .* are the same: at least two different ones are needed"):
        load(folder)
    for index in range(3, 12):
        (folder / f"{index}.png").write_text("broken")
    with pytest.raises(ValueError, match="holds 3 readable pictures: at least 10 are needed"):
        load(folder)
    assert "9 of 12 files are left out:\n  9 in .: not a picture in a known format" in capsys.readouterr().err

    def refuse(path: str) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("os.scandir", refuse)
    with pytest.raises(ValueError, match=r"my pictures can't be opened \(Permission denied\)"):
        load(folder)


def test_many_files_left_out_are_summed_up() -> None:
    left_out = [(f"folder {index}/{name}", "is hidden") for index in range(100) for name in ".abcdefg"]
    left_out += [("one/a", "can't be read (for this reason)"), ("one/b", "can't be read (for that reason)")]
    lines = describe_left_out(left_out, 1000).splitlines()
    assert lines[0] == "802 of 1,000 files are left out:"
    assert lines[1] == "  8 in folder 0: hidden: ., a, b, c, d and 3 more"
    assert len(lines) < 30
    assert sum(int(line.split()[0].replace(",", "")) for line in lines[1:]) == 802
    assert describe_left_out([], 1000) == ""


# --- what the folders say --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("paths", "names", "classes"),
    [
        ("a b c", [], None),
        ("cats/a dogs/b cats/deeper/c", ["cats", "dogs"], [0, 1, 0]),
        ("stray cats/a dogs/b", ["cats", "dogs", NO_CLASS], [2, 0, 1]),
        ("images/cats/a images/dogs/b", ["cats", "dogs"], [0, 1]),
        ("stray some/images/cats/a some/images/dogs/b some/c", ["cats", "dogs", NO_CLASS], [2, 0, 1, 2]),
        ("all/a all/b", [], None),
        ("a all/b all/c", [], None),
        ("train/a train/b", [], None),
        ("bus/a train/b car/c", ["bus", "car", "train"], [0, 2, 1]),
    ],
)
def test_classes_are_the_folders_where_paths_part(paths: str, names: list[str], classes: list[int] | None) -> None:
    layout = read_layout(paths.split())
    assert layout.sides is None
    assert layout.names == names
    assert layout.classes == classes


@pytest.mark.parametrize(
    ("paths", "sides", "names"),
    [
        ("train/cats/a train/dogs/b val/cats/c val/dogs/d", "ttvv", ["cats", "dogs"]),
        ("Training/cats/a validation/dogs/b TEST/cats/c", "tvv", ["cats", "dogs"]),
        ("train2017/a val2017/b test2017/c", "tvv", []),
        ("data/images/train/cats/a data/images/valid/dogs/b", "tv", ["cats", "dogs"]),
        ("train/images/cats/a train/images/dogs/b test/images/cats/c", "ttv", ["cats", "dogs"]),
        ("cats/train/a cats/test/b dogs/train/c dogs/test/d", "tvtv", ["cats", "dogs"]),
        ("train/a val/b", "tv", []),
        ("stray train/cats/a val/dogs/b other/dogs/c", "-tv-", ["cats", "dogs"]),
        ("train/cats/a train/dogs/b train/c test/d", "tttv", ["cats", "dogs", NO_CLASS]),
    ],
)
def test_folders_called_train_and_val_are_splits(paths: str, sides: str, names: list[str]) -> None:
    layout = read_layout(paths.split())
    assert layout.sides == [{"t": "train", "v": "test", "-": None}[side] for side in sides]
    assert layout.names == names
    for path, side, label in zip(paths.split(), sides, layout.classes or [], strict=bool(names)):
        if side != "-":
            assert names[label] in (*path.split("/"), NO_CLASS)


def test_names_of_classes_can_be_shown_and_are_distinct() -> None:
    names = ["x" * 200 + "1", "x" * 200 + "2", "a\u200d", "a\n", "a�", NO_CLASS]
    shown = read_layout(["stray", *(f"{name}/picture" for name in names)]).names
    assert len(set(shown)) == 7
    assert all(1 <= len(name) <= MAX_NAME and name.isprintable() for name in shown)


def test_too_many_folders_are_no_classes_and_that_is_said() -> None:
    paths = [f"{index}/a" for index in range(1001)]
    assert len(read_layout(paths[:1000]).names) == 1000
    layout = read_layout(paths)
    assert layout.classes is None
    assert layout.said == "no classes, because 1,001 folders are more than the 1,000 that are taken for classes"
    assert read_layout([*paths[:1000], "stray"]).classes is None


def test_validation_pictures_are_never_trained_on_nor_are_copies_of_them(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(folder / "train" / "cats", range(20))
    write(folder / "train" / "dogs", range(20, 40))
    write(folder / "val" / "cats", [50, 5])
    write(folder / "val" / "dogs", [51])
    write(folder / "drafts", [60])
    train, test = load(folder), load(folder, "test")
    assert sorted(numbers_of(train)) == [number for number in range(40) if number != 5]
    assert sorted(numbers_of(test)) == [5, 5, 50, 51]
    assert train.attributes == test.attributes == {"folder": ["cats", "dogs"]}
    for pictures in (train, test):
        expected = [int(20 <= number < 40 or number == 51) for number in numbers_of(pictures)]
        assert pictures.labels.flatten().tolist() == expected
    said = capsys.readouterr().err
    assert (
        "39 pictures to train on and 4 to test, as the folders say but for 1 copy of test pictures among the others; "
        "2 classes from the names of folders (cats, dogs)\n" in said
    )
    assert "  1 in drafts: in none of the folders for training and testing: 060.png\n" in said


def test_a_stray_picture_keeps_all_labels(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(folder / "cats", range(10))
    write(folder / "dogs", range(10, 20))
    write(folder, [20])
    for split in BOTH:
        pictures = load(folder, split)
        assert pictures.attributes == {"folder": ["cats", "dogs", NO_CLASS]}
        assert pictures.labels.flatten().tolist() == [number // 10 for number in numbers_of(pictures)]
    assert (
        f"2 classes from the names of folders (cats, dogs), and 1 picture in none of these folders: the class '{NO_CLASS}'"
        in capsys.readouterr().err
    )


# --- which are test --------------------------------------------------------------------------------------------------


def test_a_tenth_is_test_and_no_picture_ever_changes_sides() -> None:
    random = np.random.default_rng(0)
    hashes = [random.bytes(32).hex() for _ in range(3000)]
    sides: dict[str, str] = {}
    test: set[str] = set()
    for number in (*range(2, 60), 1000, 2000, 3000):
        now = choose_test(hashes[:number], sides)
        assert 0 < len(now) < number
        assert now & set(hashes[: number - 1]) >= test
        assert now - test <= set(hashes[number - 1 :]) or number >= 1000
        test = now
    assert len(test) == pytest.approx(300, abs=50)
    assert choose_test(hashes, {}) >= {sha for sha in test if sha not in sides}


def test_pictures_stay_on_their_side_when_others_come_and_go(folder: Path) -> None:
    write(folder, range(10))
    (folder / "copies").mkdir()
    before = {split: set(numbers_of(load(folder, split))) for split in BOTH}
    assert before["test"]
    for number in range(10, 40, 3):
        write(folder, range(number, number + 3))
        picture(number).save(folder / "copies" / f"{number}.png")
        after = {split: set(numbers_of(load(folder, split))) for split in BOTH}
        assert not after["train"] & after["test"]
        for split in BOTH:
            assert before[split] <= after[split]
        before = after
    for number in range(10):
        (folder / f"{number:03}.png").rename(folder / "copies" / f"renamed {number}.png")
    assert {split: set(numbers_of(load(folder, split))) for split in BOTH} == before


# --- all of it -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("splits", [("images/train", "images/val"), ("images", "images")])
def test_every_one_of_300_mixed_files_is_used_or_named(
    folder: Path, capsys: pytest.CaptureFixture[str], splits: tuple[str, str]
) -> None:
    heif = pytest.importorskip("pillow_heif")
    random = np.random.default_rng(0)

    def as_bytes(index: int) -> tuple[str, bytes]:
        file = io.BytesIO()
        colours = Image.fromarray(random.integers(0, 256, (40, 30, 3), dtype=np.uint8))
        numbers = random.normal(size=(40, 30))
        if index % 8 == 0:
            heif.from_pillow(colours.resize((64, 64))).save(file)
        elif index % 8 == 1:
            Image.fromarray((2047 + 600 * numbers).clip(0, 4095).astype(np.uint16)).save(file, "PNG")
        elif index % 8 == 2:
            Image.fromarray(numbers.astype(np.float32)).save(file, "TIFF")
        elif index % 8 == 3:
            return "notes.txt", b"no picture %d" % index
        else:
            mode, kind = [("CMYK", "JPEG"), ("RGBA", "PNG"), ("P", "GIF"), ("RGB", "WEBP")][index % 4]
            colours.convert(mode).save(file, kind)
        return ("HEIC", "png", "tif", "", "jpg", "", "jpg", "webp")[index % 8], file.getvalue()

    for index in range(296):
        split, kind = splits[index % 5 == 0], f"class {index % 3}"
        suffix, content = as_bytes(index)
        place = folder / split / kind
        place.mkdir(parents=True, exist_ok=True)
        if index % 7 == 0:
            store = folder.parent / "store" / str(index)
            store.parent.mkdir(exist_ok=True)
            store.write_bytes(content)
            (place / f"{index}.{suffix}").symlink_to(store)
        else:
            (place / f"{index}.{suffix}").write_bytes(content)
    (folder / splits[1] / "class 3").symlink_to(folder.parent / "linked class", target_is_directory=True)
    write(folder.parent / "linked class", range(4))
    for _ in range(2):
        train, test = load(folder), load(folder, "test")
        said = capsys.readouterr().err
        left_out = [line for line in said.splitlines() if line.startswith("  ")]
        assert len(train.images) + len(test.images) + sum(int(line.split()[0]) for line in left_out) == 300
        assert sum(int(line.split()[0]) for line in left_out) == 37
        assert all("notes.txt" in line for line in left_out)
        assert train.attributes == {"folder": ["class 0", "class 1", "class 2", "class 3"]}
        flat = (train.images.flatten(1).float().std(1) <= 10).sum()
        assert flat <= 4  # the linked class is of one colour each; no other picture came out dark or flat


def test_finding_is_the_same_at_every_start(folder: Path) -> None:
    write(folder / "b", range(3))
    write(folder / "a", range(3))
    (folder / "c").symlink_to(folder / "a")
    found = find_files(folder)
    assert found == find_files(folder)
    assert [file.path for file in found[0]] == [f"{name}/{number:03}.png" for name in "ab" for number in range(3)]
