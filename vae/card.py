"""The model card: `card.md`, filled with the configuration and the figures of a model."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from vae.config import VAEConfig
from vae.figures import Comparison, Figures, format_mse, last_part
from vae.files import PRIOR, plain

TEMPLATE = Path(__file__).with_name("card.md")
TASK = "unconditional-image-generation"  # as the Hub calls it


def model_card(name: str, config: VAEConfig, figures: Figures, files: Collection[str]) -> str:
    """Write the README of the model that `find_model` finds as `name`; of a folder, only the last part is told.

    files: the names of the files beside it.
    """
    data = ModelCardData(
        library_name="unvaelievable",
        pipeline_tag=TASK,
        tags=["vae", "variational-autoencoder", "image-generation"],
        **_describe_results(last_part(name), config, figures),
    )
    card = ModelCard.from_template(
        data,
        template_path=str(TEMPLATE),
        **vars(figures),
        name=last_part(name),
        config=config,
        shape=f"{config.channels}, {config.image_size}, {config.image_size}",
        files=files,
        fitted=PRIOR in files or bool(figures.generation and figures.generation.prior),
        comparisons=_comparisons(figures),
        plain=plain,
        format_mse=format_mse,
        spread=_spread,
        percent=_percent,
        between=_between,
        code=lambda text: " ".join(text.replace("`", "").split()),
    )
    return re.sub(r"\n{3,}", "\n\n", str(card)).rstrip() + "\n"


def _describe_results(name: str, config: VAEConfig, figures: Figures) -> dict[str, Any]:
    """Say in the Hub's terms what was measured, on which dataset, and under which licence the weights are."""
    dataset, test = figures.dataset, figures.test
    if dataset is None:
        return {}
    known: dict[str, Any] = {"license": dataset.model_licence} if dataset.model_licence else {}
    known |= {"datasets": [dataset.hub_id]} if dataset.hub_id else {}
    if test is None:
        return known
    results = [
        EvalResult(
            task_type=TASK,
            dataset_type=dataset.hub_id or dataset.name,
            dataset_name=dataset.title,
            dataset_split="test",
            metric_type=metric,
            metric_name=title,
            metric_value=float(f"{getattr(test, metric):.7g}"),
        )
        for metric, title in (
            ("elbo", f"ELBO (nats, {config.likelihood} likelihood)"),
            ("bits_per_dimension", "ELBO in bits per pixel value (lower is better)"),
            ("mse", "Mean squared error, decoded from the posterior mean"),
            ("psnr", "PSNR of the same (dB)"),
        )
        if getattr(test, metric) is not None
    ]
    return known | {"model_name": name, "eval_results": results, "metrics": [result.metric_type for result in results]}


def _comparisons(figures: Figures) -> list[tuple[str, Comparison]]:
    """List what was compared with test pictures, and what to call it."""
    if figures.generation is None:
        return []
    generation = figures.generation
    rows = {
        "real pictures (of the training set)": generation.training_pictures,
        "reconstructions from the posterior mean": generation.reconstruction,
        "new pictures from N(0, I)": generation.standard_normal,
        "new pictures from the fitted prior": generation.prior,
    }
    for name, prior in figures.priors.items():
        title = f"fitted prior {plain(name)} (log-likelihood of held-out latent vectors: {prior.held_out:.1f} nats)"
        rows[title] = prior.generation
    return [(title, row) for title, row in rows.items() if row]


def _spread(mean: float, spread: float | None) -> str:
    return f"{mean:.3f}" + ("" if spread is None else f" ± {spread:.3f}")


def _percent(part: float | None, digits: int = 1) -> str:
    return "" if part is None else f"{100 * part:.{digits}f} %"


def _between(least: float | None, most: float | None, otherwise: float) -> str:
    """Write a range of nats, with another bound in the place of one that is not known."""
    return f"{otherwise if least is None else least:.1f} to {otherwise if most is None else most:.1f}"
