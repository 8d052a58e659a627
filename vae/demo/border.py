"""What comes in from visitors and goes out to them: checked values, whole pictures, and errors in words."""

from __future__ import annotations

import asyncio
import ctypes
import html
import math
import os
import sys
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping, Sequence
from contextlib import asynccontextmanager, suppress
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import Any

import anyio.to_thread
import gradio as gr
import gradio.mcp
from gradio.processing_utils import encode_pil_to_bytes, hash_bytes
from gradio.state_holder import SessionState
from gradio.utils import get_upload_folder
from PIL import Image
from starlette.middleware import Middleware
from starlette.responses import JSONResponse
from starlette.routing import BaseRoute, Route

from vae.demo.cache import CACHE
from vae.demo.models import Models
from vae.demo.uploads import DECODER, MAX_UPLOAD_BYTES, take_upload

MAX_REQUEST_BYTES = 65_536  # of JSON; the page's own requests have a few thousand
MAX_MULTIPART_BYTES = MAX_UPLOAD_BYTES + 65_536  # one file and what is around it
MAX_UNREAD, MAX_UNREAD_OF_ALL = 200, 1000  # messages not fetched yet; a call has three, and 64 pictures take 80 kB
SWEEP_SECONDS = 30
MAX_MCP_BYTES = 4 * 2**20  # of a call of a tool, with pictures as base64
MAX_QUEUED, MAX_AT_ONCE = 100, 2  # events that wait, and that run at once; of those that skip the queue as many
MAX_SESSIONS = 500  # whose sliders and choices are remembered
M_ARENA_MAX = -8  # of malloc.h
MAX_SHOWN = 100  # letters that an error repeats of what a visitor sent

LAUNCH_OPTIONS: dict[str, Any] = {
    "max_file_size": MAX_UPLOAD_BYTES,
    "state_session_capacity": MAX_SESSIONS,
    "enable_monitoring": False,
    "ssr_mode": False,  # it would need Node
}


def check(component: gr.blocks.Block, value: Any) -> Any:
    """Return what a visitor sent for an input of the page, once it is what such an input takes. Raises ValueError.

    Of a picture that is the path that the visitor gave, which `read_upload` doesn't trust either.
    """
    name = getattr(component, "label", None) or "the input"
    if isinstance(component, gr.Radio):
        allowed = [choice for _, choice in component.choices]
        if not isinstance(value, str) or value not in allowed:
            raise ValueError(f"{name} must be one of {', '.join(map(str, allowed))}, got {shown(value)}")
        return value
    if isinstance(component, gr.Slider | gr.Number):
        # Compared, since a whole number may be too large for a float; NaN is in no range.
        if isinstance(value, bool) or not isinstance(value, int | float) or not -math.inf < value < math.inf:
            raise ValueError(f"{name} must be a number, got {shown(value)}")
        low, high = component.minimum, component.maximum
        if (low is not None and value < low) or (high is not None and value > high):
            raise ValueError(f"{name} must be from {low:g} to {high:.10g}, got {shown(value)}")
        return value
    if isinstance(component, gr.Image):
        path = value.get("path") if isinstance(value, dict) else value
        if value is not None and not isinstance(path, str):
            raise ValueError(f"{name} must be a picture that was uploaded, got {shown(value)}")
        return path
    if isinstance(component, gr.JSON):
        if value is not None and not isinstance(value, dict):
            raise ValueError(f"{name} must be a table, got {shown(value)}")
        return value
    raise TypeError(f"nothing is known of what {component} takes")  # a programmer's error


def shown(value: Any) -> str:
    """Write what a visitor sent, or its beginning, on one line."""
    text = repr(value[: 2 * MAX_SHOWN] if isinstance(value, str) else value)
    return text if len(text) <= MAX_SHOWN else text[:MAX_SHOWN] + "…"


def told(error: Exception) -> gr.Error:
    """Make an error that the visitor is told in its own words, and the log isn't."""
    sentence = html.escape(str(error), quote=False)  # it may repeat what a stranger wrote
    return gr.Error(sentence[:1].upper() + sentence[1:] + ".", print_exception=False)


class Page(gr.Blocks):
    """Gradio's Blocks with a border around what visitors send and get.

    Gradio itself would read, copy and fetch files and addresses that are named anywhere in an input, decode pictures in
    this process, answer wrong types with a traceback in the log, and write a picture again while others fetch it.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._unqueued = 0
        self._slots = asyncio.Semaphore(MAX_AT_ONCE)
        self._loaders = anyio.CapacityLimiter(MAX_QUEUED)
        self.models: Models | None = None  # that events name in their first input

    def open(self, routes: Sequence[BaseRoute] = (), middleware: Sequence[Middleware] = (), **options: Any) -> None:
        """Start the page as `launch` does, with limits, and serve it and further routes until it is stopped."""
        own = [Route(f"{ROUTES}upload", take_upload, methods=["POST"]), *routes]  # before those of gradio
        app = {"middleware": [Middleware(Border), *middleware], "routes": own, "lifespan": self._sweeping}
        self.queue(default_concurrency_limit=MAX_AT_ONCE, max_size=MAX_QUEUED, api_open=False)
        keep_memory_together()
        DECODER.start()
        # Nobody sees them, and they would be summed up at every event.
        self._queue.ANALYTICS_MAX_EVENTS, self._queue.ANAYLTICS_CACHE_FREQUENCY = 1, 10**9
        # Where pictures that come as base64 are written: gradio looked for it when it was imported, too early.
        gradio.mcp.DEFAULT_TEMP_DIR = get_upload_folder()
        self.launch(**LAUNCH_OPTIONS, app_kwargs=app, mcp_server=find_spec("mcp") is not None, **options)

    @asynccontextmanager
    async def _sweeping(self, _: Any) -> AsyncIterator[None]:
        """Delete old files for as long as the page runs."""

        async def sweep() -> None:
            while True:
                await asyncio.sleep(SWEEP_SECONDS)
                for path in [path for block in self.blocks.values() for path in getattr(block, "keep_in_cache", ())]:
                    CACHE.use(path)  # it is what the page begins with
                await anyio.to_thread.run_sync(CACHE.sweep)
                for files in self.temp_file_sets:  # in which gradio notes the name of every file that there ever was
                    files.clear()

        task = asyncio.create_task(sweep())
        try:
            yield
        finally:
            task.cancel()

    async def preprocess_data(
        self, block_fn: Any, inputs: list[Any], state: SessionState | None, explicit_call: bool = False
    ) -> list[Any]:
        """Return the values of an event's inputs, all of them checked, in place of what gradio would make of them."""
        state = state or SessionState(self)
        try:
            if len(inputs) != len(block_fn.inputs):
                raise ValueError(f"{len(block_fn.inputs)} values are needed here, got {len(inputs)}")
            values = [
                state[block._id] if block.stateful else check(state.get(block._id, block), value)
                for block, value in zip(block_fn.inputs, inputs, strict=True)
            ]
        except ValueError as error:
            raise told(error) from None
        for block, value in zip(block_fn.inputs, values, strict=True):
            if isinstance(block, gr.Image) and value and is_kept(value) and os.path.isfile(value):
                self.upload_file_set.add(value)  # also those that came as base64 are deleted after their time
        return values

    async def postprocess_data(self, block_fn: Any, predictions: Any, state: SessionState | None) -> list[Any]:
        """Write pictures whole before gradio comes to them."""
        predictions = await anyio.to_thread.run_sync(keep_pictures, predictions, limiter=self.limiter)
        return await super().postprocess_data(block_fn, predictions, state)

    async def process_api(self, block_fn: Any, *arguments: Any, **options: Any) -> dict[str, Any]:
        """Run an event. Whatever goes wrong, the visitor is told so."""
        function = self.fns[block_fn] if isinstance(block_fn, int) else block_fn
        if event := options.get("event_data"):
            index = event._data.get("index") if isinstance(event._data, dict) else None
            event._data = {"index": index if type(index) is int else None, "value": None}
        self._forget()
        try:
            async with self._room(function, options.get("session_hash"), arguments[0] if arguments else ()):
                return await super().process_api(function, *arguments, **options)
        except gr.Error:
            raise
        except Exception as error:  # a fault of ours
            print("\n".join(line[:300] for line in traceback.format_exc().splitlines()), file=sys.stderr)
            raise told(RuntimeError("something went wrong on this page: try again")) from error
        finally:
            if state := options.get("state"):
                state.config_values.clear()  # 100 kB of every session, for deep links, which are closed

    def _forget(self) -> None:
        """Drop what gradio keeps of visitors whose calls are answered and, of too many answers, the oldest."""
        unread, pending = self._queue.pending_messages_per_session, self._queue.pending_event_ids_session
        waiting = {event.session_hash for event in self._queue.event_ids_to_events.values()}
        total = sum(messages.qsize() for messages in unread.values())
        for session in [*unread, *(session for session in pending if session not in unread)]:  # the oldest first
            if session not in waiting and (total > MAX_UNREAD_OF_ALL or not pending.get(session)):
                pending.pop(session, None)
                if messages := unread.pop(session, None):
                    total -= messages.qsize()

    @asynccontextmanager
    async def _room(self, function: Any, session: str | None, inputs: Sequence[Any]) -> AsyncIterator[None]:
        """Wait until there is room for an event. Raises gr.Error if too many wait already."""
        unread = self._queue.pending_messages_per_session.get(session) if session else None
        if unread is not None and unread.qsize() > MAX_UNREAD:
            raise told(ValueError("fetch your earlier answers first"))
        if function.queue is not False:  # the queue has made room
            yield
            return
        if self._unqueued >= MAX_QUEUED:
            raise told(ValueError("the page is busy right now: try again in a moment"))
        self._unqueued += 1
        try:
            await self._load(inputs)
            async with self._slots:
                yield
        finally:
            self._unqueued -= 1

    async def _load(self, inputs: Sequence[Any]) -> None:
        """Load the model that an event names first, in a thread of its own: who waits for the Hub keeps nobody else waiting."""
        if self.models and inputs and self.models.is_away(inputs[0]):
            with suppress(ValueError):  # the handler says it
                await anyio.to_thread.run_sync(self.models.__getitem__, inputs[0], limiter=self._loaders)


def keep_memory_together() -> None:
    """Let all threads share two heaps: glibc gives each its own, which keeps what it once needed, 100 MB of a crowd."""
    if sys.platform == "linux":
        with suppress(AttributeError):  # another C library
            ctypes.CDLL(None).mallopt(M_ARENA_MAX, 2)


def keep_pictures(value: Any) -> Any:
    """Replace every picture of PIL in what a handler returns, however deep, by the path of a file that `keep` wrote."""
    if isinstance(value, Image.Image):
        return keep(value)
    if isinstance(value, dict):
        return {key: keep_pictures(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return (tuple if isinstance(value, tuple) else list)(map(keep_pictures, value))
    return value


def keep(picture: Image.Image) -> str:
    """Write a picture to the very file of the page's cache that gradio would write, and return its path."""
    return keep_bytes(encode_pil_to_bytes(picture, "png"), "image.png")


def keep_bytes(content: bytes, name: str) -> str:
    """Write a file, whole or not at all, to a folder of the cache named after its content, and return its path.

    Only if it isn't there: gradio would write it again for every visitor, while others fetch it, who then get half of it.
    """
    path = Path(get_upload_folder(), hash_bytes(content), name)
    return str(path) if CACHE.use(path) else CACHE.write(BytesIO(content), name)


def is_kept(path: str) -> bool:
    """Tell by its name alone whether a file lies in this page's cache."""
    return Path(os.path.abspath(get_upload_folder())) in Path(os.path.abspath(path)).parents


# What is open of gradio's routes: it also has some that run ffmpeg, fetch addresses for visitors, or write files.
ROUTES = "/gradio_api/"
TOOLS = ("mcp", "mcp/", "mcp/http", "mcp/http/")  # of the Model Context Protocol, whose other addresses are out of use
POSTED = ("upload", "queue/join", "call/", "run/", "api/", "cancel", "reset")
CLOSED = (
    "upload_progress",
    "proxy=",
    "file/",
    "deep_link",
    "stream/",
    "runs",
    "run-history",
    "dev/",
    "custom_component/",
    "mcp/sse",
    "mcp/messages",
)


def is_open(method: str, path: str) -> bool:
    """Tell whether a request may reach gradio; of files, those in this page's cache only."""
    _, is_route, name = path.partition(ROUTES)
    if method not in ("GET", "HEAD"):
        return bool(is_route) and (name.startswith(POSTED) or name in TOOLS)
    if name.startswith("file="):  # by name alone: gradio looks at whatever is named, before it refuses
        return is_kept(name[5:])
    return not name.startswith(CLOSED)


Message = MutableMapping[str, Any]
WRONG_REQUEST = LookupError, ValueError, TypeError, AssertionError


class Border:
    """ASGI middleware: no body of a request is larger than it need be, and what goes wrong is a line in the log."""

    def __init__(self, app: Callable[..., Awaitable[None]]) -> None:
        self.app = app

    async def __call__(
        self,
        scope: Message,
        receive: Callable[[], Awaitable[Message]],
        send: Callable[[Message], Awaitable[None]],
    ) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        if not is_open(scope["method"], scope["path"]):
            return await JSONResponse({"detail": "The page has nothing there."}, status_code=404)(scope, receive, send)
        headers = dict(scope["headers"])
        is_multipart = headers.get(b"content-type", b"").startswith(b"multipart/form-data")
        limit = MAX_MULTIPART_BYTES if is_multipart else MAX_REQUEST_BYTES
        if scope["path"].partition(ROUTES)[2] in TOOLS:
            limit = MAX_MCP_BYTES
        length, read, has_started = headers.get(b"content-length", b"0"), 0, False
        if not length.isdigit() or len(length) > 20 or int(length) > limit:
            answer = JSONResponse({"detail": f"A request may have at most {limit:,} bytes."}, status_code=413)
            return await answer(scope, receive, send)

        async def receive_some() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            return {"type": "http.disconnect"} if read > limit else message

        async def note_and_send(message: Message) -> None:
            nonlocal has_started
            has_started = True
            await send(message)

        try:
            return await self.app(scope, receive_some, note_and_send)
        except BaseException as error:
            if not isinstance(error, Exception):  # such as that of a request that the visitor ended
                raise
            place = traceback.extract_tb(error.__traceback__)[-1]
            line = f"{scope['method']} {scope['path']}: {error!r:.200} ({Path(place.filename).name}:{place.lineno})"
            print(repr(line[:400])[1:-1], file=sys.stderr)
            if has_started:
                return await send({"type": "http.response.body", "body": b"", "more_body": False})
            code = 400 if isinstance(error, WRONG_REQUEST) or "FnIndexInferError" in repr(error) else 500
            answer = JSONResponse({"detail": "The page does not know what to do with this request."}, status_code=code)
            return await answer(scope, receive, send)
