"""from_pretrained against a Hub on loopback, with the real client in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hub_server import Hub, Repo, serve

BUNDLED = Path("weights/fashion-mnist")
TOKEN = "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"
GENERATE = """
import sys, json
from vae import VAE, generate
try:
    model = VAE.from_pretrained(sys.argv[1], **json.loads(sys.argv[2]))
    print(generate(model, [0]).sum().item())
except ValueError as error:
    print(error)
"""


Ask = Callable[..., str]


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serve() as hub:
        files = {name: (BUNDLED / name).read_bytes() for name in ("config.json", "model.safetensors", "metrics.json")}
        hub.repos["somebody/fashion"] = Repo(files)
        hub.tokens.add(TOKEN)
        yield hub


@pytest.fixture
def ask(hub: Hub, tmp_path: Path) -> Ask:
    """Load a model and make a picture with it in a process with a cache of its own; return what it prints."""

    def run(name: str, *, env: dict[str, str] | None = None, **options: object) -> str:
        environment = os.environ | {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "cache")} | (env or {})
        command = [sys.executable, "-c", GENERATE, name, json.dumps(options)]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
        assert TOKEN not in done.stdout + done.stderr
        return done.stdout.strip()

    return run


def test_a_model_is_downloaded_once_and_gives_the_same_pictures(hub: Hub, ask: Ask) -> None:
    expected = ask(str(BUNDLED.resolve()))
    assert hub.log == []
    assert ask("somebody/fashion") == expected
    assert {line.rpartition("/")[2] for line in hub.log} == {"config.json", "model.safetensors", "metrics.json"}
    hub.log.clear()
    assert ask("somebody/fashion") == expected
    assert not [line for line in hub.log if line.startswith("GET")]


def test_a_cached_commit_needs_no_request_at_all(hub: Hub, ask: Ask) -> None:
    del hub.repos["somebody/fashion"].files["metrics.json"]  # optional, and its absence is remembered, too
    commit = hub.repos["somebody/fashion"].sha
    expected = ask("somebody/fashion", revision=commit)
    hub.log.clear()
    assert ask("somebody/fashion", revision=commit) == expected
    assert ask("somebody/fashion", local_files_only=True, revision=commit) == expected
    assert hub.log == []


def test_a_private_model_needs_a_token(hub: Hub, ask: Ask) -> None:
    hub.repos["somebody/fashion"].private = True
    assert "there is no such repo, or not for everybody" in ask("somebody/fashion")
    assert "the Hub doesn't know this token" in ask("somebody/fashion", token="hf_wrong")
    float(ask("somebody/fashion", token=TOKEN))


def test_what_is_missing_or_barred_is_said(hub: Hub, ask: Ask) -> None:
    assert "there is no such repo" in ask("somebody/else")
    assert "somebody/fashion at v9 could not be had: it has no such revision" in ask("somebody/fashion", revision="v9")
    assert "it is not in the cache" in ask("somebody/fashion", env={"HF_HUB_OFFLINE": "1"})
    hub.repos["somebody/fashion"].gated = True
    assert "its owner lets in only who has accepted" in ask("somebody/fashion")


def test_a_pickle_is_never_asked_for(hub: Hub, ask: Ask) -> None:
    files = hub.repos["somebody/fashion"].files
    hub.repos["somebody/pickle"] = Repo({"config.json": files["config.json"], "pytorch_model.bin": b"never read"})
    assert "nothing else is loaded: pickles can run code" in ask("somebody/pickle")
    assert not [line for line in hub.log if ".bin" in line]


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        (b"", "config.json is not JSON"),
        (b'{"width": 1e99}', "config key 'image_size' is missing"),
        (None, "width 512, depth 16"),
    ],
)
def test_weights_are_not_asked_for_before_the_config_is_good(
    hub: Hub, ask: Ask, config: bytes | None, sentence: str
) -> None:
    files = hub.repos["somebody/fashion"].files
    hostile = json.loads(files["config.json"]) | {"image_size": 256, "width": 512, "depth": 16, "latent_dim": 4096}
    files["config.json"] = json.dumps(hostile).encode() if config is None else config
    assert sentence in ask("somebody/fashion")
    assert not [line for line in hub.log if "safetensors" in line]


def test_weights_larger_than_their_config_explains_are_not_fetched(hub: Hub, ask: Ask) -> None:
    hub.repos["somebody/fashion"].files["model.safetensors"] += bytes(2_000_000)
    assert "and its config explains" in ask("somebody/fashion")
    assert not [line for line in hub.log if line.startswith("GET") and "safetensors" in line]


def test_damaged_weights_are_refused(hub: Hub, ask: Ask) -> None:
    files = hub.repos["somebody/fashion"].files
    files["model.safetensors"] = files["model.safetensors"][:-1000]
    assert "model.safetensors is broken" in ask("somebody/fashion")


def test_a_hub_that_is_down_is_said_and_the_cache_still_serves(hub: Hub, ask: Ask) -> None:
    expected = ask("somebody/fashion")
    closed = {"HF_ENDPOINT": "http://127.0.0.1:9"}
    assert ask("somebody/fashion", env=closed) == expected
    assert "can't be reached" in ask("somebody/other", env=closed)
