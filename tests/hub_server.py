"""A Hub on loopback that lets the real client download: public, private and gated repos, and tokens."""

from __future__ import annotations

import hashlib
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route


@dataclass
class Repo:
    files: dict[str, bytes]
    private: bool = False
    gated: bool = False

    @property
    def sha(self) -> str:
        return hashlib.sha1(repr(sorted(self.files.items())).encode()).hexdigest()


@dataclass
class Hub:
    """The state of the server, for tests to set up and to look at."""

    repos: dict[str, Repo] = field(default_factory=dict)  # by "owner/name"
    tokens: set[str] = field(default_factory=set)
    log: list[str] = field(default_factory=list)  # method and path of every request
    url: str = ""

    async def resolve(self, request: Request) -> Response:
        """Answer HEAD and GET of /owner/name/resolve/revision/path as the real Hub does."""
        self.log.append(f"{request.method} {request.url.path}")
        at = request.path_params
        repo = self.repos.get(f"{at['owner']}/{at['name']}")
        sent = request.headers.get("authorization", "").removeprefix("Bearer ")
        if sent and sent not in self.tokens:
            return refuse(401, message="Invalid credentials in Authorization header")
        if repo is None or (repo.private and not sent):
            return refuse(404 if sent else 401, "RepoNotFound")
        if repo.gated and not sent:
            return refuse(403, "GatedRepo")
        if at["revision"] not in ("main", repo.sha):
            return refuse(404, "RevisionNotFound")
        content = repo.files.get(at["path"])
        if content is None:
            return Response(None, 404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": repo.sha})
        etag = hashlib.sha256(content).hexdigest()
        return Response(content, headers={"X-Repo-Commit": repo.sha, "ETag": f'"{etag}"'})


def refuse(status: int, code: str = "", message: str = "") -> Response:
    return JSONResponse({"error": message}, status, {"X-Error-Code": code, "X-Error-Message": message or code})


@contextmanager
def serve() -> Iterator[Hub]:
    """Run a Hub on a free port of loopback for as long as the block lasts."""
    hub = Hub()
    path = "/{owner}/{name}/resolve/{revision}/{path:path}"
    app = Starlette(routes=[Route(path, hub.resolve, methods=["GET", "HEAD"])])
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        hub.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        server = uvicorn.Server(uvicorn.Config(app, log_level="critical", lifespan="off"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield hub
        finally:
            server.should_exit = True
            thread.join()
