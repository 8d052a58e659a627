"""The demo: python app.py, then open the address that it prints."""

from __future__ import annotations

import socket
import sys
from dataclasses import dataclass
from typing import Annotated

import gradio as gr
import tyro

from vae.demo import CSS, JS, THEME, Models, in_one_sentence
from vae.demo.generate import generate_tab
from vae.demo.interpolate import interpolate_tab
from vae.demo.reconstruct import reconstruct_tab
from vae.hub import bundled_names, find_model, read_config


@dataclass
class AppConfig:
    """Play with trained variational autoencoders in a browser."""

    model: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """A bundled name, a folder that train.py wrote, or a Hub repo (owner/name); give it several times for several
    models. By default the bundled ones."""
    host: str | None = None
    """Address to listen on, by default this machine's own; 0.0.0.0 lets other machines in."""
    port: int | None = None
    """Port to listen on; by default the first free one from 7860 on."""
    share: bool = False
    """Also make a public link, through Gradio's servers, for 72 hours."""


def build(models: Models) -> gr.Blocks:
    """Compose the page."""
    with gr.Blocks(title="unvaelievable", analytics_enabled=False, delete_cache=(3600, 3600)) as page:
        gr.Markdown("# unvaelievable\nA variational autoencoder to play with.")
        model = gr.Radio(models.choices(), value=models.names[0], label="Model", elem_id="model")
        description = gr.Markdown(elem_id="description")
        gr.on([page.load, model.change], in_one_sentence(models.describe), model, description, api_visibility="private")
        with gr.Tabs():
            generate_tab(models, page, model)
            reconstruct_tab(models, page, model)
            interpolate_tab(models, page, model)
    return page


def main() -> None:
    config = tyro.cli(AppConfig, prog="app.py")
    names = config.model or tuple(bundled_names())
    try:
        if not names:
            raise ValueError("no model comes with this copy: name one with --model")
        for name in names:
            read_config(find_model(name))
        if config.port is not None and not 0 < config.port < 65536:
            raise ValueError(f"--port must be from 1 to 65535, got {config.port}")
        if config.host is not None:
            try:
                socket.getaddrinfo(config.host, None)
            except OSError as error:
                raise ValueError(f"--host {config.host} is no address of this machine ({error})") from error
        page = build(Models(names))
        page.queue(default_concurrency_limit=2, max_size=100)
        page.launch(
            server_name=config.host,
            server_port=config.port,
            share=config.share,
            theme=THEME,
            css=CSS,
            js=JS,
            ssr_mode=False,  # it would need Node
        )
    except (ValueError, OSError) as error:
        sys.exit(f"app.py: {error}")


if __name__ == "__main__":
    main()
