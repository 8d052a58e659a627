"""The page's cache: what visitors send comes into it whole or not at all, and it never grows beyond its bounds."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from gradio.queueing import Event
from gradio.state_holder import SessionState
from PIL import Image
from starlette.requests import Request

import app
from vae.demo import uploads
from vae.demo.border import MAX_UNREAD_OF_ALL, is_open
from vae.demo.cache import FILE_BYTES, MAX_IDLE_SECONDS, SURE_SECONDS, Cache
from vae.demo.models import Models
from vae.demo.uploads import MAX_UPLOAD_BYTES, read_own_file, take_upload


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The page's cache."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    return tmp_path


def files_in(folder: Path) -> list[bytes]:
    """Return the contents of all files in a folder."""
    return sorted(path.read_bytes() for path in folder.rglob("*") if path.is_file())


def used_before(path: str, seconds: float) -> None:
    """Make a file look as if it had last been used so many seconds ago."""
    then = os.stat(path).st_mtime - seconds
    os.utime(path, (then, then))


# --- the cache -------------------------------------------------------------------------------------------------------


def test_what_nobody_uses_is_deleted_with_its_folder(folder: Path) -> None:
    cache = Cache()
    old, new = (cache.write(BytesIO(content), "a.png") for content in (b"old", b"new"))
    (folder / "half sent").write_bytes(b"half")
    for path in (old, str(folder / "half sent")):
        used_before(path, MAX_IDLE_SECONDS + 1)
    cache.sweep()
    assert list(folder.rglob("*")) == [Path(new).parent, Path(new)]


def test_the_oldest_go_first_and_what_was_just_used_stays(folder: Path) -> None:
    size = 10_000
    cache = Cache(max_bytes=8 * (size + FILE_BYTES))
    paths = [cache.write(BytesIO(bytes([number]) * size), "a.png") for number in range(8)]
    for number, path in enumerate(paths[:6]):
        used_before(path, SURE_SECONDS + 100 - number)
    assert cache.use(paths[0])  # a visitor still has it
    cache.reserve(size)
    assert [os.path.exists(path) for path in paths] == [True, False, False, *[True] * 5]
    for path in paths:
        cache.use(path)
    with pytest.raises(ValueError, match=r"^too many visitors are uploading right now: try again in a moment$"):
        cache.reserve(3 * (size + FILE_BYTES))
    assert sum(map(os.path.exists, paths)) == 6
    cache.release(size)
    cache.reserve(size)


def test_a_file_that_is_used_while_others_are_deleted_stays(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = Cache()
    path = cache.write(BytesIO(b"content"), "a.png")
    used_before(path, MAX_IDLE_SECONDS + 1)
    lstat = os.lstat

    def use_and_look(name: str) -> os.stat_result:
        status = lstat(name)
        cache.use(path)  # after it was looked at, before it would be deleted
        return status

    monkeypatch.setattr("vae.demo.cache.os.lstat", use_and_look)
    cache.sweep()
    assert read_own_file(path) == b"content"


def test_what_was_made_of_a_file_goes_with_it(folder: Path) -> None:
    cache, calls = Cache(), []

    @cache.remember(maxsize=4)
    def content_of(path: str, times: int) -> bytes:
        calls.append(path)
        return read_own_file(path) * times

    path, other = (cache.write(BytesIO(content), "a.png") for content in (b"one", b"two"))
    used_before(path, MAX_IDLE_SECONDS + 1)
    assert [content_of(path, 2), content_of(path, times=2), content_of(path, 2)] == [b"oneone"] * 3
    used_before(path, MAX_IDLE_SECONDS - 10)
    used_before(other, MAX_IDLE_SECONDS + 1)
    assert content_of(path, 2) == b"oneone"  # a use, too
    cache.sweep()  # the other goes
    assert content_of(path, 2) == b"oneone"
    assert len(calls) == 3
    os.unlink(path)
    with pytest.raises(ValueError, match=r"^this picture is not on the page: upload it first$"):
        content_of(path, 2)
    with pytest.raises(ValueError, match=r"^this picture is not on the page: upload it first$"):
        content_of(str(folder / "never"), 2)


def test_packages_may_lie_where_only_this_process_looks(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as the user's own folder, where pip puts them if it may not write elsewhere."""
    (tmp_path / "only_here.py").touch()
    script = tmp_path / "decode.py"
    script.write_text(f"import only_here, runpy\nrunpy.run_path({uploads.SCRIPT!r}, run_name='__main__')\n")
    monkeypatch.setattr(uploads, "SCRIPT", str(script))
    monkeypatch.syspath_prepend(str(tmp_path))
    decoder = uploads.Decoder()
    try:
        content = BytesIO()
        Image.new("L", (5, 4)).save(content, "PNG")
        assert decoder.read(content.getvalue, "a.png", 4).image.size == (4, 4)
    finally:
        decoder.close()


def test_a_full_disk_leaves_nothing_behind(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise OSError("no space")

    monkeypatch.setattr("vae.demo.cache.shutil.copyfileobj", fail)
    with pytest.raises(OSError, match="no space"):
        Cache().write(BytesIO(b"content"), "a.png")
    assert files_in(folder) == []


def test_a_page_has_a_cache_of_its_own_that_goes_with_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also within a folder that is shared with other pages, whose files are none of its business."""
    (folder / "of another").write_bytes(b"kept")
    with app.own_cache():
        own = Cache().write(BytesIO(b"content"), "a.png")
        assert folder in Path(own).parents
        monkeypatch.setattr("vae.demo.cache.MAX_IDLE_SECONDS", -1)
        Cache().sweep()
    assert files_in(folder) == [b"kept"]


# --- uploads ---------------------------------------------------------------------------------------------------------


def part(content: bytes, name: str = "files", filename: str | None = "a.png") -> bytes:
    named = f'; filename="{filename}"' if filename is not None else ""
    return f'--x\r\nContent-Disposition: form-data; name="{name}"{named}\r\n\r\n'.encode() + content + b"\r\n"


def sent(*pieces: bytes, whole: bool = True, read: list[bytes] | None = None) -> tuple[int, Any]:
    """Send the pieces of a body as a browser does, note those that are read, and return the status and the answer."""
    messages: Iterator[dict[str, Any]] = iter(
        [
            *({"type": "http.request", "body": piece, "more_body": True} for piece in pieces),
            {"type": "http.request", "body": b"--x--\r\n"} if whole else {"type": "http.disconnect"},
        ]
    )

    async def receive() -> dict[str, Any]:
        message = next(messages)
        if read is not None:
            read.append(message.get("body", b""))
        return message

    headers = [(b"content-type", b"multipart/form-data; boundary=x")]
    scope = {"type": "http", "method": "POST", "path": "/", "headers": headers, "query_string": b""}

    async def send() -> tuple[int, Any]:
        response = await take_upload(Request(scope, receive))
        content = bytes(response.body).decode()
        return response.status_code, json.loads(content) if response.status_code == 200 else content

    return asyncio.run(send())


def test_an_upload_is_a_file_of_the_cache_under_its_name(folder: Path) -> None:
    for name, kept in (("a b.png", "a b.png"), ("", "file"), ("../../.x", "x"), (".gradio", "gradio"), ("é", "é")):
        status, (path,) = sent(part(b"content", filename=name))
        assert status == 200
        assert Path(path).name == kept
        assert Path(path).parents[1] == folder
        assert read_own_file(path) == b"content"


@pytest.mark.parametrize(
    ("pieces", "whole", "status"),
    [
        ([part(bytes(100_000))[:50_000]], False, 400),
        ([part(bytes(3_000_000))[:2_500_000]], False, 400),
        ([part(b"1"), part(b"2")], True, 400),
        ([part(b"1", filename=None)], True, 400),
        ([part(b"1", "other")], True, 400),
        ([part(bytes(MAX_UPLOAD_BYTES + 1))], True, 413),
        ([b"nothing that is known"], True, 400),
    ],
)
def test_what_is_no_whole_file_leaves_nothing_behind(
    pieces: list[bytes], whole: bool, status: int, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploads, "CACHE", Cache())
    answer, sentence = sent(*pieces, whole=whole)
    assert answer == status
    assert len(sentence) > 20
    assert files_in(folder) == []
    assert uploads.CACHE._coming == 0


def test_a_crowd_that_sends_files_is_told_so(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "CACHE", Cache(max_bytes=1000))
    read: list[bytes] = []
    answer, sentence = sent(part(b"content"), read=read)
    assert answer == 503
    assert json.loads(sentence) == {"error": "Too many visitors are uploading right now: try again in a moment."}
    assert read[-1] == b"--x--\r\n"  # or the answer might not arrive
    assert files_in(folder) == []


@pytest.mark.parametrize("limit", ["UPLOAD_SECONDS", "GRACE_SECONDS"])
def test_a_slow_upload_is_ended(folder: Path, monkeypatch: pytest.MonkeyPatch, limit: str) -> None:
    monkeypatch.setattr(uploads, limit, 0.0)

    async def receive() -> Any:
        await asyncio.Event().wait()

    headers = [(b"content-type", b"multipart/form-data; boundary=x"), (b"content-length", b"100")]
    scope = {"type": "http", "method": "POST", "path": "/", "headers": headers, "query_string": b""}
    answer = asyncio.run(take_upload(Request(scope, receive)))
    assert answer.status_code == 400
    assert json.loads(bytes(answer.body)) == {"error": "The file was not sent whole."}
    assert uploads.CACHE._coming == 0


def test_room_is_kept_for_all_that_may_come_where_no_length_binds(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploads, "CACHE", Cache())
    kept: list[int] = []

    async def receive() -> Any:
        kept.append(uploads.CACHE._coming)
        return {"type": "http.disconnect"}

    headers = [(b"content-length", b"1"), (b"transfer-encoding", b"chunked")]
    headers.append((b"content-type", b"multipart/form-data; boundary=x"))
    scope = {"type": "http", "method": "POST", "path": "/", "headers": headers, "query_string": b""}
    assert asyncio.run(take_upload(Request(scope, receive))).status_code == 400
    assert kept == [MAX_UPLOAD_BYTES]


def test_pinned_files_stay(folder: Path) -> None:
    cache = Cache()
    path = cache.write(BytesIO(b"content"), "a.png")
    cache.pinned.add(path)
    used_before(path, MAX_IDLE_SECONDS + 1)
    cache.sweep()
    assert read_own_file(path) == b"content"


def test_nobody_waits_for_the_progress_of_uploads_that_there_are_not() -> None:
    """Gradio remembers every name that is asked for."""
    assert not is_open("GET", "/gradio_api/upload_progress")


# --- what gradio would keep in memory of every visitor ---------------------------------------------------------------


def test_what_gradio_keeps_of_visitors_is_bounded() -> None:
    def call(queue: Any, session: str, unread: int, is_read: bool = False) -> None:
        queue.pending_messages_per_session[session] = asyncio.Queue()
        queue.pending_event_ids_session[session] = set() if is_read else {session}
        for _ in range(unread):
            queue.pending_messages_per_session[session].put_nowait(None)

    async def visit() -> None:
        page = app.build(Models(["mnist"]))
        generate = next(function for function in page.fns.values() if function.api_name == "generate")
        # Of a session remains what is needed and no copy of the page, with all that it shows.
        state = SessionState(page)
        await page.process_api(generate, ["mnist", 64, 0, 1, "fitted", None], state=state)
        assert state.config_values == {}
        # Calls that are answered are forgotten, and of answers that nobody fetches the oldest.
        queue = page._queue
        call(queue, "answered", 0, is_read=True)
        call(queue, "runs", 5)
        queue.event_ids_to_events["runs"] = Event("runs", generate, None, None)  # type: ignore[arg-type]
        call(queue, "old", 3)
        call(queue, "new", 3)
        queue.pending_event_ids_session["left behind"] = set()
        await page.process_api(generate, ["mnist", 1, 0, 1, "fitted", None])
        assert list(queue.pending_messages_per_session) == ["runs", "old", "new"]
        call(queue, "newest", MAX_UNREAD_OF_ALL - 8)
        await page.process_api(generate, ["mnist", 1, 0, 1, "fitted", None])
        assert list(queue.pending_messages_per_session) == ["runs", "new", "newest"]
        assert set(queue.pending_event_ids_session) == {"runs", "new", "newest"}

    asyncio.run(visit())
