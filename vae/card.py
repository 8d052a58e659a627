"""The model card: the README of a model, made from its configuration and its figures, with nothing typed by hand."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any

from vae.data import DATASETS
from vae.model import VAEConfig

SAMPLES, CURVES = "samples.png", "curves.png"


def model_card(name: str, config: VAEConfig, metrics: dict[str, Any], pictures: Collection[str]) -> str:
    """Write the README of the model that `find_model` finds as `name`.

    metrics: what train.py wrote of it, or nothing at all.
    pictures: which of SAMPLES and CURVES lie beside it.

    Raises ValueError if the metrics are not train.py's.
    """
    from huggingface_hub import ModelCardData

    if not metrics:
        data = ModelCardData(**_DATA)
        return f"---\n{data.to_yaml()}\n---\n\n# A variational autoencoder\n\n" + _use(
            name, config, pictures, bool(metrics)
        )
    try:
        title = DATASETS[metrics["dataset"]].title
        data = ModelCardData(**_DATA, **_results(name, config, metrics))
        return f"""---
{data.to_yaml()}
---

# A variational autoencoder of {title}

{_use(name, config, pictures, bool(metrics))}
{_measured(name, config, metrics, pictures)}"""
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise ValueError(f"the metrics of {name} are not what train.py writes ({error!r}): train it again") from error


_DATA: dict[str, Any] = {
    "library_name": "unvaelievable",
    "pipeline_tag": "unconditional-image-generation",
    "tags": ["vae", "variational-autoencoder", "image-generation"],
}


def _results(name: str, config: VAEConfig, metrics: dict[str, Any]) -> dict[str, Any]:
    """Say in the Hub's terms what was measured, on which dataset."""
    from huggingface_hub import EvalResult

    spec, test = DATASETS[metrics["dataset"]], metrics["test"]
    if not all(math.isfinite(value) for value in test.values() if value is not None):
        raise ValueError("figures must be finite")
    results = [
        EvalResult(
            task_type=_DATA["pipeline_tag"],
            dataset_type=spec.hub_id or metrics["dataset"],
            dataset_name=spec.title,
            dataset_split="test",
            metric_type=metric,
            metric_name=title,
            metric_value=round(test[metric], 5),
        )
        for metric, title in (
            ("elbo", f"ELBO (nats, {config.likelihood} likelihood)"),
            ("bits_per_dimension", "ELBO in bits per pixel value (lower is better)"),
            ("mse", "Squared error of a pixel, from the posterior mean"),
            ("psnr", "PSNR of the same (dB)"),
        )
        if test[metric] is not None
    ]
    known = {"license": "apache-2.0", "datasets": [spec.hub_id]} if spec.hub_id else {}  # whose pictures, otherwise?
    return known | {"model_name": name, "eval_results": results, "metrics": [result.metric_type for result in results]}


def _use(name: str, config: VAEConfig, pictures: Collection[str], measured: bool) -> str:
    """Show what the model does, and the three lines that make it do so."""
    caption = "Pictures decoded from N(0, I), seeds 0 to 31"
    if measured:
        caption = (
            "Rows from the top: test pictures, their reconstructions from the posterior mean, and two rows of pictures "
            "decoded from N(0, I), seeds 0 to 31"
        )
    sheet = f"![{caption}]({SAMPLES})\n\n{caption}.\n\n"
    return f"""{sheet if SAMPLES in pictures else ""}```python
from vae import VAE, generate

model = VAE.from_pretrained("{name}")
pictures = generate(model, seeds=range(16))  # (16, {config.channels}, {config.image_size}, {config.image_size}) in [0, 1]
```

A picture of {config.channels}×{config.image_size}×{config.image_size} becomes {config.latent_dim} numbers and comes back.

Limits: it knows only pictures like those that it was trained on, and makes of any other the nearest that it knows;
pictures decoded from N(0, I) are softer and odder than reconstructions.
"""


def _measured(name: str, config: VAEConfig, metrics: dict[str, Any], pictures: Collection[str]) -> str:
    """Put the figures into a table, and say where they come from."""
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
    command = " ".join(str(training["command"]).replace("`", "").split())  # it may be a stranger's
    curves = f"\n![Curves of the training]({CURVES})\n" if CURVES in pictures else ""
    return f"""| on the {test["pictures"]:,} test pictures | |
|---|---|
{table}

Trained by `{command}`: {training["pictures"]:,} pictures, {training["epochs"]:.1f} epochs,
{training["seconds"] / 60:.0f} minutes on {str(training["device"]).split()[0]}, {config.num_parameters:,} parameters, likelihood
`{config.likelihood}`. The weights are those that did best on {training["validation_pictures"]:,} pictures held out from
training. Every figure here is from [metrics.json](metrics.json); `python -m vae.evaluate {name}` measures them again.
{curves}
Data: {spec.title}, {spec.source}, licence {spec.licence}.{" Weights: Apache-2.0." if spec.hub_id else ""}
"""
