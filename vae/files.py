"""The files of a model's folder: their names, whole-or-nothing writes, and the one checked reader for strangers' files.

Every limit on a file that somebody else wrote stands here. A model that is built in Python may be as large as its memory.
"""

from __future__ import annotations

import hashlib
import html
import io
import json
import math
import os
import re
import sys
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from vae.config import VAEConfig

T = TypeVar("T")

CONFIG, WEIGHTS, METRICS, CARD = "config.json", "model.safetensors", "metrics.json", "README.md"
PRIOR, LATENTS, MAP = "prior.safetensors", "latents.safetensors", "map.safetensors"
SAMPLES, CURVES, GENERATED = "samples.png", "curves.png", "generated.png"
CURVES_TABLE = "curves.csv"
LEARN = "learn"  # folder beside the bundled models: the tiny ones that only the page's tutorial shows

MAX_PARAMETERS = 100_000_000
MAX_FIELDS = {"image_size": 256, "latent_dim": 4096, "width": 512, "depth": 16}  # of a stranger's config
MAX_ATTRIBUTION = 1000  # characters
MAX_PRIOR_NUMBERS = 12_000_000
MAX_HEADER_BYTES = 1_000_000  # of a safetensors file
MAX_BYTES = {
    CONFIG: 100_000,
    METRICS: 1_000_000,
    WEIGHTS: 4 * MAX_PARAMETERS + MAX_HEADER_BYTES,
    PRIOR: 4 * MAX_PRIOR_NUMBERS + MAX_HEADER_BYTES,
    LATENTS: 50_000_000,
    MAP: 50_000_000,
}
MAX_MAGNITUDE = 1e6  # of any number in a tensor: trained ones stay far below, and products of larger ones overflow
AGAIN = "fetch it again (force_download=True) or train it again"  # what to do with a damaged file
# As safetensors calls them.
DTYPES = {torch.float32: "F32", torch.int64: "I64", torch.int8: "I8", torch.uint8: "U8"}
HALF = "F16"  # takes half the room


# --- reading ---------------------------------------------------------------------------------------------------------


def read_bytes(path: Path, kind: str) -> bytes:
    """Read a file of the kind called `kind` in MAX_BYTES. Raises ValueError if it is missing, unreadable or too large."""
    most = MAX_BYTES[kind]
    try:
        if not path.is_file():
            raise FileNotFoundError
        with path.open("rb") as file:
            content = file.read(most + 1)
    except FileNotFoundError:
        raise ValueError(f"{path.parent} holds no {path.name}") from None
    except OSError as error:
        raise ValueError(f"{path} can't be read ({error.strerror or error})") from error
    if len(content) > most:
        raise ValueError(f"{path} has more than the {most:,} bytes allowed")
    return content


def read_json(path: Path) -> Any:
    """Read a JSON file of a model's folder. Raises ValueError if it is missing, too large or no JSON."""
    content = read_bytes(path, path.name)
    try:
        return json.loads(content.decode("utf-8"))
    except (ValueError, RecursionError) as error:  # not only JSONDecodeError: a number may have too many digits
        raise ValueError(f"{path} is not JSON, {AGAIN} ({error})") from error


def read_config(folder: Path) -> VAEConfig:
    """Read folder/config.json. Raises ValueError if there is none, or it is no valid config within the limits."""
    if not (folder / CONFIG).is_file():
        raise ValueError(f"{folder} holds no {CONFIG}: it is not the folder of a model")
    return parse_config(read_json(folder / CONFIG), folder / CONFIG)


def parse_config(values: Any, path: Path) -> VAEConfig:
    """Build the config that `path` holds. Raises ValueError, naming path, if it is invalid or beyond the limits."""
    try:
        if isinstance(values, dict):  # before anything is computed from them
            check_sizes(values)
        config = VAEConfig.from_dict(values)
        if len(config.attribution) > MAX_ATTRIBUTION:
            raise ValueError(
                f"attribution must have at most {MAX_ATTRIBUTION} characters, got {len(config.attribution)}"
            )
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return config


def check_sizes(values: Mapping[str, Any]) -> None:
    """Raise ValueError if a field of a config is beyond MAX_FIELDS: such a model is not loaded."""
    for name, most in MAX_FIELDS.items():
        if type(values.get(name)) is int and values[name] > most:
            raise ValueError(f"{name} must be at most {most}, got {values[name]!r:.100}")


def count_parameters(model: nn.Module) -> int:
    """Return the number of parameters. Raises ValueError if there are more than MAX_PARAMETERS: such a model is not loaded."""
    count = sum(parameter.numel() for parameter in model.parameters())
    if count > MAX_PARAMETERS:
        raise ValueError(f"its config asks for {count:,} parameters, more than the {MAX_PARAMETERS:,} allowed")
    return count


def read_tensors(
    path: Path,
    kind: str,
    build: Callable[[Mapping[str, str]], tuple[T, Mapping[str, Tensor]]],
    unused: Collection[str] = (),
    halves: Collection[str] = (),
) -> tuple[T, dict[str, Tensor]]:
    """Read a safetensors file that must hold exactly the tensors that are expected, on the CPU.

    kind: one of MAX_BYTES, which says how large the file may be.
    build: turns the file's metadata into whatever they describe and the tensors to expect, of which only shape and dtype
        count (make them on the device "meta", which takes no memory); or raises ValueError.
    unused: names of tensors that may be there and are left out.
    halves: names of float32 tensors that the file may have in half precision.
    Returns that thing and the tensors, all as expected. The header is checked first, and the file is read, not mapped: who
    replaces it meanwhile harms nobody. Raises ValueError, naming path, on anything missing, unexpected or broken, and on numbers that
    are not finite or beyond MAX_MAGNITUDE.
    """
    content = read_bytes(path, kind)
    try:
        metadata, found = _parse_header(content)
        built, expected = build(metadata)
        for key in sorted((expected.keys() | found.keys()) - set(unused)):
            if key not in found:
                raise ValueError(f"it lacks the tensor {key}")
            if key not in expected:
                raise ValueError(f"it has the tensor {key!r:.100}, which it should not")
            asked = DTYPES[expected[key].dtype], [*expected[key].shape]
            given = found[key].get("dtype"), found[key].get("shape")
            if given != asked and not (key in halves and given == (HALF, asked[1])):
                raise ValueError(f"{key} should be {asked[0]} {asked[1]}, got {given[0]!s:.20} {given[1]!s:.100}")
        tensors = {key: tensor.to(expected[key].dtype) for key, tensor in load(content).items() if key in expected}
        for key, tensor in tensors.items():
            if tensor.dtype.itemsize > 1 and not (tensor.abs() <= MAX_MAGNITUDE).all():
                raise ValueError(f"values in {key} are not finite or beyond {MAX_MAGNITUDE:.0e}")
    except SafetensorError as error:
        raise ValueError(f"{path} is broken, {AGAIN} ({error})") from error
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return built, tensors


def _parse_header(content: bytes) -> tuple[dict[str, str], dict[str, dict[str, Any]]]:
    """Return the metadata of a safetensors file, and the description of each tensor by name."""
    length = int.from_bytes(content[:8], "little")
    if length > MAX_HEADER_BYTES or length + 8 > len(content):
        raise ValueError(f"it is not a complete safetensors file, {AGAIN}")
    try:
        header = json.loads(content[8 : 8 + length])
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"its header is not JSON, {AGAIN} ({error})") from error
    if not isinstance(header, dict):
        raise ValueError("its header is not a table")
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise ValueError("its metadata is not a table of texts")
    if not all(isinstance(description, dict) for description in header.values()):
        raise ValueError("its header doesn't describe tensors")
    return metadata, header


def parse_metadata(metadata: Mapping[str, str], name: str) -> Any:
    """Return the JSON value called `name` in the metadata of a safetensors file. Raises ValueError if there is none."""
    try:
        return json.loads(metadata.get(name, ""))
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"its metadata has no {name} in JSON") from error


def read_metadata(path: Path) -> dict[str, str]:
    """Read the metadata of a safetensors file. Raises ValueError if it is none."""
    return _parse_header(read_bytes(path, path.name))[0]


def fingerprint(folder: Path, name: str = WEIGHTS) -> str:
    """Return the SHA-256 of the weights in folder, or of another safetensors file: of the numbers, not of its metadata."""
    content = read_bytes(folder / name, name)
    return hashlib.sha256(content[8 + int.from_bytes(content[:8], "little") :]).hexdigest()


def have_same_tensors(a: Path, b: Path, name: str) -> bool:
    """Tell whether the safetensors files of a name in two folders have the same numbers and metadata, or both are missing."""
    if not ((a / name).is_file() and (b / name).is_file()):
        return (a / name).is_file() == (b / name).is_file()
    return fingerprint(a, name) == fingerprint(b, name) and read_metadata(a / name) == read_metadata(b / name)


# --- writing ---------------------------------------------------------------------------------------------------------


def write(path: Path, save: Callable[[Path], object]) -> None:
    """Let `save` write a file beside `path` and move it there when it is whole: a reader never meets half of one."""
    part = path.with_name(f".{path.name}.part{path.suffix}")
    try:
        save(part)
        os.replace(part, path)
    except OSError as error:
        reason = error.strerror or str(error)
        raise OSError(error.errno, f"{path} can't be written ({reason}); what was there before is kept") from error
    finally:
        part.unlink(missing_ok=True)


def write_json(path: Path, values: Any) -> None:
    """Write values as readable JSON, whole or not at all. Raises ValueError if the file couldn't be read again."""
    content = (json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()
    _check_size(path, content)
    write(path, lambda part: part.write_bytes(content))


def write_tensors(path: Path, tensors: Mapping[str, Tensor], **metadata: Any) -> None:
    """Write tensors as safetensors, with metadata as JSON texts, whole or not at all.

    Raises ValueError if the file couldn't be read again.
    """
    copies = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
    content = save(copies, metadata={"format": "pt"} | {key: json.dumps(value) for key, value in metadata.items()})
    _check_size(path, content)
    write(path, lambda part: part.write_bytes(content))


def _check_size(path: Path, content: bytes) -> None:
    if len(content) > MAX_BYTES.get(path.name, math.inf):
        raise ValueError(
            f"{path} would have {len(content):,} bytes, more than the {MAX_BYTES[path.name]:,} that are read"
        )


def cache_dir() -> Path:
    """Return the folder for what can be made again, such as decoded pictures; it need not exist yet."""
    local = os.environ.get("LOCALAPPDATA") if os.name == "nt" else None
    return Path(os.path.expanduser(os.environ.get("XDG_CACHE_HOME") or local or "~/.cache"), "unvaelievable")


# --- text ------------------------------------------------------------------------------------------------------------


def replace_unprintable() -> None:
    """Let print write ? for what the output's encoding lacks, instead of raising: on Windows, a pipe is not in UTF-8."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")


def plain(text: str) -> str:
    """Make a stranger's text a line of Markdown in which none of its markup counts."""
    line = html.escape(" ".join(text.split()), quote=False)[:1000]
    return re.sub(r"([\\`*_\[\]!#|~$])", r"\\\1", line)
