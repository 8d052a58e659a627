"""A Hub on loopback that speaks what the real client speaks: models and Spaces, tokens, LFS, commits, and faults."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any
from urllib.parse import unquote

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

BINARY = (".safetensors", ".png", ".bin")  # what the Hub keeps as LFS


@dataclass
class Repo:
    """A repo whose main branch holds files; earlier commits stay to be had by their names."""

    files: dict[str, bytes] = field(default_factory=dict)
    private: bool = False
    gated: bool = False
    branches: dict[str, dict[str, bytes]] = field(default_factory=dict)  # all but main
    commits: list[dict[str, Any]] = field(default_factory=list)  # what came by the wire: branch, message, paths

    def at(self, revision: str) -> dict[str, bytes] | None:
        """Return the files of a branch or of the commit that a branch is at."""
        for name, files in {"main": self.files, **self.branches}.items():
            if revision in (name, commit_of(files)):
                return files
        return None

    @property
    def sha(self) -> str:
        return commit_of(self.files)


def commit_of(files: dict[str, bytes]) -> str:
    return _digest(tuple(sorted(files.items())))


@lru_cache(maxsize=32)
def _digest(files: tuple[tuple[str, bytes], ...]) -> str:
    return hashlib.sha1(repr(files).encode()).hexdigest()  # which takes its time, and every request asks for it


@dataclass
class Account:
    """Whose token it is, and what it may do."""

    name: str
    organizations: tuple[str, ...] = ()
    role: str = "write"


@dataclass
class Hub:
    """The state of the server, for tests to set up and to look at."""

    repos: dict[str, Repo] = field(default_factory=dict)  # by "owner/name"
    spaces: dict[str, Repo] = field(default_factory=dict)
    accounts: dict[str, Account] = field(default_factory=dict)  # by token
    stored: dict[str, bytes] = field(default_factory=dict)  # LFS objects, by SHA-256
    uses_lfs: bool = True  # with Xet on, the client would send such files to a server of another kind
    log: list[str] = field(default_factory=list)  # method and path of every request
    fault: Callable[[Request], Response | None] = lambda request: None  # called first; may answer in place of the Hub
    url: str = ""

    def reset(self) -> None:
        """Forget everything but the address."""
        self.__dict__.update(vars(Hub(url=self.url)))

    def kind(self, request: Request) -> dict[str, Repo]:
        return self.spaces if "/spaces/" in request.url.path else self.repos

    def find(self, request: Request, write: bool = False) -> tuple[str, Repo]:
        """Return the name and the repo that a request is about. Raises RefusalError as the real Hub refuses."""
        name = f"{request.path_params['owner']}/{request.path_params['name']}"
        account = self.account(request)
        repo = self.kind(request).get(name)
        mine = account is not None and name.partition("/")[0] in (account.name, *account.organizations)
        if repo is None or (repo.private and not mine):
            raise RefusalError(404 if account else 401, "RepoNotFound")
        if repo.gated and not mine:
            raise RefusalError(403, "GatedRepo")
        if write and (account is None or not mine or account.role != "write"):
            raise RefusalError(403, message="Forbidden: you may not write here")
        return name, repo

    def account(self, request: Request) -> Account | None:
        sent = request.headers.get("authorization", "").removeprefix("Bearer ")
        if sent and sent not in self.accounts:
            raise RefusalError(401, message="Invalid credentials in Authorization header")
        return self.accounts.get(sent)

    # --- reading ---

    async def resolve(self, request: Request) -> Response:
        """HEAD, GET /[spaces/]owner/name/resolve/revision/path: a file itself, or where its bytes are."""
        _, repo = self.find(request)
        revision = request.scope["raw_path"].decode().partition("/resolve/")[2].partition("/")[0]
        files = repo.at(unquote(revision))  # one with a slash comes as %2F
        if files is None:
            raise RefusalError(404, "RevisionNotFound")
        commit = {"X-Repo-Commit": commit_of(files)}
        path = request.path_params["rest"].removeprefix(unquote(revision) + "/")
        if path not in files:
            return Response(None, 404, commit | {"X-Error-Code": "EntryNotFound"})
        content = files[path]
        if not path.endswith(BINARY):
            etag = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
            return Response(content, headers=commit | {"ETag": f'"{etag}"'})
        oid = hashlib.sha256(content).hexdigest()
        self.stored.setdefault(oid, content)
        linked = {"X-Linked-Etag": f'"{oid}"', "X-Linked-Size": str(len(content))}
        return Response(None, 302, commit | linked | {"Location": self.cdn_url(oid)})

    def cdn_url(self, oid: str) -> str:
        """Return where an LFS object is: on another host than the Hub, as in life, so that no token goes there."""
        return f"{self.url.replace('127.0.0.1', 'localhost')}/cdn/{oid}"

    async def cdn(self, request: Request) -> Response:
        """HEAD, GET, PUT /cdn/oid: the bytes of an LFS object."""
        assert "authorization" not in request.headers
        oid = request.path_params["oid"]
        if request.method == "PUT":
            content = await request.body()
            if hashlib.sha256(content).hexdigest() != oid:
                return Response(None, 400)
            self.stored[oid] = content
            return Response(None, 200)
        return Response(self.stored[oid], headers={"ETag": f'"{oid}"'})

    async def info(self, request: Request) -> Response:
        """GET /api/models/owner/name, with /revision/REV or /tree/REV: what there is."""
        name, repo = self.find(request)
        files = repo.at(request.path_params.get("revision", "main"))
        if files is None:
            raise RefusalError(404, "RevisionNotFound")
        if "/tree/" in request.url.path:
            return JSONResponse(
                [
                    {"type": "file", "path": path, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
                    for path, content in files.items()
                ]
            )
        siblings = [{"rfilename": path} for path in files]
        return JSONResponse({"id": name, "sha": commit_of(files), "siblings": siblings, "private": repo.private})

    # --- who may do what ---

    async def whoami(self, request: Request) -> Response:
        account = self.account(request)
        if account is None:
            raise RefusalError(401)
        organizations = [{"type": "org", "name": name} for name in account.organizations]
        token = {"accessToken": {"displayName": "a token", "role": account.role}}
        return JSONResponse({"type": "user", "name": account.name, "orgs": organizations, "auth": token})

    async def auth_check(self, request: Request) -> Response:
        self.find(request, write=request.url.path.endswith("/write"))
        return JSONResponse({})

    # --- writing ---

    async def create(self, request: Request) -> Response:
        """POST /api/repos/create"""
        wanted = await request.json()
        account = self.account(request)
        if account is None:
            raise RefusalError(401)
        owner = wanted.get("organization") or account.name
        name = f"{owner}/{wanted['name']}"
        is_space = wanted.get("type") == "space"
        assert not is_space or wanted["sdk"] == "gradio"
        repos = self.spaces if is_space else self.repos
        answer = {"url": f"{self.url}/{'spaces/' if is_space else ''}{name}", "name": name}
        if name in repos:
            return JSONResponse(answer | {"error": "You already created this repo"}, 409)
        if owner not in (account.name, *account.organizations) or account.role != "write":
            raise RefusalError(403, message=f"You don't have the rights to create a repo under the namespace {owner}")
        repos[name] = Repo(private=wanted.get("visibility") == "private")
        return JSONResponse(answer)

    async def validate(self, request: Request) -> Response:
        """POST /api/validate-yaml"""
        assert (await request.json())["content"].startswith("---\n")
        return JSONResponse({"errors": [], "warnings": []})

    async def branch(self, request: Request) -> Response:
        """POST /api/models/owner/name/branch/BRANCH"""
        _, repo = self.find(request, write=True)
        branch = request.path_params["branch"]
        if branch.startswith("refs/"):
            raise RefusalError(400, message="Invalid reference for a branch")
        if repo.at(branch) is not None:
            return JSONResponse({"error": "exists"}, 409)
        repo.branches[branch] = dict(repo.files)
        return JSONResponse({})

    async def preupload(self, request: Request) -> Response:
        """POST /api/models/owner/name/preupload/REV: which files go as LFS."""
        self.find(request)
        files = (await request.json())["files"]
        modes = {
            file["path"]: "lfs" if self.uses_lfs and file["path"].endswith(BINARY) else "regular" for file in files
        }
        return JSONResponse(
            {"files": [{"path": path, "uploadMode": mode, "shouldIgnore": False} for path, mode in modes.items()]}
        )

    async def batch(self, request: Request) -> Response:
        """POST /owner/name.git/info/lfs/objects/batch: where the bytes go."""
        wanted = await request.json()
        answers = []
        for item in wanted["objects"]:
            upload = {"upload": {"href": self.cdn_url(item["oid"])}}
            answers.append(item if item["oid"] in self.stored else item | {"actions": upload})
        return JSONResponse({"transfer": "basic", "objects": answers})

    async def commit(self, request: Request) -> Response:
        """POST /api/models/owner/name/commit/REV: a line of JSON for the message and for each file."""
        is_pull_request = request.query_params.get("create_pr") == "1"
        name, repo = self.find(request, write=not is_pull_request)
        branch = request.path_params["revision"]
        before = repo.at(branch)
        if before is None:
            raise RefusalError(404, "RevisionNotFound")
        files, record = dict(before), {"branch": branch, "message": "", "paths": set(), "deleted": set()}
        for line in (await request.body()).splitlines():
            part = json.loads(line)
            value = part["value"]
            if part["key"] == "header":
                record["message"] = value["summary"]
            elif part["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif part["key"] == "lfsFile":
                files[value["path"]] = self.stored[value["oid"]]
            elif part["key"] == "deletedFile":
                del files[value["path"]]
            record["deleted" if part["key"] == "deletedFile" else "paths"].add(value.get("path"))
        record["paths"].discard(None)
        number = len(repo.commits) + 1
        repo.commits.append(record)
        if is_pull_request:
            repo.branches[f"refs/pr/{number}"] = files
        elif branch == "main":
            repo.files = files
        else:
            repo.branches[branch] = files
        answer = {"commitOid": commit_of(files), "commitUrl": f"{self.url}/{name}/commit/{commit_of(files)}"}
        if is_pull_request:
            answer["pullRequestUrl"] = f"{self.url}/{name}/discussions/{number}"
        return JSONResponse(answer)

    def routes(self) -> list[Route]:
        def get(path: str, answer: Any) -> Route:
            return Route(path, self.guarded(answer), methods=["GET", "HEAD"])

        def post(path: str, answer: Any) -> Route:
            return Route(path, self.guarded(answer), methods=["POST"])

        repo = "/{owner}/{name}"
        routes = [
            get("/api/whoami-v2", self.whoami),
            post("/api/repos/create", self.create),
            post("/api/validate-yaml", self.validate),
            Route("/cdn/{oid}", self.guarded(self.cdn), methods=["GET", "HEAD", "PUT"]),
        ]
        for kind in ("/api/models", "/api/spaces"):
            routes += [
                get(kind + repo, self.info),
                get(kind + repo + "/revision/{revision:path}", self.info),
                get(kind + repo + "/tree/{revision:path}", self.info),
                get(kind + repo + "/auth-check", self.auth_check),
                get(kind + repo + "/auth-check/write", self.auth_check),
                post(kind + repo + "/preupload/{revision:path}", self.preupload),
                post(kind + repo + "/commit/{revision:path}", self.commit),
                post(kind + repo + "/branch/{branch:path}", self.branch),
            ]
        for prefix in ("", "/spaces"):
            routes += [
                post(prefix + "/{owner}/{name}.git/info/lfs/objects/batch", self.batch),
                get(prefix + repo + "/resolve/{rest:path}", self.resolve),
            ]
        return [*routes, Route("/{path:path}", self.guarded(self.unknown), methods=["GET", "HEAD", "POST", "PUT"])]

    async def unknown(self, request: Request) -> Response:
        return Response(None, 404)

    def guarded(self, answer: Any) -> Any:
        """Log a request, let a fault come first, and turn a refusal into the answer that it is on the real Hub."""

        async def guard(request: Request) -> Response:
            self.log.append(f"{request.method} {request.url.path}")
            try:
                return await asyncio.to_thread(self.fault, request) or await answer(request)
            except RefusalError as refusal:
                return refusal.answer()

        return guard


class RefusalError(Exception):
    """A request that is not granted."""

    def __init__(self, status: int, code: str = "", message: str = "") -> None:
        self.status, self.code, self.message = status, code, message

    def answer(self) -> Response:
        headers = {"X-Error-Code": self.code, "X-Error-Message": self.message or self.code}
        return JSONResponse({"error": self.message}, self.status, headers)


def cut_short(content: bytes) -> Response:
    """Make an answer that promises content and hangs up after half of it."""

    async def half() -> AsyncIterator[bytes]:
        yield content[: len(content) // 2]
        raise ConnectionResetError

    return StreamingResponse(half(), headers={"Content-Length": str(len(content))})


@contextmanager
def serve() -> Iterator[Hub]:
    """Run a Hub on a free port of loopback for as long as the block lasts."""
    hub = Hub()
    app = Starlette(routes=hub.routes())
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        hub.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        # The client lets an idle connection go after 5 s. Were that the server's time, too, it could hang up on a request.
        config = uvicorn.Config(app, log_level="critical", lifespan="off", timeout_keep_alive=60)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield hub
        finally:
            server.should_exit = True
            server.force_exit = True
            thread.join()
