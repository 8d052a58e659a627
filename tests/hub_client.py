"""What the tests run in a process of its own, against the Hub of HF_ENDPOINT: a line of JSON in, a line out."""

from __future__ import annotations

import json
import resource
import sys
import traceback
from typing import Any

import torch

from vae import VAE, StandardNormal, generate, hub, space


def pull(name: str, **options: Any) -> float:
    """Load a model and say how its pictures look, in full precision."""
    return generate(VAE.from_pretrained(name, **options), [0, 1]).double().sum().item()


def pull_onto_a_full_disk(name: str, **options: Any) -> float:
    """Load a model while no file may become larger than a megabyte."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, hard))
    try:
        return pull(name, **options)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def push(folder: str, repo_id: str, change: float | None = None, normal: bool = False, **options: Any) -> str:
    """Push the model in folder, perhaps after a change to its weights, or with N(0, I) as its prior."""
    model = VAE.from_pretrained(folder)
    if normal:
        model.prior = StandardNormal(model.config.latent_dim)
    if change is not None:
        with torch.no_grad():
            next(model.parameters()).add_(change)
    return model.push_to_hub(repo_id, **options)


def impatiently(name: str, *arguments: Any, **options: Any) -> Any:
    """Call the function called name, and give up on a Hub that says nothing for a tenth of a second."""
    before, hub.SILENCE_SECONDS = hub.SILENCE_SECONDS, 0.1
    try:
        return globals()[name](*arguments, **options)
    finally:
        hub.SILENCE_SECONDS = before


def check_write(repo_id: str, **options: Any) -> None:
    hub.check_write(repo_id, **options)


def push_space(repo_id: str, **options: Any) -> str:
    return space.push_space(repo_id, **options)


def resolve_model(name: str) -> Any:
    try:
        return hub.resolve_model(name)
    except ConnectionError as error:
        return ["no answer", str(error)]


if __name__ == "__main__":
    for line in sys.stdin:
        name, arguments, options = json.loads(line)
        try:
            answer = {"answer": globals()[name](*arguments, **options)}
        except ValueError as error:
            answer = {"refused": str(error), "traceback": "".join(traceback.format_exception(error))}
        print(json.dumps(answer), flush=True)
