"""from_pretrained and what the page asks, by the real client, against a Hub on loopback."""

from __future__ import annotations

import asyncio
import json
import struct
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from conftest import TOKEN, Client
from hub_server import Hub, Repo, cut_short
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response, StreamingResponse

from vae.files import MAX_BYTES
from vae.hub import PROBE_SECONDS

FASHION = "somebody/fashion"
CLOSED = "http://127.0.0.1:9"


class Pull:
    """The client with a cache of the test's own."""

    def __init__(self, client: Client, cache: Path) -> None:
        self.client, self.cache = client, cache

    def __call__(self, *names: str, do: str = "pull", **options: Any) -> Any:
        return self.client(do, *(names or (FASHION,)), cache_dir=str(self.cache), **options)

    def leftovers(self) -> list[Path]:
        """Return the files of the cache that are no whole file of a model."""
        return [path for path in self.cache.rglob("*") if path.is_file() and "incomplete" in path.name]


@pytest.fixture
def pull(client: Client, tmp_path: Path) -> Pull:
    return Pull(client, tmp_path / "cache")


@pytest.fixture(scope="session")
def expected(_client: Client) -> float:
    """What the pictures of the bundled model are."""
    return _client("pull", "fashion-mnist")


def files_of(hub: Hub) -> dict[str, bytes]:
    return hub.repos[FASHION].files


def asked_files(hub: Hub) -> set[str]:
    return {line.rpartition("/")[2] for line in hub.log if "/resolve/" in line}


# --- what works ---


def test_a_model_is_downloaded_once_and_gives_the_same_pictures(hub: Hub, pull: Pull, expected: float) -> None:
    files_of(hub)["README.md"] = b"# Not asked for"
    assert pull() == expected
    assert asked_files(hub) == set(files_of(hub)) - {"README.md"}
    hub.log.clear()
    assert pull() == expected
    assert hub.log == [f"GET /api/models/{FASHION}/revision/main"]


def test_a_cached_commit_needs_no_request_at_all(hub: Hub, pull: Pull, expected: float, tmp_path: Path) -> None:
    del files_of(hub)["metrics.json"]  # optional, and its absence is remembered, too
    commit = hub.repos[FASHION].sha
    assert pull(revision=commit) == expected
    hub.log.clear()
    assert pull(f"{FASHION}@{commit}") == expected
    fresh = Client(hub.url, tmp_path)  # that has not asked anything yet
    assert Pull(fresh, pull.cache)(revision=commit) == expected
    assert Pull(fresh, pull.cache)(revision=commit, local_files_only=True) == expected
    fresh.close()
    assert hub.log == []


def test_a_revision_can_stand_behind_the_name(hub: Hub, pull: Pull, expected: float) -> None:
    hub.repos[FASHION].branches |= {"v1": dict(files_of(hub)), "refs/pr/1": dict(files_of(hub))}
    files_of(hub).clear()
    assert pull(f"{FASHION}@v1") == expected
    assert pull(f"{FASHION}@refs/pr/1") == expected
    assert "names a revision, and another is asked for: v2" in pull(f"{FASHION}@v1", revision="v2")


def test_a_forced_download_asks_again(hub: Hub, pull: Pull, expected: float) -> None:
    assert pull() == expected
    hub.log.clear()
    assert pull(force_download=True) == expected
    assert any("/cdn/" in line for line in hub.log)


def test_a_private_model_needs_a_token(hub: Hub, pull: Pull, expected: float) -> None:
    hub.repos[FASHION].private = True
    assert "there is no such repo, or it is private" in pull()
    assert "the Hub doesn't know this token" in pull(token="hf_wrong")
    assert "a token has no spaces, line ends or accents" in pull(token=TOKEN + "\n")
    assert pull(token=TOKEN) == expected


def test_all_files_are_of_one_commit_whatever_is_pushed_meanwhile(hub: Hub, pull: Pull, expected: float) -> None:
    repo = hub.repos[FASHION]
    repo.branches["before"] = before = dict(repo.files)  # whose commit can still be had by its name
    waits: list[None] = []

    def push(request: Request) -> None:
        if not waits:
            repo.files = {name: Path("weights/mnist", name).read_bytes() for name in before}
        else:
            waits.pop()

    hub.fault = push
    for requests in range(1, 9):  # before the push
        repo.files, waits = before, [None] * requests
        assert pull(force_download=True) == expected
        assert repo.files != before


def test_two_processes_at_once_load_the_same(hub: Hub, pull: Pull, expected: float, tmp_path: Path) -> None:
    other = Client(hub.url, tmp_path)
    both = threading.Barrier(2)
    arrived: list[None] = []

    def meet(request: Request) -> None:  # the first two requests for the weights go on together
        if "/cdn/" in request.url.path:
            arrived.append(None)
            if len(arrived) <= 2:
                try:
                    both.wait(5)
                except threading.BrokenBarrierError:
                    return  # the client itself let one process wait for the other

    hub.fault = meet
    answers: list[float] = []
    thread = threading.Thread(target=lambda: answers.append(Pull(other, pull.cache)()))
    thread.start()
    answers.append(pull())
    thread.join()
    assert answers == [expected, expected]
    assert "Traceback" not in other.close()
    assert pull.leftovers() == []


# --- what is refused ---


def test_what_is_missing_or_barred_is_said(hub: Hub, pull: Pull) -> None:
    assert "there is no such repo" in pull("somebody/else")
    assert f"{FASHION}@v9 can't be loaded: it has no such revision" in pull(revision="v9")
    assert "it is not in the cache" in pull(local_files_only=True)
    assert "that is not a valid repo name" in pull("somebody/--")
    hub.repos[FASHION].gated = True
    assert "it is gated: accept its conditions" in pull()


def test_a_pickle_is_never_asked_for(hub: Hub, pull: Pull) -> None:
    hub.repos["somebody/pickle"] = Repo({"config.json": files_of(hub)["config.json"], "pytorch_model.bin": b"no"})
    assert "nothing else is loaded: pickles can run code" in pull("somebody/pickle")
    assert not [line for line in hub.log if ".bin" in line]


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_repo_that_is_no_model_is_refused_before_anything_is_fetched(hub: Hub, pull: Pull, name: str) -> None:
    del files_of(hub)[name]
    assert "it lacks config.json or model.safetensors" in pull()
    assert not [line for line in hub.log if line.startswith("GET") and "/api/" not in line]


@pytest.mark.parametrize("name", MAX_BYTES)
def test_a_file_that_is_too_large_is_not_fetched(hub: Hub, pull: Pull, name: str) -> None:
    def claim(request: Request) -> Response | None:
        if request.method != "HEAD" or not request.url.path.endswith(name):
            return None
        claimed = {"X-Linked-Size": str(MAX_BYTES[name] + 1), "ETag": '"0"', "X-Repo-Commit": hub.repos[FASHION].sha}
        return Response(None, 200, claimed)

    hub.fault = claim
    assert f"its {name} has more than the {MAX_BYTES[name]:,} bytes allowed" in pull()
    assert not [line for line in hub.log if line.startswith("GET") and "/api/" not in line]


@pytest.mark.parametrize("config", [b"", b"[" * 90_000, b"{}", b'{"width": 1e99}'])
def test_a_config_that_is_none_is_refused(hub: Hub, pull: Pull, config: bytes) -> None:
    files_of(hub)["config.json"] = config
    assert "config.json" in pull()


def lie(content: bytes) -> bytes:
    """Let a safetensors header claim a tensor of a terabyte in the bytes that there are."""
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    header["log_scale"] = {"dtype": "F32", "shape": [2**38], "data_offsets": [0, 2**40]}
    changed = json.dumps(header).encode()
    return struct.pack("<Q", len(changed)) + changed + content[8 + length :]


@pytest.mark.parametrize("damage", [lambda content: content[:-1000], lie, lambda content: b"\xff" * 8 + content[8:]])
def test_damaged_weights_are_refused(hub: Hub, pull: Pull, damage: Any) -> None:
    files_of(hub)["model.safetensors"] = damage(files_of(hub)["model.safetensors"])
    assert "model.safetensors" in pull()


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "prior.safetensors", "latents.safetensors"])
def test_a_file_damaged_on_the_disk_is_said_and_fetched_again_if_forced(pull: Pull, expected: float, name: str) -> None:
    assert pull() == expected
    (path,) = pull.cache.glob(f"models--*/snapshots/*/{name}")
    path.resolve().write_bytes(path.read_bytes()[:-20])
    assert "fetch it again (force_download=True)" in pull()
    assert pull(force_download=True) == expected
    assert pull() == expected


# --- a network with faults ---


@pytest.mark.parametrize(("path", "status"), [("/tree/", 429), ("/resolve/", 500)])
def test_a_hub_that_stumbles_is_asked_again(hub: Hub, pull: Pull, expected: float, path: str, status: int) -> None:
    stumbles = [status]

    def stumble(request: Request) -> Response | None:
        there = path in request.url.path and stumbles
        return Response(None, stumbles.pop(), {"Retry-After": "0"}) if there else None

    hub.fault = stumble
    assert pull() == expected
    assert not stumbles


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_hub_that_is_busy_leaves_the_cache(hub: Hub, pull: Pull, expected: float, status: int) -> None:
    hub.fault = lambda request: Response(None, status)
    assert f"the Hub answered {status}: try again later" in pull()
    hub.fault = lambda request: None
    assert pull() == expected
    hub.fault = lambda request: Response(None, status)
    assert pull() == expected
    assert f"the Hub answered {status}: try again later" in pull(force_download=True)


def test_a_hub_that_says_nothing_is_given_up(hub: Hub, pull: Pull, expected: float) -> None:
    over = threading.Event()

    def hold(request: Request) -> None:
        assert over.wait(60), "the client waited for the Hub"

    hub.fault = hold
    assert "the Hub can't be reached" in pull("pull", FASHION, do="impatiently")
    over.set()
    assert pull() == expected
    over.clear()
    assert pull("pull", FASHION, do="impatiently") == expected
    over.set()


def test_a_connection_that_is_cut_leaves_nothing_behind(hub: Hub, pull: Pull, expected: float) -> None:
    weights = files_of(hub)["model.safetensors"]

    hub.fault = lambda request: cut_short(weights) if "/cdn/" in request.url.path else None
    assert "the connection broke" in pull()
    assert pull.leftovers() == []
    hub.fault = lambda request: None
    assert pull() == expected


def test_what_was_whole_in_the_cache_stays_when_a_newer_commit_does_not_come(
    hub: Hub, pull: Pull, expected: float
) -> None:
    assert pull() == expected
    content = files_of(hub)["model.safetensors"]
    files_of(hub)["model.safetensors"] = newer = content[:-4] + bytes(4)
    hub.fault = lambda request: cut_short(newer) if "/cdn/" in request.url.path else None
    assert "the connection broke" in pull()
    assert pull(local_files_only=True) == expected
    files_of(hub)["config.json"] += b" " * MAX_BYTES["config.json"]
    hub.fault = lambda request: None
    assert "bytes allowed" in pull()
    assert pull(local_files_only=True) == expected


def test_a_full_disk_is_said_and_leaves_nothing_behind(pull: Pull, expected: float) -> None:
    assert "File too large" in pull(do="pull_onto_a_full_disk")
    assert pull.leftovers() == []
    assert pull() == expected


def test_a_slow_hub_is_waited_for(hub: Hub, pull: Pull, expected: float) -> None:
    async def drip(content: bytes) -> AsyncIterator[bytes]:
        for start in range(0, len(content), 2**18):
            await asyncio.sleep(0.02)
            yield content[start : start + 2**18]

    def slow(request: Request) -> Response | None:
        content = hub.stored.get(request.url.path.rpartition("/")[2])
        return StreamingResponse(drip(content)) if content else None

    hub.fault = slow
    assert pull() == expected


def test_what_is_no_hub_is_told_from_one(hub: Hub, pull: Pull) -> None:
    hub.fault = lambda request: HTMLResponse("<html>Log in to the wireless network</html>")
    assert "the server that answered is not a Hub" in pull()
    assert pull.client("resolve_model", FASHION)[0] == "no answer"


def test_without_a_network_the_cache_still_serves(hub: Hub, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    online = Client(hub.url, tmp_path)
    expected = Pull(online, cache)()
    online.close()
    hub.log.clear()
    nowhere = [Client(CLOSED, tmp_path), Client("http://no-such-host.invalid", tmp_path)]
    nowhere.append(Client(hub.url, tmp_path, HF_HUB_OFFLINE="1"))
    for client in nowhere:
        assert Pull(client, cache)() == expected
        for refused in (Pull(client, cache)("somebody/other"), Pull(client, cache)(force_download=True)):
            assert "the Hub can't be reached" in refused or "HF_HUB_OFFLINE is set" in refused
    assert all("Traceback" not in client.close() for client in nowhere)
    assert hub.log == []


# --- what the page asks ---


def test_the_page_learns_at_once_what_the_hub_says(hub: Hub, client: Client) -> None:
    assert client("resolve_model", FASHION) == [{}, None]
    assert client("resolve_model", "fashion-mnist") == [{}, None]
    assert "there is no such repo" in client("resolve_model", "somebody/else")
    assert "it has no such revision" in client("resolve_model", f"{FASHION}@v9")
    hub.repos["somebody/pickle"] = Repo({"config.json": files_of(hub)["config.json"], "pytorch_model.bin": b"no"})
    assert "pickles can run code" in client("resolve_model", "somebody/pickle")
    hub.fault = lambda request: Response(None, 503)
    assert client("resolve_model", FASHION) == [
        "no answer",
        f"{FASHION} can't be loaded: the Hub answered 503: try again later",
    ]


def test_the_page_does_not_wait_for_a_hub_that_says_nothing(hub: Hub, client: Client) -> None:
    answered = threading.Event()

    def hold(request: Request) -> None:
        assert answered.wait(20 * PROBE_SECONDS), "the client waited for the Hub"

    hub.fault = hold
    assert client("resolve_model", FASHION)[0] == "no answer"
    answered.set()


def test_the_page_shows_the_cache_when_the_hub_is_down(hub: Hub, client: Client) -> None:
    client("pull", FASHION)
    hub.fault = lambda request: Response(None, 500)
    options, notice = client("resolve_model", FASHION)
    assert options == {"local_files_only": True}
    assert "the Hub answered 500" in notice
    assert "copy in the cache" in notice
