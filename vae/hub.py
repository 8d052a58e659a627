"""Where weights come from and where they go: folders, the bundled models, the Hub."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
import shutil
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError  # the built-in one only from Python 3.11 on
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from vae.card import CURVES, GENERATED, PRIOR, SAMPLES, model_card
from vae.generate import generate
from vae.images import enlarge, grid
from vae.latent import AttributePrior, load_directions, save_directions
from vae.model import VAE, VAEConfig
from vae.prior import MAX_NUMBERS, StandardNormal, load_prior, save_prior

CONFIG, WEIGHTS, METRICS, LATENTS = "config.json", "model.safetensors", "metrics.json", "latents.safetensors"
CARD = "README.md"
MAX_CONFIG_BYTES = 100_000
HEADER_BYTES = 1_000_000  # more than the header of a safetensors file of ours
# The files that may be missing, and how many bytes each may have.
OPTIONAL = {METRICS: 1_000_000, PRIOR: 4 * MAX_NUMBERS + HEADER_BYTES, LATENTS: 50_000_000}
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


def look_for(name: str) -> tuple[dict[str, Any], str | None]:
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
        with explained(f"{where} could not be had"):
            size = hf_hub_download(repo_id, filename, revision=revision, dry_run=True, **options).file_size
        if size is None or size > most:
            raise ValueError(f"{where} has a {filename} of {size} bytes, and {most} are the most that it may have")
        with explained(f"{where} could not be had"):
            path = hf_hub_download(repo_id, filename, revision=revision, force_download=force_download, **options)
        _verify(Path(path), where)
        return Path(path)

    def cached(filename: str, commit: str) -> Any:  # its path, None if unknown, something else if known to be missing
        return try_to_load_from_cache(repo_id, filename, cache_dir=cache_dir, revision=commit)

    folder = fetch(CONFIG, revision, MAX_CONFIG_BYTES).parent
    commit = folder.name  # whatever is pushed meanwhile, the files fit together
    try:
        config = read_config(folder)
    except ValueError as error:
        raise ValueError(str(error).replace(str(folder), where)) from None
    for filename, most in OPTIONAL.items():
        if not force_download and not isinstance(cached(filename, commit), str | None):
            continue
        try:
            fetch(filename, commit, most)
        except MissingError as error:
            if not error.is_certain and cached(WEIGHTS, commit) is None:
                raise  # out of reach, and nothing to fall back on
    with torch.device("meta"):
        most = sum(tensor.nbytes for tensor in VAE(config).state_dict().values()) + HEADER_BYTES
    fetch(WEIGHTS, commit, most)  # last: who has them in the cache has all the rest
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
def explained(what: str) -> Iterator[None]:
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


# --- in and out of a folder ------------------------------------------------------------------------------------------


def load_model(name: str | Path, **hub_options: Any) -> VAE:
    """Load the model that `find_model` finds, with its prior and directions if it has them, on the CPU and in `eval()`.

    Raises ValueError in one sentence if a file is missing, broken, or doesn't fit the config to the letter.
    """
    folder = find_model(name, **hub_options)
    with torch.device("meta"):  # no memory and no random numbers for weights that are replaced at once
        model = VAE(read_config(folder))
    if not (folder / WEIGHTS).is_file():
        raise ValueError(f"{folder} holds no {WEIGHTS}, and no other kind of file is opened: pickles can run code")
    try:
        tensors = load_file(folder / WEIGHTS)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{folder / WEIGHTS} is broken, fetch or train it again ({error})") from error
    expected = model.state_dict()
    for key in sorted(expected.keys() | tensors.keys()):
        if key not in tensors:
            raise ValueError(f"{folder / WEIGHTS} lacks the tensor {key}")
        if key not in expected:
            raise ValueError(f"{folder / WEIGHTS} has the tensor {key}, which the model of its config does not")
        if tensors[key].shape != expected[key].shape or tensors[key].dtype != expected[key].dtype:
            raise ValueError(
                f"{folder / WEIGHTS} has {key} as {tensors[key].dtype} {(*tensors[key].shape,)}, "
                f"its config asks for {expected[key].dtype} {(*expected[key].shape,)}"
            )
        if not tensors[key].isfinite().all():
            raise ValueError(f"{folder / WEIGHTS} has values in {key} that are not finite")
    model.load_state_dict(tensors, assign=True)
    if (folder / PRIOR).is_file():
        model.prior = load_prior(folder / PRIOR)
        if model.prior.latent_dim != model.config.latent_dim:
            raise ValueError(
                f"{folder / PRIOR} has {model.prior.latent_dim} dimensions, and the latent vectors of its model "
                f"{model.config.latent_dim}"
            )
    if (folder / LATENTS).is_file():
        model.directions = load_directions(folder / LATENTS)
        if len(model.directions.mean) != model.config.latent_dim:
            raise ValueError(
                f"{folder / LATENTS} has {len(model.directions.mean)} dimensions, and the latent vectors of its model "
                f"{model.config.latent_dim}"
            )
        if model.directions.draws:
            model.prior = AttributePrior(model.directions)
    model.origin = folder
    return model.eval()


def read_config(folder: Path) -> VAEConfig:
    """Read folder/config.json. Raises ValueError if there is none, or it is no JSON or no valid config."""
    if not (folder / CONFIG).is_file():
        raise ValueError(f"{folder} holds no {CONFIG}: it is not the folder of a model")
    try:
        return VAEConfig.from_dict(json.loads((folder / CONFIG).read_text(encoding="utf-8")))
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{folder / CONFIG} is not JSON: {error}") from error
    except ValueError as error:
        raise ValueError(f"{folder / CONFIG}: {error}") from error


def read_metrics(folder: Path) -> dict[str, Any]:
    """Read folder/metrics.json, what training wrote of the model; empty if there is none or it can't be read."""
    try:
        metrics = json.loads((folder / METRICS).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return metrics if isinstance(metrics, dict) else {}


def save_model(model: VAE, folder: str | Path) -> None:
    """Write config.json, model.safetensors, a fitted prior and directions into folder, each whole or not at all.

    A prior or directions that are there go if the model has none: they would be those of other weights.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {key: value.detach().cpu().contiguous() for key, value in model.state_dict().items()}
    write(folder / WEIGHTS, lambda path: path.write_bytes(save(tensors, metadata={"format": "pt"})))
    write_json(folder / CONFIG, vars(model.config))
    directions, prior = model.directions, model.prior
    if isinstance(prior, AttributePrior):  # which is what its directions say
        directions = dataclasses.replace(prior.directions, draws=True)
    elif directions is not None:
        directions = dataclasses.replace(directions, draws=False)
    if isinstance(prior, StandardNormal | AttributePrior):
        (folder / PRIOR).unlink(missing_ok=True)
    else:
        write(folder / PRIOR, lambda path: save_prior(prior, path))
    if directions is None:
        (folder / LATENTS).unlink(missing_ok=True)
    else:
        write(folder / LATENTS, lambda path: save_directions(directions, path))


def write(path: Path, save: Callable[[Path], object]) -> None:
    """Let `save` write a file beside `path` and move it there when it is whole: a reader never meets half of one."""
    part = path.with_name(f".{path.name}.part{path.suffix}")
    try:
        save(part)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def write_json(path: Path, values: Any) -> None:
    """Write values as readable JSON, whole or not at all."""
    text = json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    write(path, lambda part: part.write_text(text, encoding="utf-8"))


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
SPACE = ("app.py", "requirements.txt", CARD, "LICENSE")  # and the package, and the bundled models
SPACE_SUFFIXES = (".py", ".png", ".md", ".json", ".safetensors")


def check_write(repo_id: str, *, private: bool | None = None, token: str | None = None) -> None:
    """Create the repo if it isn't there yet, and make sure that the token may write to it.

    To be called before hours of training. Raises ValueError in one sentence if a push would be refused.
    """
    api = _api(repo_id, token)
    with explained(f"{repo_id} can't be pushed to"):
        access = (api.whoami().get("auth") or {}).get("accessToken") or {}
    if access.get("role") == "read":
        raise ValueError(
            f"{repo_id} can't be pushed to: this token may only read, log in with one that may write (`hf auth login`)"
        )
    with explained(f"{repo_id} can't be pushed to"):
        api.create_repo(repo_id, private=private, exist_ok=True)
        api.auth_check(repo_id, write=True)


def files_to_push(folder: str | Path, repo_id: str) -> dict[str, bytes]:
    """Read what of a model's folder goes to the Hub, by name, with the card of a model that is called repo_id.

    Raises ValueError in one sentence if the folder holds no sound model.
    """
    if not is_folder(folder):
        raise ValueError(f"{folder} is no folder: name one with a model that train.py wrote")
    folder = Path(folder).resolve()
    config, metrics = load_model(folder).config, read_metrics(folder)
    files = {name: (folder / name).read_bytes() for name in PUSHED if (folder / name).is_file()}
    if METRICS in files and not metrics:
        raise ValueError(f"{folder / METRICS} can't be read: remove it, or train the model again")
    return files | {CARD: model_card(repo_id, config, metrics, files).encode()}


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
    with explained(f"{repo_id} could not be pushed to"):
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


def push_model(model: VAE, repo_id: str, **options: Any) -> str:
    """Push a model from memory; the options are those of `push_files`.

    If it has the very weights of the folder that it was loaded from, figures and pictures go with it.
    """
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        save_model(model, folder)
        source = model.origin or folder
        if (source / WEIGHTS).is_file() and (source / WEIGHTS).read_bytes() == (folder / WEIGHTS).read_bytes():
            for name in PUSHED:
                if (source / name).is_file() and not (folder / name).exists():
                    shutil.copyfile(source / name, folder / name)
        if not (folder / SAMPLES).exists():
            pictures = generate(load_model(folder), range(32), prior=StandardNormal())
            write(folder / SAMPLES, enlarge(grid(pictures, columns=16), 512).save)
        return push_files(files_to_push(folder, repo_id), repo_id, **options)


def push_space(
    repo_id: str, *, models: Sequence[str] = (), private: bool | None = None, token: str | None = None
) -> str:
    """Put the demo on the Hub as a Space, with what it needs and nothing else, and return the address of the commit.

    models: repos of the Space's owner (owner/name) that the page shows; by default the bundled models.
    """
    owner = repo_id.partition("/")[0]
    for name in models:
        if not re.fullmatch(rf"{re.escape(owner)}/[\w.-]+", name):
            raise ValueError(f"a Space shows models of its own owner, {owner}/..., got {name!r}")
    return push_files(
        space_files(models), repo_id, private=private, token=token, repo_type="space", commit_message="Upload the demo"
    )


def space_files(models: Sequence[str] = ()) -> dict[str, bytes]:
    """Read what a Space needs, by path: the app, the package and the bundled models."""
    from huggingface_hub import RepoCard

    if not all((ROOT / name).is_file() for name in SPACE):
        raise ValueError("the files of the Space are in a checkout of the project: run this in one")
    paths = [ROOT / name for name in SPACE]
    paths += [path for path in (ROOT / "vae").rglob("*") if path.suffix in SPACE_SUFFIXES]
    paths += [ROOT / "weights" / name / file for name in bundled_names() for file in (*PUSHED, CARD)]
    files = {path.relative_to(ROOT).as_posix(): path.read_bytes() for path in paths if path.is_file()}
    if models:
        card = RepoCard(files[CARD].decode())
        card.data["models"] = list(models)
        files[CARD] = str(card).encode()
    return files


def _api(repo_id: str, token: str | None) -> Any:
    """Make a client of the Hub. Raises ValueError if repo_id names no owner: it would land anywhere."""
    from huggingface_hub import HfApi

    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repo_id):
        raise ValueError(f"a repo on the Hub is called owner/name, got {repo_id!r}")
    _check_token(token)
    return HfApi(token=token)


def main(action: Literal["space"], repo_id: str, model: tuple[str, ...] = (), private: bool = False) -> None:
    """Put the demo on the Hub as a Space.

    Args:
        action: What to put there: the space is what there is, train.py pushes models.
        repo_id: Where to, owner/name; it is created if it isn't there.
        model: A repo of the same owner (owner/name) that the page shows; give it several times for several. By default
            the bundled models.
        private: Let nobody else see it, if it is created.
    """
    print(push_space(repo_id, models=model, private=private or None))


if __name__ == "__main__":
    import tyro

    try:
        tyro.cli(main, prog="python -m vae.hub", config=(tyro.conf.PositionalRequiredArgs, tyro.conf.UseAppendAction))
    except (ValueError, OSError) as error:
        sys.exit(f"vae.hub: {error}")
