"""Where weights come from and where they go: folders, the bundled models, the Hub."""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError  # the built-in one only from Python 3.11 on
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from vae.files import CONFIG, CURVES, GENERATED, LATENTS, MAX_BYTES, METRICS, PRIOR, SAMPLES, WEIGHTS, read_config

OPTIONAL = METRICS, PRIOR, LATENTS  # files that a model may lack
PATIENCE = 2.0  # seconds that a Hub has to show that it is up, before somebody who waits gets what is here already
TIMEOUT = 60.0  # seconds that a Hub may say nothing to a request that somebody waits for
REPO = re.compile(r"([\w.-]+/[\w.-]+)(?:@(\S+))?")  # owner/name, or owner/name@revision
ROOT = Path(__file__).parents[1]  # of a checkout; an installed package has nothing of ours there
# In a checkout weights/ lies beside the package, in an installed wheel inside it.
BUNDLED = next((path for path in (Path(__file__).parent / "weights", ROOT / "weights") if path.is_dir()), None)


# --- models that are here, or on the Hub -----------------------------------------------------------------------------


def bundled_names() -> list[str]:
    """Return the names of the models that come with the package, in alphabetical order."""
    return sorted(path.parent.name for path in BUNDLED.glob(f"*/{CONFIG}")) if BUNDLED else []


def is_folder(name: str | Path) -> bool:
    """Tell whether `name` is a folder that is here, whatever string it may be."""
    try:
        return bool(str(name)) and Path(name).is_dir()
    except OSError:  # longer than a path can be
        return False


def is_repo(name: str | Path) -> bool:
    """Tell whether `name` is taken for a repo on the Hub: "owner/name" or "owner/name@revision", and no folder here."""
    return not is_folder(name) and REPO.fullmatch(str(name)) is not None


def find_model(name: str | Path, **hub_options: Any) -> Path:
    """Return the folder that holds the model called `name`.

    name: a bundled name, a folder, or a Hub repo ("owner/name", "owner/name@revision").
    Only a Hub repo makes a network call; hub_options are those of `download`. Raises ValueError in one sentence.
    """
    if BUNDLED and str(name) in bundled_names():
        return BUNDLED / name
    if is_folder(name):
        return Path(name)
    repo = REPO.fullmatch(str(name))
    if repo is None:
        raise ValueError(
            f"there is no model {str(name)!r}: name a folder, a Hub repo (owner/name) or one of "
            f"{', '.join(bundled_names())}"
        )
    if repo[2] and hub_options.get("revision"):
        raise ValueError(f"{name} names a revision, and another is asked for: {hub_options['revision']}")
    return download(repo[1], **hub_options | ({"revision": repo[2]} if repo[2] else {}))


def resolve_model(name: str) -> tuple[dict[str, Any], str | None]:
    """Find out, within PATIENCE, how `find_model` gets at the model called `name`: its options, and perhaps a notice.

    A model that the Hub doesn't hand out now is taken from the cache, if it is there. Otherwise raises, in one sentence,
    ConnectionError if the Hub doesn't answer, and ValueError if there is no such model.
    """
    if not is_repo(name):
        read_config(find_model(name))
        return {}, None
    try:
        _ask(name)
    except (ConnectionError, ValueError) as error:
        try:
            find_model(name, local_files_only=True)
        except ValueError:
            raise error from None
        return {"local_files_only": True}, f"{error}. What is shown of it is the copy in the cache"
    return {}, None


def _ask(name: str) -> None:
    """Ask the Hub once whether it hands out "owner/name" or "owner/name@revision", for PATIENCE at the longest."""
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url
    from huggingface_hub.errors import FileMetadataError, HFValidationError, OfflineModeIsEnabled

    _prepare_client()
    answer: Future[None] = Future()
    repo_id, _, revision = name.partition("@")

    def run() -> None:
        try:
            if constants.is_offline_mode():
                raise OfflineModeIsEnabled
            for filename in (CONFIG, WEIGHTS):
                url = hf_hub_url(repo_id, filename, revision=revision or None)
                if get_hf_file_metadata(url, timeout=PATIENCE).commit_hash is None:
                    raise FileMetadataError
            answer.set_result(None)
        except Exception as error:  # noqa: BLE001, whatever it is, the one who asked is told
            answer.set_exception(error)

    threading.Thread(target=run, daemon=True).start()  # a name server may take longer to say that it doesn't know
    try:
        error = answer.exception(PATIENCE)
    except FutureTimeoutError:
        error = TimeoutError()
    if error is not None:
        status = _status(error)
        refused = isinstance(error, HFValidationError) or (status is not None and status < 500 and status != 429)
        raise (ValueError if refused else ConnectionError)(f"{name} could not be had: {_reason(error)}")


def download(
    repo_id: str,
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
    force_download: bool = False,
) -> Path:
    """Fetch a model from the Hub into the cache and return its folder there; the options are hf_hub_download's.

    It asks for config.json and model.safetensors, and for metrics.json, prior.safetensors and latents.safetensors, which
    may be missing: all of one commit, and nothing that could run code. The size of each is checked before it is
    fetched, that of the weights against what the config explains, and what came against its checksum.
    Raises ValueError in one sentence if something is wrong with the repo, the network or the disk.
    """
    from huggingface_hub import hf_hub_download, try_to_load_from_cache

    where = f"{repo_id} at {revision}" if revision else repo_id
    _check_token(token)
    options: dict[str, Any] = {"token": token, "cache_dir": cache_dir, "local_files_only": local_files_only}

    def fetch(filename: str, revision: str | None, most: int) -> Path:  # no request for a cached file of a commit
        with hub_errors(f"{where} could not be had"):
            size = hf_hub_download(repo_id, filename, revision=revision, dry_run=True, **options).file_size
        if size is None or size > most:
            raise ValueError(f"{where} has a {filename} of {size} bytes, and {most} are the most that it may have")
        with hub_errors(f"{where} could not be had"):
            path = hf_hub_download(repo_id, filename, revision=revision, force_download=force_download, **options)
        _verify(Path(path), where)
        return Path(path)

    def cached(filename: str, commit: str) -> Any:  # its path, None if unknown, something else if known to be missing
        return try_to_load_from_cache(repo_id, filename, cache_dir=cache_dir, revision=commit)

    folder = fetch(CONFIG, revision, MAX_BYTES[CONFIG]).parent
    commit = folder.name  # whatever is pushed meanwhile, the files fit together
    try:
        read_config(folder)
    except ValueError as error:
        raise ValueError(str(error).replace(str(folder), where)) from None
    for filename in OPTIONAL:
        if not force_download and not isinstance(cached(filename, commit), str | None):
            continue
        try:
            fetch(filename, commit, MAX_BYTES[filename])
        except MissingError as error:
            if not error.is_certain and cached(WEIGHTS, commit) is None:
                raise  # out of reach, and nothing to fall back on
    fetch(WEIGHTS, commit, MAX_BYTES[WEIGHTS])  # last: who has them in the cache has all the rest
    return folder


class MissingError(ValueError):
    """A file that the repo lacks (that is certain), or that is neither in the cache nor within reach."""

    is_certain: bool = False


def _verify(path: Path, where: str) -> None:
    """Compare a file of the cache with its checksum, which is the name of what it links to: SHA-256, or git's SHA-1."""
    blob = path.resolve()
    content = blob.read_bytes()
    header = b"" if len(blob.name) == 64 else b"blob %d\0" % len(content)
    digest = {64: hashlib.sha256, 40: hashlib.sha1}.get(len(blob.name))
    if digest is not None and digest(header + content).hexdigest() != blob.name:
        path.unlink()
        blob.unlink(missing_ok=True)
        raise ValueError(f"{where} has a {path.name} that was damaged on its way or on this disk: load it once more")


def _prepare_client() -> None:
    """Let the Hub's client give up on a Hub that says nothing, and say nothing itself of where it runs.

    Without the first it would wait for ever. Without the second it asks the Hub, even for what is in the cache, by
    which signs to tell who started it, and reports that in every request.
    """
    from huggingface_hub import constants
    from huggingface_hub.utils import get_session, httpx

    constants.HF_HUB_DISABLE_TELEMETRY = True
    get_session().timeout = httpx.Timeout(TIMEOUT)


def _check_token(token: str | bool | None) -> None:
    """Raise ValueError, without showing it, if a token can't be sent: it may have come with the end of its line."""
    if isinstance(token, str) and not re.fullmatch(r"[!-~]+", token):
        raise ValueError("a token has no spaces, line ends or accents: copy it once more")


@contextmanager
def hub_errors(what: str) -> Iterator[None]:
    """Turn whatever the Hub's client raises in this block into a ValueError: what, and the reason in a few words.

    The cause isn't chained to it: its text may hold the token.
    """
    from huggingface_hub.errors import EntryNotFoundError, RemoteEntryNotFoundError

    try:
        _prepare_client()
        yield
    except EntryNotFoundError as error:
        missing = MissingError(f"{what}: {_reason(error)}")
        missing.is_certain = isinstance(error, RemoteEntryNotFoundError)
        raise missing from None
    except Exception as error:  # noqa: BLE001, since all kinds come through: of sockets, proxies, JSON, files
        raise ValueError(f"{what}: {_reason(error)}") from None


def _status(error: BaseException) -> int | None:
    """Return the status of the HTTP answer that an error is about, if it is about one."""
    return getattr(getattr(error, "response", None), "status_code", None)


def _reason(error: BaseException) -> str:
    """Say in a few words what was wrong, and what to do; nothing of the request is repeated, it may hold a token."""
    from huggingface_hub import errors
    from huggingface_hub.utils import httpx

    status = _status(error)
    if isinstance(error, errors.GatedRepoError):
        return "its owner lets in only who has accepted its conditions: do so on its page, then `hf auth login`"
    if isinstance(error, errors.RepositoryNotFoundError):
        return "there is no such repo, or not for everybody: check the name, or log in with `hf auth login`"
    if isinstance(error, errors.RevisionNotFoundError):
        return "it has no such revision"
    if isinstance(error, errors.RemoteEntryNotFoundError):
        return f"it lacks {CONFIG} or {WEIGHTS}, and nothing else is loaded: pickles can run code"
    if isinstance(error, errors.LocalTokenNotFoundError):
        return "that needs a token: log in with `hf auth login`, or set HF_TOKEN"
    if isinstance(error, errors.OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE is set"
    if isinstance(error, errors.HFValidationError):
        return "that is no name of a repo"
    if status == 401:
        return "the Hub doesn't know this token: `hf auth login` with another"
    if status == 403:
        return "this token may not do that: make one that may on the Hub's page of tokens, then `hf auth login`"
    if status is not None:
        return f"the Hub answered {status}: " + ("try again later" if status in (408, 429) or status >= 500 else "no")
    if isinstance(error, errors.LocalEntryNotFoundError):
        return "it is not in the cache" + (f", and {_reason(error.__cause__)}" if error.__cause__ else "")
    if isinstance(error, RuntimeError | ValueError) and isinstance(error.__cause__, OSError | httpx.HTTPError):
        return _reason(error.__cause__)  # the client's own words add nothing to it
    if isinstance(error, OSError) and error.strerror:  # "No space left on device", for one
        return error.strerror + (f" ({error.filename})" if error.filename else "")
    if isinstance(error, OSError | httpx.HTTPError) and not isinstance(error, errors.FileMetadataError):
        return f"the Hub can't be reached, or the connection broke ({type(error).__name__}): check the network"
    return f"what answers is no Hub ({type(error).__name__}): check the network, a proxy, HF_ENDPOINT"


# --- to the Hub ------------------------------------------------------------------------------------------------------

PUSHED = (
    CONFIG,
    WEIGHTS,
    PRIOR,
    LATENTS,
    METRICS,
    SAMPLES,
    CURVES,
    GENERATED,
)  # what of a folder goes there; the card is made anew


def check_write(repo_id: str, *, private: bool | None = None, token: str | None = None) -> None:
    """Create the repo if it isn't there yet, and make sure that the token may write to it.

    To be called before hours of training. Raises ValueError in one sentence if a push would be refused.
    """
    api = _api(repo_id, token)
    with hub_errors(f"{repo_id} can't be pushed to"):
        access = (api.whoami().get("auth") or {}).get("accessToken") or {}
    if access.get("role") == "read":
        raise ValueError(
            f"{repo_id} can't be pushed to: this token may only read, log in with one that may write (`hf auth login`)"
        )
    with hub_errors(f"{repo_id} can't be pushed to"):
        api.create_repo(repo_id, private=private, exist_ok=True)
        api.auth_check(repo_id, write=True)


def push_files(
    files: dict[str, bytes],
    repo_id: str,
    *,
    private: bool | None = None,
    revision: str | None = None,
    commit_message: str = "Upload model",
    create_pr: bool = False,
    token: str | None = None,
    repo_type: Literal["model", "space"] = "model",
) -> str:
    """Put files, by name, into a repo on the Hub in one commit, and return the address of the commit or pull request.

    The repo and the branch are created if they are missing, `private` or not. What an earlier push left there and this
    one doesn't have (the prior of other weights, say) goes in the same commit. Raises ValueError in one sentence.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    api = _api(repo_id, token)
    sdk = {"space_sdk": "gradio"} if repo_type == "space" else {}
    ours = (
        (lambda name: name in PUSHED) if repo_type == "model" else (lambda name: name.startswith(("vae/", "weights/")))
    )
    with hub_errors(f"{repo_id} could not be pushed to"):
        if not create_pr:
            api.create_repo(repo_id, private=private, exist_ok=True, repo_type=repo_type, **sdk)
            if revision and not revision.startswith("refs/"):
                api.create_branch(repo_id, branch=revision, exist_ok=True, repo_type=repo_type)
        there = api.list_repo_files(repo_id, revision=revision, repo_type=repo_type)
        done = api.create_commit(
            repo_id,
            [CommitOperationAdd(name, content) for name, content in files.items()]
            + [CommitOperationDelete(name) for name in there if ours(name) and name not in files],
            commit_message=commit_message,
            revision=revision,
            create_pr=create_pr,
            repo_type=repo_type,
        )
    return done.pr_url or done.commit_url


def _api(repo_id: str, token: str | None) -> Any:
    """Make a client of the Hub. Raises ValueError if repo_id names no owner: it would land anywhere."""
    from huggingface_hub import HfApi

    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repo_id):
        raise ValueError(f"a repo on the Hub is called owner/name, got {repo_id!r}")
    _check_token(token)
    return HfApi(token=token)
