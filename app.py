"""The demo: python app.py, then open the address that it prints."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

try:
    import spaces  # on ZeroGPU hardware only, and there before torch
except ImportError:
    spaces = None

import tyro
from huggingface_hub import metadata_load
from starlette.middleware import Middleware

from vae.demo.border import Page
from vae.demo.explore import explore_endpoints
from vae.demo.generate import generate_endpoints
from vae.demo.interpolate import interpolate_endpoints
from vae.demo.learn import learn_endpoints
from vae.demo.map import map_endpoints
from vae.demo.models import Models
from vae.demo.page import THEME, Endpoints, about_endpoints, page_element
from vae.demo.reconstruct import reconstruct_endpoints
from vae.demo.site import Head, routes
from vae.hub import bundled_names


@dataclass
class AppConfig:
    """Play with trained variational autoencoders in a browser."""

    model: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """A bundled name, a folder that train.py wrote, or a Hub repo (owner/name, owner/name@revision); give it several
    times for several models. By default those in the environment's VAE_MODELS (with commas between them), on a Space
    those of its owner that its README names, and otherwise the bundled ones."""
    host: str | None = None
    """Address to listen on, by default this machine's own; 0.0.0.0 lets other machines in."""
    port: int | None = None
    """Port to listen on; by default the first free one from 7860 on."""
    share: bool = False
    """Also make a public link, through Gradio's servers, for 72 hours."""


def is_of(owner: str, name: str) -> bool:
    """Tell whether a repo is somebody's."""
    return name.lower().startswith(f"{owner.lower()}/")


def find_names(config: AppConfig) -> list[str]:
    """Name the models to show, from the first of the sources that has any."""
    if config.model:
        return list(config.model)
    if listed := os.environ.get("VAE_MODELS", "").replace(",", " ").split():
        return listed
    if owner := os.environ.get("SPACE_ID", "").partition("/")[0]:
        front = metadata_load(Path(__file__).with_name("README.md"))
        named = front.get("models") if isinstance(front, dict) else None
        own = [name for name in map(str, named if isinstance(named, list) else []) if is_of(owner, name)]
        if own:
            return own
    return bundled_names()


def build(models: Models) -> Page:
    """Compose the page."""
    with Page(title="unvaelievable", analytics_enabled=False) as page:
        page.models = models
        page_element(models)
        endpoints = Endpoints(models)
        for add in (
            about_endpoints,
            explore_endpoints,
            generate_endpoints,
            reconstruct_endpoints,
            interpolate_endpoints,
            map_endpoints,
            learn_endpoints,
        ):
            add(endpoints)
    return page


@contextmanager
def own_cache() -> Iterator[None]:
    """Give this page a folder of its own for uploads and pictures: gradio's is shared by all pages of a machine."""
    within = os.environ.get("GRADIO_TEMP_DIR")
    if within:
        os.makedirs(within, exist_ok=True)
    folder = os.environ["GRADIO_TEMP_DIR"] = tempfile.mkdtemp(prefix="unvaelievable-", dir=within)
    try:
        yield
    finally:
        with handling(signal.SIG_IGN):
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def handling(handler: Any) -> Iterator[None]:
    """Handle Ctrl-C and SIGTERM in another way."""
    before = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)


@contextmanager
def interrupts() -> Iterator[list[int]]:
    """Yield a list that Ctrl-C and SIGTERM are added to, so that the page ends in order and deletes what it was sent.

    An exception, raised wherever the program is, could be swallowed there, and the page would go on for ever. The second
    signal raises KeyboardInterrupt nevertheless.
    """
    received: list[int] = []

    def receive(number: int, _: FrameType | None) -> None:
        received.append(number)
        if len(received) > 1:
            raise KeyboardInterrupt

    os.environ.pop("GRADIO_DEBUG", None)  # by which gradio would wait for an exception
    with handling(receive):
        yield received


if spaces:

    @spaces.GPU
    def hold_gpu() -> None:
        """Do nothing: ZeroGPU hardware takes no app without a function marked so, and these models need no GPU."""


def main() -> None:
    config = tyro.cli(AppConfig, prog="app.py")
    try:
        if config.port is not None and not 0 < config.port < 65536:
            raise ValueError(f"--port must be from 1 to 65535, got {config.port}")
        if config.host is not None:
            try:
                socket.getaddrinfo(config.host, None)
            except OSError as error:
                raise ValueError(f"--host {config.host} is no address of this machine ({error})") from error
        models = Models(find_names(config))
        if config.model and models.refused:  # on a Space, where nobody reads this, the page says it
            raise ValueError("; ".join(models.refused.values()))
        if not models.names:
            raise ValueError("no model comes with this copy: name one with --model")
        with interrupts() as received, own_cache():
            page = build(models)
            page.open(
                routes(models),
                [Middleware(Head, model=models.names[0])],
                server_name=config.host,
                server_port=config.port,
                share=config.share,
                theme=THEME,
                prevent_thread_lock=True,
            )
            while not received:
                time.sleep(0.1)
            page.close(verbose=False)
    except (ValueError, OSError) as error:
        sys.exit(f"app.py: {error}")
    except KeyboardInterrupt:
        sys.exit("app.py: stopped at once")


if __name__ == "__main__":
    main()
