"""The model card: the README of a model, made from its configuration and its figures, with nothing typed by hand."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any

from vae.config import VAEConfig
from vae.data import DATASETS
from vae.files import CURVES, GENERATED, PRIOR, SAMPLES, plain
from vae.images import psnr

# What is raised where figures of a stranger's file are not what train.py writes.
MALFORMED = KeyError, IndexError, TypeError, ValueError, AttributeError, OverflowError

LICENCES = {"apache-2.0": "Apache-2.0", "cc-by-4.0": "CC BY 4.0"}


def error(mse: float) -> str:
    """Write a squared error with two digits that mean something, or more."""
    return f"{mse:.5f}" if mse >= 0.001 else f"{mse:.6f}"


def model_card(name: str, config: VAEConfig, metrics: dict[str, Any], files: Collection[str]) -> str:
    """Write the README of the model that `find_model` finds as `name`.

    metrics: what train.py wrote of it, or nothing at all.
    files: the names of what lies beside it.

    Raises ValueError if the metrics are not train.py's.
    """
    from huggingface_hub import ModelCardData

    if not metrics:
        data = ModelCardData(**_DATA)
        return f"---\n{data.to_yaml()}\n---\n\n# A variational autoencoder\n\n" + _use(name, config, files, metrics)
    try:
        title = DATASETS[metrics["dataset"]].title
        data = ModelCardData(**_DATA, **_results(name, config, metrics))
        return f"""---
{data.to_yaml()}
---

# A variational autoencoder of {title}

{_use(name, config, files, metrics)}
{_measured(name, config, metrics, files)}"""
    except MALFORMED as error:
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
            metric_value=float(f"{test[metric]:.7g}"),
        )
        for metric, title in (
            ("elbo", f"ELBO (nats, {config.likelihood} likelihood)"),
            ("bits_per_dimension", "ELBO in bits per pixel value (lower is better)"),
            ("mse", "Squared error of a pixel, from the posterior mean"),
            ("psnr", "PSNR of the same (dB)"),
        )
        if test[metric] is not None
    ]
    known: dict[str, Any] = {"license": spec.model_licence} if spec.model_licence else {}  # whose pictures, otherwise?
    known |= {"datasets": [spec.hub_id]} if spec.hub_id else {}
    return known | {"model_name": name, "eval_results": results, "metrics": [result.metric_type for result in results]}


def _use(name: str, config: VAEConfig, files: Collection[str], metrics: dict[str, Any]) -> str:
    """Show what the model does, and the three lines that make it do so."""
    caption = "Pictures decoded from N(0, I), seeds 0 to 31"
    is_fitted = PRIOR in files or "prior" in (metrics.get("generation") or {})
    if metrics:
        fitted = ", two rows of the same seeds from the fitted prior" if is_fitted else ""
        caption = (
            "Rows from the top: test pictures, their reconstructions from the posterior mean, two rows of pictures "
            f"decoded from N(0, I), seeds 0 to 31{fitted}"
        )
    sheet = f"![{caption}]({SAMPLES})\n\n{caption}.\n\n"
    credit = f"\n{plain(config.attribution)}.\n" if config.attribution else ""
    return f"""{sheet if SAMPLES in files else ""}```python
from vae import VAE, generate

model = VAE.from_pretrained("{name}")
pictures = generate(model, seeds=range(16))  # (16, {config.channels}, {config.image_size}, {config.image_size}) in [0, 1]
```

A picture of {config.channels}×{config.image_size}×{config.image_size} becomes {config.latent_dim} numbers and comes back.

Limits: it knows only pictures like those that it was trained on, and makes of any other the nearest that it knows;
pictures decoded from N(0, I) are softer and odder than reconstructions{", those from the fitted prior less so" if is_fitted else ""}.
{credit}"""


def _measured(name: str, config: VAEConfig, metrics: dict[str, Any], files: Collection[str]) -> str:
    """Put the figures into a table, and say where they come from."""
    test, training = metrics["test"], metrics["training"]
    spec = DATASETS[metrics["dataset"]]
    rows = {
        "ELBO": f"{test['elbo']:.2f} nats",
        "= reconstruction − KL": f"{test['reconstruction']:.2f} − {test['kl']:.2f} nats",
    }
    if test["bits_per_dimension"] is not None:
        rows["bits per pixel value"] = f"{test['bits_per_dimension']:.3f}"
        scale = {"gaussian": "σ", "spectral": "σ, over all frequencies"}[config.likelihood]
        rows[f"calibrated {scale}"] = f"{test['scale']:.4f}"
    rows |= {
        "squared error of a pixel, from the posterior mean": f"{error(test['mse'])} ({test['psnr']:.2f} dB)",
        "the same, from a sample of the posterior": f"{error(test['sample_mse'])} ({test['sample_psnr']:.2f} dB)",
        f"the same of PCA with {config.latent_dim} components": f"{error(test['pca_mse'])} ({psnr(test['pca_mse']):.2f} dB)",
        "structural similarity (SSIM), from the mean, from a sample": f"{test['ssim']:.4f}, {test['sample_ssim']:.4f}",
        "active units": f"{test['active_units']} of {config.latent_dim}",
    }
    if likelihood := metrics.get("likelihood"):
        rows[f"log-likelihood, bound of {likelihood['samples']:,} samples, {likelihood['pictures']:,} pictures"] = (
            f"{likelihood['bound']:.2f} ± {likelihood['standard_error']:.2f} nats (their ELBO: {likelihood['elbo']:.2f})"
        )
    if latents := metrics.get("latents"):
        least, most = latents["mutual_information"], latents.get("mutual_information_at_most", latents["kl"])
        rows["mutual information of picture and latents"] = f"{least:.1f} to {most:.1f} nats"
        least, most = latents.get("marginal_kl_at_least", 0.0), latents["marginal_kl"]
        rows["KL divergence of all latents together from N(0, I)"] = f"{least:.1f} to {most:.1f} nats"
    table = "\n".join(f"| {row} | {value} |" for row, value in rows.items())
    sheet = "New pictures from the model's own prior, seeds 0 to 99"
    generated = f"\n![{sheet}]({GENERATED})\n\n{sheet}.\n" if GENERATED in files else ""
    licence = f" Weights: {LICENCES[spec.model_licence]}." if spec.model_licence else ""
    curves = f"\n![Curves of the training]({CURVES})\n" if CURVES in files else ""
    return f"""| on the {test["pictures"]:,} test pictures | |
|---|---|
{table}

{_generation(metrics)}{_attributes(metrics)}Trained by {describe_runs(training)}; {training["pictures"]:,} pictures, {training["parameters"]:,} parameters, likelihood
`{config.likelihood}`. {training["validation_pictures"]:,} more pictures were held out from training, and the weights are
{"those of its end" if training.get("keep") == "last" else "those that did best on them"}. Every figure here is from [metrics.json](metrics.json); `python -m vae.evaluate {name}` measures them again.
{curves}{generated}
Data: {spec.title}, {spec.source}, licence {spec.licence}.{licence}
"""


def describe_runs(training: dict[str, Any]) -> str:
    """Say which commands made the weights, the first one first, and how long they took.

    Raises one of MALFORMED if it is not what train.py wrote.
    """
    runs: list[str] = []
    run: dict[str, Any] | None = training
    while run:
        command = " ".join(str(run["command"]).replace("`", "").split())  # it may be a stranger's
        device = plain(str(run["device"])).split()[0]
        runs.insert(0, f"`{command}` ({run['epochs']:.1f} epochs, {run['seconds'] / 60:.0f} minutes on {device})")
        run = run.get("init")
    return ", then ".join(runs)


def _generation(metrics: dict[str, Any]) -> str:
    """Put into a table how new pictures compare with real ones, if that was measured."""
    measured = metrics.get("generation")
    if not measured:
        return ""
    rows = {
        "real pictures (from the training set)": measured["training-pictures"],
        "reconstructions from the posterior mean": measured["reconstruction"],
        "new pictures from N(0, I)": measured["standard-normal"],
    }
    if "prior" in measured:
        rows["new pictures from the fitted prior"] = measured["prior"]
    priors = metrics.get("priors") or {}
    for name, row in priors.items():
        if "frechet" in row:
            rows[f"from {plain(name)} (latents of held-out pictures: {row['held_out']:.1f} nats)"] = row
    table = "\n".join(
        f"| {title} | " + " | ".join(_mean_and_spread(row, key) for key in ("frechet", "precision", "recall")) + " |"
        for title, row in rows.items()
    )
    features = "of Inception v3 (the usual FID)"
    if measured["features"] in DATASETS:
        features = f"of the classifier `{measured['features']}` that comes with the package"
        if "accuracy" in measured:
            features += f" and tells {100 * measured['accuracy']:.2f} % of the test pictures right"
    return f"""| {measured["pictures"]:,} of each against as many test pictures | Fréchet distance | precision | recall |
|---|---|---|---|
{table}

By the features {features}; mean and standard deviation over
{measured["seeds"]} draws. Distances by other features can't be compared with these.

"""


def _mean_and_spread(row: dict[str, float], key: str) -> str:
    spread = row.get(f"{key}_spread")
    return f"{row[key]:.3f}" + ("" if spread is None else f" ± {spread:.3f}")


def _attributes(metrics: dict[str, Any]) -> str:
    """Put into a table how well attributes can be turned, if that was measured."""
    measured = metrics.get("attributes")
    if not measured:
        return ""
    rows = {name: row for name, row in measured.items() if isinstance(row, dict)}

    def percent(value: float | None) -> str:
        return "" if value is None else f"{100 * value:.1f} %"

    keys = "told", "reconstructed", "turned", "kept"
    table = ""
    for name, row in rows.items():
        least = min(row["kept_of"].values()) if "kept_of" in row else None
        table += "| " + " | ".join([plain(name), *map(percent, (*map(row.get, keys), least))]) + " |\n"
    return f"""| attribute | told of real pictures | of reconstructions | turned | others kept | the least |
|---|---|---|---|---|---|
{table}
What a classifier that was trained on real pictures tells of {measured["pictures"]:,} test pictures: how often the true value of
an attribute, how often the value that its slider was moved to, another one by chance, and how often then the values of
all other attributes, on average and of the one that is kept least, as they were.

"""
