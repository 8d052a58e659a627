"""The files that a browser fetches from the page's own address: the modules of web/, and the decoders of models."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from vae.demo.models import Models

WEB = Path(__file__).with_name("web")


class Modules(StaticFiles):
    """The files of a folder, which browsers keep but ask for news of: modules of two versions don't fit together."""

    def file_response(self, full_path: str | os.PathLike[str], *arguments: Any, **options: Any) -> Response:
        response = super().file_response(full_path, *arguments, **options)
        response.headers["cache-control"] = "no-cache"
        return response


def routes(models: Models) -> list[BaseRoute]:
    """Return the routes of those files."""

    def decoder(request: Request) -> Response:
        digest = request.path_params["digest"]
        content = models.sent.get(digest)
        if content is None:
            return PlainTextResponse("there is no such decoder", status_code=404)
        headers = {"cache-control": "public, max-age=31536000, immutable", "etag": f'"{digest}"'}
        if request.headers.get("if-none-match") == headers["etag"]:
            return Response(status_code=304, headers=headers)
        return Response(content, media_type="application/octet-stream", headers=headers)

    return [Route("/web/decoders/{digest}", decoder), Mount("/web", Modules(directory=WEB))]
