"""The files that a browser fetches from the page's own address, and what the page tells of itself to those who link it."""

from __future__ import annotations

import html
import io
import os
import re
from collections.abc import Awaitable, Callable, MutableMapping
from functools import cache
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import gradio
from PIL import Image
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from vae.demo.models import Models

WEB = Path(__file__).with_name("web")
TITLE = "unvaelievable: a variational autoencoder to play with"
DESCRIPTION = "It squeezes a picture into a few numbers and redraws it. Change the numbers."
PREVIEW = "web/preview.png"
FACE_SIDE = 128  # pixels, at least
MAX_FACES = 8  # drawn at once, or waiting for their models: other files are served meanwhile


class Modules(StaticFiles):
    """The files of a folder, which browsers keep but ask for news of: modules of two versions don't fit together."""

    def file_response(self, full_path: str | os.PathLike[str], *arguments: Any, **options: Any) -> Response:
        response = super().file_response(full_path, *arguments, **options)
        response.headers["cache-control"] = "no-cache"
        return response


def routes(models: Models) -> list[BaseRoute]:
    """Return the routes of those files."""
    faces: dict[str, bytes] = {}
    drawing = anyio.CapacityLimiter(MAX_FACES)

    def decoder(request: Request) -> Response:
        digest = request.path_params["digest"]
        content = models.sent.get(digest)
        if content is None:
            return PlainTextResponse("there is no such decoder", status_code=404)
        headers = {"cache-control": "public, max-age=31536000, immutable", "etag": f'"{digest}"'}
        if request.headers.get("if-none-match") == headers["etag"]:
            return Response(status_code=304, headers=headers)
        return Response(content, media_type="application/octet-stream", headers=headers)

    async def face(request: Request) -> Response:
        return await anyio.to_thread.run_sync(draw_face, request, limiter=drawing)

    def draw_face(request: Request) -> Response:
        index = request.path_params["index"]
        if not 0 <= index < len(models.names):
            return PlainTextResponse("there is no such model", status_code=404)
        name = models.names[index]
        try:
            if name not in faces:
                faces[name] = _enlarged_png(models.face(name))
        except ValueError as error:  # a Hub that can't be reached just now
            return PlainTextResponse(str(error), status_code=404)
        return Response(faces[name], media_type="image/png", headers={"cache-control": "no-cache"})

    return [
        Route("/web/decoders/{digest}", decoder),
        Route("/web/faces/{index:int}", face),
        Mount("/web", Modules(directory=WEB)),
    ]


def _enlarged_png(picture: Image.Image) -> bytes:
    factor = -(-FACE_SIDE // picture.width)
    kind = Image.Resampling.NEAREST if picture.width < 64 else Image.Resampling.BICUBIC
    large = picture.resize((factor * picture.width, factor * picture.height), kind)
    file = io.BytesIO()
    large.save(file, "png")
    return file.getvalue()


# --- the head of the page --------------------------------------------------------------------------------------------

GRADIOS = re.compile(rb'<meta\s+(?:property="og:|name="twitter:)[^>]*>\s*', re.DOTALL)
EARLY = '<script type="module" src="./web/early.js"></script>'
FACE = '<link rel="preload" as="image" href="./web/faces/0" />'
STYLE = b'<link rel="stylesheet" href="./web/style.css" />'
MODULES = (
    "page",
    "app",
    "stage",
    "dom",
    "morph",
    "explore",
)  # which the page begins with, and early.js does not import

ASSETS = Path(gradio.__file__).parent / "templates" / "frontend" / "assets"
GRADIOS_MODULES = "Blocks", "HTML"

Message = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]


def head(address: str, model: str) -> bytes:
    """Return what stands in the head of the page at an address instead of gradio's: who links it sees our own picture.

    model: the one that the page begins with, where its address names none.
    """
    tags = {
        "description": DESCRIPTION,
        "og:type": "website",
        "og:url": address,
        "og:title": TITLE,
        "og:description": DESCRIPTION,
        "og:image": f"{address.rstrip('/')}/{PREVIEW}",
        "twitter:card": "summary_large_image",
        "model": model,
    }
    written = [
        f'<meta {"property" if name.startswith("og:") else "name"}="{name}" content="{html.escape(content)}" />'
        for name, content in tags.items()
    ]
    addresses = [f"./web/{name}.js" for name in MODULES] + [f"./assets/{path.name}" for path in _gradios()]
    preloads = [f'<link rel="modulepreload" href="{each}" />' for each in addresses]
    return "\n".join([*written, EARLY, *preloads, FACE]).encode() + STYLE


@cache
def _gradios() -> list[Path]:
    """Return the modules of gradio that show our element, which it would ask for one after the other."""
    return [path for name in GRADIOS_MODULES for path in ASSETS.glob(f"{name}-*.js")]


class Head:
    """ASGI middleware: puts our own head into the page."""

    def __init__(self, app: Callable[..., Awaitable[None]], model: str) -> None:
        self.app = app
        self.model = model

    async def __call__(self, scope: Message, receive: Callable[[], Awaitable[Message]], send: Send) -> None:
        if scope["type"] != "http" or scope["path"] != "/" or scope["method"] != "GET":
            return await self.app(scope, receive, send)
        start: Message = {}
        parts: list[bytes] = []

        async def gather(message: Message) -> None:
            if message["type"] == "http.response.start":
                start.update(message)
                return
            parts.append(message.get("body", b""))
            if message.get("more_body"):
                return
            body = b"".join(parts)
            if start["status"] == 200:
                own = head(str(Request(scope).url.replace(query="", fragment="")), self.model)
                body = GRADIOS.sub(b"", body).replace(b"</head>", own + b"</head>", 1)
            kept = [(key, value) for key, value in start["headers"] if key.lower() != b"content-length"]
            await send({**start, "headers": [*kept, (b"content-length", str(len(body)).encode())]})
            await send({"type": "http.response.body", "body": body})

        return await self.app(scope, receive, gather)
