"""A user's folder of pictures: which files it holds, what its folders say of them, and which of them are test."""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict, deque
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from vae.data.cache import File

TEST_PART = 0.1
MAX_VALUES, MAX_NAME = 1000, 100  # folders that are taken for classes, and letters in the name of one
NO_CLASS = "in no folder"  # the class of pictures that lie beside the folders of the classes
SPLIT_NAME = re.compile(r"(?P<train>train|training)|(?P<test>test|testing|val|valid|validation)", re.IGNORECASE)
YEAR = re.compile(r"[ _-]?\d+$")  # as in COCO's train2017
MAX_GROUPS, MAX_NAMES = 20, 5  # of files left out, that are told one by one

CAN_CHANGE = 2**63  # later than any time
Side = Literal["train", "test"]
LeftOut = tuple[str, str]  # the path of a file, and why it is left out: "is hidden"


# --- which files -----------------------------------------------------------------------------------------------------


def find_files(folder: Path, changed: dict[str, int] | None = None) -> tuple[list[File], list[LeftOut]]:
    """Find all files in a folder and the folders in it, each real file once, and what can't be taken.

    Links are followed, also out of the folder, after all that is really there; those to what was found before are left
    out, and so are those to a folder that holds them.
    changed: takes the real path of each folder that is looked into, and when it was last changed, in nanoseconds, or
        CAN_CHANGE if it holds links: that doesn't tell when what they lead to is changed.
    Raises ValueError if there is no folder, or it can't be opened.
    """
    if not folder.is_dir():
        raise ValueError(f"there is no folder {printable(folder)}: name one that holds pictures with --data-dir")
    root = os.path.realpath(folder)
    files: list[File] = []
    left_out: list[LeftOut] = []
    folders = [("", root)]  # to look into: their paths within the folder, and where they really are
    links: deque[tuple[str, str, str]] = deque()  # to follow: their paths, the folders they are in, where they lead
    seen: set[str] = set()  # real paths of folders, and of files that links lead to
    while folders or links:
        if not folders:
            path, place, target = links.popleft()
            reason = _refuse_link(place, target, root, seen)
            try:
                if reason:
                    left_out.append((path, reason))
                elif os.path.isdir(target):
                    folders.append((path, target))
                else:
                    files.append(File(path, *_state(os.stat(target))))
                    seen.add(target)
            except OSError as error:  # gone since
                left_out.append((path, f"can't be looked at ({error.strerror})"))
            continue
        path, place = folders.pop()
        if place in seen:
            continue
        seen.add(place)
        try:
            if changed is not None:
                changed[place] = os.stat(place).st_mtime_ns
            with os.scandir(place) as scan:
                entries = sorted(scan, key=lambda entry: entry.name)
        except OSError as error:
            if not path:
                raise ValueError(f"{printable(folder)} can't be opened ({error.strerror})") from error
            left_out.append((path, f"is a folder that can't be opened ({error.strerror})"))
            continue
        for entry in entries:
            inner = f"{path}/{entry.name}" if path else entry.name
            try:
                if entry.name.startswith("."):
                    left_out.append((inner, "is hidden"))
                elif entry.is_symlink():
                    if changed is not None:
                        changed[place] = CAN_CHANGE
                    links.append((inner, place, os.path.realpath(entry.path)))
                elif entry.is_dir():
                    folders.append((inner, os.path.realpath(entry.path)))
                elif entry.is_file():
                    files.append(File(inner, *_state(entry.stat())))
                else:
                    left_out.append((inner, "is neither a file nor a folder"))
            except OSError as error:  # gone since
                left_out.append((inner, f"can't be looked at ({error.strerror})"))
    return sorted(files), left_out


def look_at(folder: Path, names: Iterable[str]) -> tuple[list[File], list[LeftOut]]:
    """Look at files known by name, as `find_files` does at those it finds."""
    files: list[File] = []
    left_out: list[LeftOut] = []
    for name in names:
        try:
            files.append(File(name, *_state(os.stat(folder / name))))
        except OSError as error:
            left_out.append((name, f"can't be looked at ({error.strerror})"))
    return files, left_out


def _state(status: os.stat_result) -> tuple[int, int]:
    return status.st_size, status.st_mtime_ns


def _refuse_link(place: str, target: str, root: str, seen: Collection[str]) -> str | None:
    """Return why the link in the folder `place` to `target` isn't followed, if so."""
    if any(f"{inner}{os.sep}".startswith(f"{target.rstrip(os.sep)}{os.sep}") for inner in (place, root)):
        return "is a link to a folder that holds it"
    parent, name = os.path.split(target)
    if target in seen or (parent in seen and not name.startswith(".") and os.path.isfile(target)):
        return "is a link to what is here already"
    if not os.path.exists(target):
        return "is a link to what isn't there"
    if not os.path.isfile(target) and not os.path.isdir(target):
        return "is a link to what is neither a file nor a folder"
    return None


# --- what the folders say --------------------------------------------------------------------------------------------


class Layout(NamedTuple):
    """What the folders say of each of N pictures.

    sides: train or test, where the folders say so, and None for what lies in neither; or None if they don't say it.
    classes: the index of the class of each, or None if there are no classes.
    names: of the classes, printable, at most MAX_NAME letters.
    said: what is understood of classes, in words.
    """

    sides: list[Side | None] | None
    classes: list[int] | None
    names: list[str]
    said: str


def read_layout(paths: Sequence[str]) -> Layout:
    """Find splits and classes in the paths of pictures within their folder.

    Splits are folders at one depth, some called like train and some like test or val; all other pictures lie in neither.
    Classes are the folders where the paths first part; a single folder around all, with further ones in it, is passed.
    """
    folders = [tuple(path.split("/")[:-1]) for path in paths]
    sides: list[Side | None] | None = None
    depth = _depth_of_splits(folders)
    if depth is not None:
        sides = [_side(parts[depth]) if len(parts) > depth else None for parts in folders]
        folders = [parts[:depth] + parts[depth + 1 :] for parts in folders]
    inside = [parts for parts, side in zip(folders, sides or folders, strict=True) if sides is None or side]
    depth = 0
    while len({parts[depth] for parts in inside if len(parts) > depth}) == 1 and max(map(len, inside)) > depth + 1:
        depth += 1
    found = sorted({parts[depth] for parts in inside if len(parts) > depth})
    strays = sum(len(parts) <= depth for parts in inside)
    values = len(found) + (strays > 0)
    if len(found) < 2:
        return Layout(sides, None, [], "no classes")
    if values > MAX_VALUES:
        said = f"no classes, because {values:,} folders are more than the {MAX_VALUES:,} that are taken for classes"
        return Layout(sides, None, [], said)
    index = {name: number for number, name in enumerate(found)}
    classes = [index.get(parts[depth], -1) if len(parts) > depth else len(found) for parts in folders]
    names = distinct_names([*found, NO_CLASS][:values])
    listed = ", ".join(names[: min(len(found), MAX_GROUPS)]) + (", …" if len(found) > MAX_GROUPS else "")
    said = f"{len(found):,} classes from the names of folders ({listed})"
    if strays:
        said += f", and {count(strays, 'picture')} in none of these folders: the class {names[-1]!r}"
    return Layout(sides, classes, names, said)


def _side(name: str) -> Side | None:
    match = SPLIT_NAME.fullmatch(YEAR.sub("", name))
    return None if match is None else "train" if match["train"] else "test"


def _depth_of_splits(folders: Collection[tuple[str, ...]]) -> int | None:
    """Return the first depth at which some folders are called like train, and some like test."""
    for depth in range(max(map(len, folders), default=0)):
        if {"train", "test"} <= {_side(name) for name in {parts[depth] for parts in folders if len(parts) > depth}}:
            return depth
    return None


def distinct_names(names: Iterable[str]) -> list[str]:
    """Make names printable, at most MAX_NAME letters long, and no two the same."""
    shown: dict[str, None] = {}
    for name in names:
        base, suffix, copy = printable(name), "", 1
        while (text := base[: MAX_NAME - len(suffix)] + suffix) in shown:
            copy += 1
            suffix = f" ({copy})"
        shown[text] = None
    return list(shown)


# --- which are test --------------------------------------------------------------------------------------------------


def choose_test(hashes: Collection[str], sides: dict[str, str]) -> set[str]:
    """Choose about a tenth of pictures for testing by the SHA-256 of their files, in hexadecimal; return those.

    A picture is test if its hash, as a fraction of the largest, is below TEST_PART, whatever other pictures there are: none
    changes sides when others come or go. Where a side would be empty, as can be with few pictures, the one nearest to it
    changes sides, and is noted in `sides`, where it stays. Of less than two different pictures, all are test.
    """
    distinct = sorted(set(hashes))
    if len(distinct) < 2:
        return set(distinct)
    test = {
        sha for sha in distinct if sides.get(sha, "test" if int(sha[:8], 16) < TEST_PART * 2**32 else "train") == "test"
    }
    if not test:
        sides[distinct[0]] = "test"
        test = {distinct[0]}
    elif len(test) == len(distinct):
        sides[distinct[-1]] = "train"
        test.remove(distinct[-1])
    return test


# --- in words --------------------------------------------------------------------------------------------------------


def printable(name: str | Path) -> str:
    """Make a file's name fit to be shown: it may hold line breaks, and bytes that are no text."""
    return "".join(letter if letter.isprintable() else "�" for letter in str(name))


def describe_left_out(left_out: Iterable[LeftOut], total: int) -> str:
    """Say which files are left out, in lines grouped by folder and reason; nothing if there are none."""
    groups: defaultdict[tuple[str, str], list[LeftOut]] = defaultdict(list)
    for path, reason in sorted(left_out):
        groups[path.rpartition("/")[0], reason.partition(" (")[0]].append((path, reason))
    if not groups:
        return ""
    lines = [f"{sum(map(len, groups.values())):,} of {total:,} files are left out:"]
    largest = sorted(groups.items(), key=lambda group: -len(group[1]))
    for (folder, reason), members in largest[:MAX_GROUPS]:
        if len({reason for _, reason in members}) == 1:
            reason = members[0][1]
        names = ", ".join(path.rpartition("/")[2] for path, _ in members[:MAX_NAMES])
        more = f" and {len(members) - MAX_NAMES:,} more" if len(members) > MAX_NAMES else ""
        lines.append(printable(f"  {len(members):,} in {folder or '.'}: {reason.removeprefix('is ')}: {names}{more}"))
    rest: Counter[str] = Counter()
    for (_, reason), members in largest[MAX_GROUPS:]:
        rest[reason] += len(members)
    lines += [f"  {number:,} in further folders: {reason.removeprefix('is ')}" for reason, number in rest.most_common()]
    return "\n".join(lines)


def count(number: int, noun: str, plural: str = "") -> str:
    """Say how many: "1 picture", "2,000 pictures"."""
    return f"{number:,} {noun if number == 1 else plural or f'{noun}s'}"
