"""Strangers' files: refused in one sentence, before memory or time is spent on them; and writes that fail."""

from __future__ import annotations

import json
import os
import resource
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import small_model
from safetensors.torch import load_file, save_file
from torch import Tensor

from vae import VAE, GaussianMixture, save_prior
from vae.attributes import Directions
from vae.files import CONFIG, LATENTS, MAX_BYTES, METRICS, PRIOR, WEIGHTS, fingerprint, write, write_json


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with all that a model can have."""
    model = small_model()
    z = torch.randn(50, 6, generator=torch.Generator().manual_seed(0))
    model.directions = Directions.fit(z, (z[:, :1] > 0).long(), {"beard": ("no", "yes")})
    model.prior = GaussianMixture(6, components=3)
    model.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def change_tensors(path: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    """Change the tensors of a safetensors file and leave its metadata."""
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata=json.loads(content[8 : 8 + length])["__metadata__"])


def with_header(content: bytes, change: Callable[[dict[str, Any]], object]) -> bytes:
    """Change the header of a safetensors file and leave its numbers."""
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    change(header)
    changed = json.dumps(header).encode()
    return struct.pack("<Q", len(changed)) + changed + content[8 + length :]


# --- config.json ---


@pytest.mark.parametrize("content", ["", "{", "[1]", "null", '"text"', "[" * 100_000, "\xff"])
def test_a_config_that_is_none_is_refused(folder: Path, content: str) -> None:
    (folder / CONFIG).write_bytes(content.encode("latin-1"))
    with pytest.raises(ValueError, match=r"config\.json(: a config must be a table| is not JSON, fetch it again)"):
        VAE.from_pretrained(folder)


HOSTILE_CONFIGS = [
    ({"widht": 8}, "unknown config key 'widht'"),
    ({"width": None}, "width must be a whole number"),
    ({"width": 10**12}, "width must be at most 512"),
    ({"image_size": 1024}, "image_size must be at most 256"),
    ({"latent_dim": 10**400}, "latent_dim must be at most 4096"),
    ({"depth": 17}, "depth must be at most 16"),
    ({"width": 512, "depth": 16, "latent_dim": 4096, "image_size": 256}, "parameters, more than the 100,000,000"),
    ({"likelihood": "../../etc/passwd"}, "likelihood must be one of"),
    ({"attribution": ["somebody"]}, "attribution must be a text"),
    ({"attribution": "x" * 1001}, "attribution must have at most 1000 characters"),
    ({"latent_dim": 7}, r"decoder\.trunk\.0\.weight should be F32 \[\d+, 7\], got F32 \[\d+, 6\]"),
    ({"depth": 2}, "it (lacks|has) the tensor"),
]


@pytest.mark.parametrize(("change", "sentence"), HOSTILE_CONFIGS)
@pytest.mark.parametrize("where", [CONFIG, WEIGHTS])
def test_a_hostile_config_is_refused_by_the_name_of_the_field(
    folder: Path, where: str, change: dict[str, Any], sentence: str
) -> None:
    config = json.loads((folder / CONFIG).read_text()) | change
    path = folder / WEIGHTS
    if where == WEIGHTS:
        content = with_header(
            path.read_bytes(), lambda header: header["__metadata__"].update(config=json.dumps(config))
        )
        path.write_bytes(content)
    else:
        save_file(load_file(path), path)  # with no config of its own
        (folder / CONFIG).write_text(json.dumps(config))
    with pytest.raises(ValueError, match=sentence):
        VAE.from_pretrained(folder)


def test_a_config_lacks_nothing_but_what_older_ones_had_not(folder: Path) -> None:
    save_file(load_file(folder / WEIGHTS), folder / WEIGHTS)
    config = json.loads((folder / CONFIG).read_text())
    del config["attribution"]
    (folder / CONFIG).write_text(json.dumps(config))
    (folder / PRIOR).unlink()
    assert VAE.from_pretrained(folder).config.attribution == ""
    del config["likelihood"]
    (folder / CONFIG).write_text(json.dumps(config))
    with pytest.raises(ValueError, match="config key 'likelihood' is missing"):
        VAE.from_pretrained(folder)


# --- tensors ---

CHANGES: list[tuple[str, Callable[[dict[str, Tensor]], object], str]] = [
    (WEIGHTS, lambda t: t.pop("log_scale"), "it lacks the tensor log_scale"),
    (WEIGHTS, lambda t: t.update(extra=torch.zeros(1)), "it has the tensor 'extra', which it should not"),
    (WEIGHTS, lambda t: t.update(log_scale=torch.zeros(2)), "log_scale should be F32 .*, got F32 .2."),
    (WEIGHTS, lambda t: t.update(log_scale=t["log_scale"].half()), "log_scale should be F32 .*, got F16"),
    (WEIGHTS, lambda t: t.update(log_scale=t["log_scale"].double()), "log_scale should be F32 .*, got F64"),
    (WEIGHTS, lambda t: t["log_scale"].fill_(torch.nan), "values in log_scale are not finite"),
    (WEIGHTS, lambda t: t["log_scale"].fill_(torch.inf), "values in log_scale are not finite"),
    (WEIGHTS, lambda t: t["log_scale"].fill_(3e38), r"values in log_scale are not finite or beyond 1e\+06"),
    (WEIGHTS, lambda t: [v.neg_() for k, v in t.items() if k.endswith("running_var")], "has negative variances in"),
    (WEIGHTS, lambda t: [v.fill_(1e6) for v in t.values() if v.is_floating_point()], "no finite picture"),
    (PRIOR, lambda t: t.pop("means"), "it lacks the tensor means"),
    (PRIOR, lambda t: t["means"].fill_(torch.nan), "values in means are not finite"),
    (PRIOR, lambda t: t["means"].fill_(3e38), "values in means are not finite"),
    (PRIOR, lambda t: t["weights"].neg_(), "weights should be positive"),
    (PRIOR, lambda t: t["scale_tril"].neg_(), "positive diagonal"),
    (LATENTS, lambda t: t.pop("spread"), "it lacks the tensor spread"),
    (LATENTS, lambda t: t["spread"].fill_(torch.inf), "values in spread are not finite"),
    (LATENTS, lambda t: t["shares"].neg_(), "shares should not be negative"),
]


@pytest.mark.parametrize(("name", "change", "sentence"), CHANGES)
def test_tensors_that_are_not_those_of_a_model_are_refused(
    folder: Path, name: str, change: Callable[[dict[str, Tensor]], object], sentence: str
) -> None:
    change_tensors(folder / name, change)
    if name == WEIGHTS:
        (folder / PRIOR).unlink()
        (folder / LATENTS).unlink()
    with pytest.raises(ValueError, match=rf"{name}.*{sentence}"):
        VAE.from_pretrained(folder)


def overlap(header: dict[str, Any]) -> None:
    """Let every tensor start with the first bytes."""
    for key, description in header.items():
        if key != "__metadata__":
            start, end = description["data_offsets"]
            description["data_offsets"] = [0, end - start]


def spoil(header: dict[str, Any], offsets: Any) -> None:
    """Replace where the last tensor lies."""
    header[[key for key in header if key != "__metadata__"][-1]]["data_offsets"] = offsets


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda content: b"",
    "of four bytes": lambda content: content[:4],
    "cut": lambda content: content[:-100],
    "cut in the header": lambda content: content[:100],
    "longer": lambda content: content + bytes(100),
    "a changed header": lambda content: content[:8] + b"x" + content[9:],
    "a header that is no text": lambda content: content[:8] + b"\xff" + content[9:],
    "a header beyond the file": lambda content: (2**62).to_bytes(8, "little") + content[8:],
    "a list for a header": lambda content: struct.pack("<Q", 2) + b"[]" + content,
    "nested lists for a header": lambda content: struct.pack("<Q", 500_000) + b"[" * 500_000,
    "a number for a tensor": lambda content: with_header(content, lambda header: header.update(extra=1)),
    "a number for metadata": lambda content: with_header(content, lambda header: header.update(__metadata__=1)),
    "offsets beyond the file": lambda content: with_header(content, lambda header: spoil(header, [0, 2**40])),
    "offsets that are texts": lambda content: with_header(content, lambda header: spoil(header, "all")),
    "overlapping tensors": lambda content: with_header(content, overlap),
}


@pytest.mark.parametrize("name", [WEIGHTS, PRIOR, LATENTS])
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_broken_file_is_refused(folder: Path, name: str, damage: str) -> None:
    path = folder / name
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    with pytest.raises(ValueError, match=name) as refused:
        VAE.from_pretrained(folder)
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 1000


# --- limits ---


@pytest.mark.parametrize("name", [CONFIG, WEIGHTS, PRIOR, LATENTS])
def test_a_file_that_is_too_large_is_refused(folder: Path, name: str) -> None:
    os.truncate(folder / name, MAX_BYTES[name] + 1)  # a hole, which takes no place on the disk
    with pytest.raises(ValueError, match=rf"{name} has more than the [\d,]+ bytes allowed"):
        VAE.from_pretrained(folder)


def test_a_header_of_many_tensors_is_refused_before_it_is_read(folder: Path) -> None:
    header = ",".join(f'"{i}":{{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}' for i in range(1_500_000))
    content = f"{{{header}}}".encode()
    (folder / WEIGHTS).write_bytes(struct.pack("<Q", len(content)) + content)
    code = """
import resource, sys
from vae import VAE
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    VAE.from_pretrained(sys.argv[1])
except ValueError as error:
    print(error)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""
    done = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=True)
    sentence, megabytes = done.stdout.splitlines()
    assert "not a complete safetensors file" in sentence
    assert int(megabytes) < 400  # of which the file itself has 90; parsed, it would take 2,200


def test_a_special_file_is_not_read(folder: Path) -> None:
    for name in (CONFIG, WEIGHTS, PRIOR):
        kept = (folder / name).read_bytes()
        (folder / name).unlink()
        os.mkfifo(folder / name)  # to open one waits for whoever writes to it
        if name == PRIOR:
            VAE.from_pretrained(folder)  # optional, and no file
        else:
            with pytest.raises(ValueError, match=f"holds no {name}"):
                VAE.from_pretrained(folder)
        (folder / name).unlink()
        (folder / name).write_bytes(kept)


# --- fingerprints and writes ---


def test_a_fingerprint_is_of_the_numbers_alone(folder: Path) -> None:
    before = fingerprint(folder)
    content = with_header((folder / WEIGHTS).read_bytes(), lambda header: header["__metadata__"].update(note="x"))
    (folder / WEIGHTS).write_bytes(content)
    assert fingerprint(folder) == before
    change_tensors(folder / WEIGHTS, lambda tensors: tensors["log_scale"].add_(0.1))
    assert fingerprint(folder) != before


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")

    def fail(part: Path) -> None:
        part.write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match=r"a\.txt can't be written \(disk full\); what was there before is kept"):
        write(path, fail)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_keeps_the_model_that_was_there(folder: Path) -> None:
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        with pytest.raises(OSError, match=r"model\.safetensors can't be written \(File too large\)"):
            small_model(latent_dim=9).save_pretrained(folder)
        with pytest.raises(OSError, match=r"prior\.safetensors can't be written"):
            save_prior(GaussianMixture(6, components=3), folder / PRIOR)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_numbers_that_json_has_not_are_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / METRICS, {"mse": float("nan")})
    assert not list(tmp_path.iterdir())
