"""Where weights come from and how they are kept: folders, the bundled models, the Hub, and the card beside them."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from vae.data import DATASETS
from vae.model import VAE, VAEConfig

CONFIG, WEIGHTS, METRICS = "config.json", "model.safetensors", "metrics.json"
HEADER_BYTES = 1_000_000  # more than the header of a safetensors file of ours
# In a checkout weights/ lies beside the package, in an installed wheel inside it.
BUNDLED = next(
    (p for p in (Path(__file__).parent / "weights", Path(__file__).parents[1] / "weights") if p.is_dir()), None
)


def bundled_names() -> list[str]:
    """Return the names of the models that come with the package, in alphabetical order."""
    return sorted(path.parent.name for path in BUNDLED.glob(f"*/{CONFIG}")) if BUNDLED else []


def is_folder(name: str | Path) -> bool:
    """Tell whether `name` is a folder that is here, whatever string it may be."""
    try:
        return bool(str(name)) and Path(name).is_dir()
    except OSError:  # longer than a path can be
        return False


def find_model(name: str | Path, **hub_options: Any) -> Path:
    """Return the folder that holds the model called `name`: a bundled name, a folder, or a Hub repo "owner/name".

    Only a Hub repo makes a network call; hub_options are those of `download`. Raises ValueError in one sentence.
    """
    if BUNDLED and str(name) in bundled_names():
        return BUNDLED / name
    if is_folder(name):
        return Path(name)
    if re.fullmatch(r"[\w.-]+/[\w.-]+", str(name)):
        return download(str(name), **hub_options)
    raise ValueError(
        f"there is no model {str(name)!r}: name a folder, a Hub repo (owner/name) or one of {', '.join(bundled_names())}"
    )


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

    It asks for config.json, model.safetensors and metrics.json, all of one commit, and for nothing that could run code.
    The config is checked before the weights are asked for, and the size of the weights before they are fetched.
    Raises ValueError in one sentence if something is wrong with the repo, the network or the disk.
    """
    from huggingface_hub import hf_hub_download, try_to_load_from_cache
    from huggingface_hub.errors import EntryNotFoundError, HFValidationError
    from huggingface_hub.utils import httpx

    def is_cached(filename: str) -> bool:  # or known to be missing from the repo
        return try_to_load_from_cache(repo_id, filename, cache_dir=cache_dir, revision=folder.name) is not None

    where = f"{repo_id} at {revision}" if revision else repo_id
    options: dict[str, Any] = {"token": token, "cache_dir": cache_dir, "local_files_only": local_files_only}
    try:
        config = hf_hub_download(repo_id, CONFIG, revision=revision, force_download=force_download, **options)
        folder = Path(config).parent
        with torch.device("meta"):
            most = sum(tensor.nbytes for tensor in VAE(read_config(folder)).state_dict().values()) + HEADER_BYTES
        options["revision"] = folder.name  # the commit: whatever is pushed meanwhile, the files fit together
        if force_download or not is_cached(WEIGHTS):
            size = hf_hub_download(repo_id, WEIGHTS, dry_run=True, **options).file_size
            if size is None or size > most:
                raise ValueError(f"{where} has weights of {size} bytes, and its config explains {most} at most")
            hf_hub_download(repo_id, WEIGHTS, force_download=force_download, **options)
        if force_download or not is_cached(METRICS):
            with contextlib.suppress(EntryNotFoundError):  # it may be missing, or out of reach
                hf_hub_download(repo_id, METRICS, force_download=force_download, **options)
    except (OSError, HFValidationError, RuntimeError, httpx.HTTPError) as error:
        raise ValueError(f"{where} could not be had: {_reason(error)}") from error
    return folder


def _reason(error: Exception) -> str:
    """Say in a few words what was wrong, and what to do; nothing of the request is repeated, it may hold a token."""
    from huggingface_hub import errors

    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, errors.GatedRepoError):
        return "its owner lets in only who has accepted its conditions: do so on its page, then `hf auth login`"
    if isinstance(error, errors.RepositoryNotFoundError):
        return "there is no such repo, or not for everybody: check the name, or log in with `hf auth login`"
    if isinstance(error, errors.RevisionNotFoundError):
        return "it has no such revision"
    if isinstance(error, errors.RemoteEntryNotFoundError):
        return f"it lacks {CONFIG} or {WEIGHTS}, and nothing else is loaded: pickles can run code"
    if isinstance(error, errors.OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE is set and it is not in the cache"
    if isinstance(error, errors.LocalEntryNotFoundError):
        return "it is not in the cache, and the Hub can't be reached: check the network"
    if isinstance(error, errors.HFValidationError):
        return "that is no name of a repo"
    if status == 401:
        return "the Hub doesn't know this token: `hf auth login` with another"
    if status == 403:
        return "this token may not read it"
    if status is not None:
        return f"the Hub answered {status}: try again later"
    trouble = error.strerror if isinstance(error, OSError) else None  # "No space left on device", for one
    return trouble or f"the connection broke ({type(error).__name__}): try again"


def load_model(name: str | Path, **hub_options: Any) -> VAE:
    """Load the model that `find_model` finds, on the CPU and in `eval()`.

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
    """Write config.json and model.safetensors into folder, each whole or not at all."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {key: value.detach().cpu().contiguous() for key, value in model.state_dict().items()}
    write(folder / WEIGHTS, lambda path: path.write_bytes(save(tensors, metadata={"format": "pt"})))
    write_json(folder / CONFIG, vars(model.config))


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


def model_card(name: str, config: VAEConfig, metrics: dict[str, Any]) -> str:
    """Write the README of the model that `find_model` finds as `name`: nothing in it is typed by hand."""
    test, training = metrics["test"], metrics["training"]
    spec = DATASETS[metrics["dataset"]]
    rows = {
        "ELBO": f"{test['elbo']:.2f} nats",
        "= reconstruction − KL": f"{test['reconstruction']:.2f} − {test['kl']:.2f} nats",
    }
    if test["bits_per_dimension"] is not None:
        rows["bits per pixel value"] = f"{test['bits_per_dimension']:.3f}"
        rows["calibrated " + ("σ" if config.likelihood == "gaussian" else "b")] = f"{test['scale']:.4f}"
    rows |= {
        "squared error of a pixel, from the posterior mean": f"{test['mse']:.5f} ({test['psnr']:.2f} dB)",
        f"the same of PCA with {config.latent_dim} components": f"{test['pca_mse']:.5f}",
        "active units": f"{test['active_units']} of {config.latent_dim}",
    }
    table = "\n".join(f"| {row} | {value} |" for row, value in rows.items())
    return f"""---
library_name: unvaelievable
pipeline_tag: unconditional-image-generation
license: apache-2.0
tags: [vae, variational-autoencoder, image-generation]
---

# A variational autoencoder of {spec.title}

![From top to bottom: test pictures, their reconstructions, and samples from N(0, I)](samples.png)

Rows from the top: test pictures, their reconstructions from the posterior mean, and two rows of pictures decoded
from N(0, I) (seeds 0 to 31).

```python
from vae import VAE, generate

model = VAE.from_pretrained("{name}")
pictures = generate(model, seeds=range(16))  # (16, {config.channels}, {config.image_size}, {config.image_size}) in [0, 1]
```

| on the {test["pictures"]:,} test pictures | |
|---|---|
{table}

Trained by `{training["command"]}`: {training["pictures"]:,} pictures, {training["epochs"]:.1f} epochs,
{training["seconds"] / 60:.0f} minutes on {training["device"]}, {config.num_parameters:,} parameters, likelihood
`{config.likelihood}`. The weights are those that did best on {training["validation_pictures"]:,} pictures held out from
training. Every figure here is from [metrics.json](metrics.json); `python -m vae.evaluate {name}` measures them again.

![Curves of the training](curves.png)

Data: {spec.title}, {spec.source}, licence {spec.licence}. Weights: Apache-2.0. Pictures are
{config.image_size}×{config.image_size}; whatever is unlike the training data comes back as what the model knows.
"""
