"""The tab that walks through the latent space from one picture to another."""

from __future__ import annotations

from typing import Any, cast

import gradio as gr
import torch
from PIL import Image

from vae.demo.models import Models
from vae.demo.page import MAX_SEED, end_point, example_gallery, in_one_sentence, number, output, upload, whole_number
from vae.generate import decode
from vae.images import grid, to_pil
from vae.latent import Path, interpolate
from vae.model import VAE

MAX_STEPS = 16


def walk(
    model: VAE,
    picture_a: str | None,
    seed_a: int,
    picture_b: str | None,
    seed_b: int,
    t: float,
    steps: int,
    path: Path,
) -> tuple[Image.Image, Image.Image]:
    """Return the picture at t, 0 to 1, on the way from a to b, and a strip of `steps` pictures of the whole way.

    Raises ValueError if a picture can't be read or a number is out of its range.
    """
    steps = whole_number(steps, "the number of steps", 2, MAX_STEPS)
    t = number(t, "t", 0, 1)
    a, b = end_point(model, picture_a, seed_a), end_point(model, picture_b, seed_b)
    at = torch.cat([torch.tensor([t]), torch.linspace(0, 1, steps)])
    pictures = decode(model, interpolate(a, b, at.to(a.device), path))
    return to_pil(pictures[0]), grid(pictures[1:], columns=steps, gap=1)


def interpolate_tab(models: Models, page: gr.Blocks, model: gr.Radio) -> None:
    """Lay out the tab and connect it."""
    with gr.Tab("Interpolate", id="interpolate"):
        gr.Markdown(
            "Between any two pictures lie others: slide from A to B and every point on the way is a picture, too. "
            "Pixels would only cross-fade."
        )
        ends: list[gr.Image | gr.Number] = []
        with gr.Row():
            for name, first in (("A", 7), ("B", 9)):
                with gr.Column():
                    picture = upload(name, 320, f"interpolate-{name.lower()}")
                    seed = gr.Number(
                        first,
                        label=f"{name} from a seed, if there is no picture",
                        precision=0,
                        minimum=0,
                        maximum=MAX_SEED,
                        elem_id=f"interpolate-seed-{name.lower()}",
                    )
                    example_gallery(
                        models,
                        page,
                        model,
                        picture,
                        first=first,
                        columns=5,
                        elem_id=f"interpolate-examples-{name.lower()}",
                    )
                    ends += [picture, seed]
                if name == "A":
                    with gr.Column():
                        here = output("On the way from A to B", "interpolate-here", height=320)
                        t = gr.Slider(0, 1, 0.5, step=0.01, label="t", info="A at 0, B at 1", elem_id="interpolate-t")
                        steps = gr.Slider(2, MAX_STEPS, 9, step=1, label="Steps", elem_id="interpolate-steps")
                        path = gr.Radio(
                            ["slerp", "lerp"],
                            value="slerp",
                            label="Path",
                            info="along a great circle, or straight",
                            elem_id="interpolate-path",
                        )
        strip = output(None, "interpolate-strip", elem_classes="strip")

        def handle(
            model: str,
            picture_a: str | None,
            seed_a: int,
            picture_b: str | None,
            seed_b: int,
            t: float,
            steps: int,
            path: str,
        ) -> tuple[Image.Image, Image.Image]:
            return walk(models[model], picture_a, seed_a, picture_b, seed_b, t, steps, cast(Path, path))

        inputs = [model, *ends, t, steps, path]
        quietly = {"api_visibility": "private", "trigger_mode": "always_last", "show_progress": "hidden"}

        def show_here(*values: Any) -> Image.Image:
            # Of the strip, which is another event's, no more than its ends need be decoded.
            few: list[Any] = [
                2 if component is steps else value for component, value in zip(inputs, values, strict=True)
            ]
            return handle(*few)[0]

        # One event for each picture: so no answer that was asked for before t moved can arrive after the one to t.
        changes = [model.change, *(end.change for end in ends), path.change]
        gr.on([*changes, t.input], in_one_sentence(show_here), inputs, here, queue=False, **quietly)
        gr.on([*changes, steps.change], in_one_sentence(lambda *values: handle(*values)[1]), inputs, strip, **quietly)
        # And both at once for the API.
        both = gr.Button(visible=False)
        both.click(in_one_sentence(handle), inputs, [here, strip], api_name="interpolate")
