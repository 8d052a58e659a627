"""Where models come from and where they go: folders, bundled models, the Hub. Errors are ValueErrors in one sentence."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

import huggingface_hub
from huggingface_hub import DryRunFileInfo, HfApi, constants, errors
from huggingface_hub.utils import get_session, httpx, tqdm

from vae.files import CONFIG, CURVES, GENERATED, LATENTS, MAP, MAX_BYTES, METRICS, PRIOR, SAMPLES, WEIGHTS, read_config

PUSHED = (CONFIG, WEIGHTS, PRIOR, LATENTS, MAP, METRICS, SAMPLES, CURVES, GENERATED)  # and a card, which is made anew
PROBE_SECONDS = 2.0  # after which the Hub counts as down for somebody who waits for the page
SILENCE_SECONDS = 60.0  # after which a request fails
REPO = r"[\w.-]+/[\w.-]+"
NAME = re.compile(rf"({REPO})(?:@(\S+))?")
ROOT = Path(__file__).parents[1]  # of a checkout; an installed package has nothing of ours there
# In a checkout weights/ lies beside the package, in an installed wheel inside it.
BUNDLED = next((path for path in (Path(__file__).parent / "weights", ROOT / "weights") if path.is_dir()), None)


def bundled_names() -> list[str]:
    """Return the names of the models that come with the package, in alphabetical order."""
    return sorted(path.parent.name for path in BUNDLED.glob(f"*/{CONFIG}")) if BUNDLED else []


def is_folder(name: str | Path) -> bool:
    """Return whether `name` is a folder that exists, whatever string it may be."""
    try:
        return bool(str(name)) and Path(name).is_dir()
    except OSError:  # longer than a path can be
        return False


def find_model(name: str | Path, *, revision: str | None = None, **hub_options: Any) -> Path:
    """Return the folder of the model called `name`: a folder, a bundled name, or a Hub repo (owner/name[@revision]).

    A folder that holds no model doesn't hide a bundled model of its name, unless it is given as a Path. Only a Hub repo makes
    network requests; hub_options are those of `_download`. Raises ValueError if there is no such model.
    """
    is_bundled = not isinstance(name, Path) and name in bundled_names()
    if is_bundled or is_folder(name):
        if revision:
            raise ValueError(f"only a Hub repo has revisions, and {name} is none: leave out {revision}")
        return BUNDLED / name if BUNDLED and is_bundled and not Path(name, CONFIG).is_file() else Path(name)
    repo = None if isinstance(name, Path) else NAME.fullmatch(name)  # a Path names a folder, however it looks
    if repo is None:
        choices = f"a folder, a Hub repo (owner/name) or one of {', '.join(bundled_names())}"
        raise ValueError(f"there is no model {str(name)!r}: name {choices}")
    if repo[2] and revision:
        raise ValueError(f"{name} names a revision, and another is asked for: {revision}")
    return _download(repo[1], repo[2] or revision, **hub_options)


def resolve_model(name: str) -> tuple[dict[str, Any], str | None]:
    """Find out within PROBE_SECONDS how to load a model: the options for `find_model`, and perhaps a notice.

    Without the Hub, the cache serves; without both, ConnectionError. ValueError if the Hub refuses.
    """
    if is_folder(name) or not NAME.fullmatch(name):
        read_config(find_model(name))
        return {}, None
    try:
        _probe(name)
    except (ConnectionError, ValueError) as error:
        try:
            find_model(name, local_files_only=True)
        except ValueError:
            raise error from None
        return {"local_files_only": True}, f"{error}. The page shows the copy in the cache"
    return {}, None


def _probe(name: str) -> None:
    """Ask the Hub, for at most PROBE_SECONDS, whether it hands out the model "owner/name" or "owner/name@revision"."""
    repo_id, _, revision = name.partition("@")
    answer: SimpleQueue[Exception | None] = SimpleQueue()

    def ask() -> None:
        try:
            for filename in (CONFIG, WEIGHTS):
                url = huggingface_hub.hf_hub_url(repo_id, filename, revision=revision or None)
                if huggingface_hub.get_hf_file_metadata(url, timeout=PROBE_SECONDS).commit_hash is None:
                    raise errors.FileMetadataError
            answer.put(None)
        except Exception as error:  # noqa: BLE001, of whatever kind, it goes to the thread that waits
            answer.put(error)

    _prepare_client()
    threading.Thread(target=ask, daemon=True).start()  # a name server may take longer to say that it doesn't know
    try:
        error = answer.get(timeout=PROBE_SECONDS)
    except Empty:
        error = TimeoutError()
    if error is not None:
        raise (ValueError if _is_refusal(error) else ConnectionError)(f"{name} can't be loaded: {_reason(error)}")


def _download(
    repo_id: str, revision: str | None, local_files_only: bool = False, force_download: bool = False, **options: Any
) -> Path:
    """Fetch a model from the Hub into the cache and return its folder; the options are those of `snapshot_download`.

    Only the files of MAX_BYTES are fetched, none that could run code, after a look at their sizes, and all of one commit.
    If the Hub doesn't answer, the cache serves.
    """
    with hub_errors(f"{repo_id}@{revision} can't be loaded" if revision else f"{repo_id} can't be loaded"):
        api = _api(repo_id, options.pop("token", None))
        snapshot: Any = partial(
            api.snapshot_download, repo_id, revision=revision, allow_patterns=[*MAX_BYTES], **options
        )
        if local_files_only:
            return Path(snapshot(local_files_only=True))
        ref = _ref(repo_id, revision, options.get("cache_dir"))
        before = ref.read_bytes() if ref.is_file() else None
        try:
            files: list[DryRunFileInfo] = snapshot(dry_run=True, tqdm_class=partial(tqdm, disable=True))
        except Exception as error:
            if force_download or isinstance(error, errors.RevisionNotFoundError):
                raise
            try:
                return Path(snapshot(local_files_only=True))
            except errors.LocalEntryNotFoundError:
                raise error from error.__cause__
        try:
            if not {CONFIG, WEIGHTS} <= {file.filename for file in files}:
                raise HubError(NO_MODEL)
            for file in files:
                if file.file_size is None or file.file_size > MAX_BYTES[file.filename]:
                    raise HubError(f"its {file.filename} has more than the {MAX_BYTES[file.filename]:,} bytes allowed")
            if force_download or not all(Path(file.local_path).exists() for file in files):
                # By the commit, so that the files fit together, whatever is pushed meanwhile.
                snapshot(revision=files[0].commit_hash, force_download=force_download)
        except BaseException:
            if before is not None:  # the cache still holds what it held, not the half of a newer commit
                ref.write_bytes(before)
            raise
    return Path(files[0].local_path).parent


def _ref(repo_id: str, revision: str | None, cache_dir: str | Path | None) -> Path:
    """Return the file of the Hub's cache that says at which commit a branch is; a look at the Hub rewrites it."""
    folder = huggingface_hub.file_download.repo_folder_name(repo_id=repo_id, repo_type="model")
    return Path(cache_dir or constants.HF_HUB_CACHE, folder, "refs", revision or "main")


def _prepare_client() -> None:
    """Let no request of the Hub's client wait for ever, nor any report what started it, which takes requests, too."""
    constants.HF_HUB_DISABLE_TELEMETRY = True
    hooks = get_session().event_hooks["request"]
    if _limit_silence not in hooks:
        hooks.append(_limit_silence)


def _limit_silence(request: httpx.Request) -> None:
    """Set SILENCE_SECONDS as the limit of a request that the client gave none."""
    limits = request.extensions["timeout"]
    limits |= {phase: SILENCE_SECONDS for phase, seconds in limits.items() if seconds is None}


class HubError(Exception):
    """A reason in words of our own."""


NO_MODEL = f"it lacks {CONFIG} or {WEIGHTS}, and nothing else is loaded: pickles can run code"
WRAPPERS = (RuntimeError, ValueError, errors.DryRunError, errors.LocalEntryNotFoundError)  # they add nothing to a cause
REASONS: dict[type[Exception] | int, str] = {  # by class, the first that fits, or by HTTP status
    errors.GatedRepoError: "it is gated: accept its conditions on its page, then `hf auth login`",
    errors.RepositoryNotFoundError: "there is no such repo, or it is private: check the name, or `hf auth login`",
    errors.RevisionNotFoundError: "it has no such revision",
    errors.RemoteEntryNotFoundError: NO_MODEL,
    errors.LocalTokenNotFoundError: "that needs a token: log in with `hf auth login`, or set HF_TOKEN",
    errors.LocalEntryNotFoundError: "it is not in the cache",
    errors.OfflineModeIsEnabled: "HF_HUB_OFFLINE is set",
    errors.HFValidationError: "that is not a valid repo name",
    401: "the Hub doesn't know this token: `hf auth login` with another",
    403: "this token lacks the permission: create another in the Hub's settings, then `hf auth login`",
}


@contextmanager
def hub_errors(what: str) -> Iterator[None]:
    """Turn whatever is raised in this block into a ValueError, without its cause, whose text may hold the token."""
    try:
        _prepare_client()
        yield
    except Exception as error:  # noqa: BLE001, since all kinds come through: of sockets, proxies, JSON, files
        raise ValueError(f"{what}: {_reason(error)}") from None


def _is_refusal(error: BaseException) -> bool:
    """Return whether asking again later is of no use."""
    status = error.response.status_code if isinstance(error, errors.HfHubHTTPError) else 503
    return isinstance(error, errors.HFValidationError) or (status < 500 and status not in (408, 429))


def _reason(error: BaseException) -> str:
    """Say in a few words what was wrong, and what to do; nothing of the request is repeated, it may hold a token."""
    if isinstance(error, WRAPPERS) and error.__cause__:
        return _reason(error.__cause__)
    status = error.response.status_code if isinstance(error, errors.HfHubHTTPError) else None
    for kind, words in REASONS.items():
        if status == kind or (isinstance(kind, type) and isinstance(error, kind)):
            return words
    if status is not None:
        return f"the Hub answered {status}: {'no' if _is_refusal(error) else 'try again later'}"
    if isinstance(error, HubError):
        return str(error)
    if isinstance(error, OSError) and error.strerror:  # "No space left on device", for one
        return error.strerror + (f" ({error.filename})" if error.filename else "")
    if isinstance(error, OSError | httpx.HTTPError) and not isinstance(error, errors.FileMetadataError):
        return f"the Hub can't be reached, or the connection broke ({type(error).__name__}): check the network"
    return f"the server that answered is not a Hub ({type(error).__name__}): check the network, a proxy, HF_ENDPOINT"


def check_write(repo_id: str, *, private: bool | None = None, token: str | None = None) -> None:
    """Make sure, before hours of training, that the token may write to the repo, which is created if need be."""
    with hub_errors(f"{repo_id} can't be pushed to"):
        api = _api(repo_id, token)
        access = (api.whoami().get("auth") or {}).get("accessToken") or {}
        if access.get("role") == "read":
            raise HubError("this token is read-only: log in with a write token (`hf auth login`)")
        api.create_repo(repo_id, private=private, exist_ok=True)
        api.auth_check(repo_id, write=True)


def push_files(
    files: dict[str, bytes], repo: str, *, space: bool = False, private: bool | None, token: str | None, **commit: Any
) -> str:
    """Put files, by name, into a repo on the Hub in one commit, and return the address of the commit or pull request.

    commit: commit_message, revision and create_pr of `HfApi.create_commit`.
    The repo and the branch are created if they are missing, `private` or not. The same commit deletes what an earlier
    push left there and this one lacks, such as the prior of other weights.
    """
    repo_type, sdk, revision = "space" if space else "model", "gradio" if space else None, commit.get("revision")
    with hub_errors(f"{repo} can't be pushed to"):
        api = _api(repo, token)
        if not commit.get("create_pr"):
            api.create_repo(repo, private=private, exist_ok=True, repo_type=repo_type, space_sdk=sdk)
            if revision and not revision.startswith("refs/"):
                api.create_branch(repo, branch=revision, exist_ok=True, repo_type=repo_type)
        there = api.list_repo_files(repo, revision=revision, repo_type=repo_type)
        ours = [name for name in there if (name.startswith(("vae/", "weights/")) if space else name in PUSHED)]
        changes: list[Any] = [huggingface_hub.CommitOperationAdd(name, content) for name, content in files.items()]
        changes += [huggingface_hub.CommitOperationDelete(name) for name in ours if name not in files]
        done = api.create_commit(repo, changes, repo_type=repo_type, **commit)
    return done.pr_url or done.commit_url


def _api(repo_id: str, token: str | bool | None) -> HfApi:
    """Make a client of the Hub. Refuses a repo_id without an owner, and, without showing it, a token that can't be sent."""
    if not re.fullmatch(REPO, repo_id):
        raise HubError(f"a repo on the Hub is called owner/name, got {repo_id!r}")
    if isinstance(token, str) and not re.fullmatch(r"[!-~]+", token):  # one copied with its line end, perhaps
        raise HubError("a token has no spaces, line ends or accents: copy it once more")
    return HfApi(token=token)
