"""The model card: it says what the figures say, and no stranger's text breaks out of it."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard, ModelCardData

from vae.card import model_card
from vae.data import DATASETS
from vae.figures import DatasetFacts, Figures
from vae.files import read_config
from vae.hub import bundled_names

FASHION = Path("weights/fashion-mnist")
OURS = "somebody/new"


@pytest.mark.parametrize("name", bundled_names())
def test_the_card_of_a_bundled_model_is_what_its_figures_say(name: str) -> None:
    folder = Path("weights") / name
    figures = Figures.read(folder)
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert card == model_card(name, read_config(folder), figures, [path.name for path in folder.iterdir()])
    assert f'VAE.from_pretrained("{name}")' in card
    assert figures.test is not None
    assert f"| ELBO | {figures.test.elbo:.2f} nats |" in card
    for picture in ("samples.png", "curves.png", "generated.png"):
        assert (folder / picture).is_file()
        assert f"]({picture})" in card


def test_the_hub_reads_the_results() -> None:
    figures = Figures.read(FASHION)
    data = ModelCard(model_card(OURS, read_config(FASHION), figures, ())).data
    assert isinstance(data, ModelCardData)
    assert data.license == "apache-2.0"
    assert data.datasets == ["zalando-datasets/fashion_mnist"]
    assert data.eval_results is not None
    found = {result.metric_type: result.metric_value for result in data.eval_results}
    assert figures.test is not None
    assert set(found) == {"elbo", "bits_per_dimension", "mse", "psnr"}
    for metric, value in found.items():
        assert value == pytest.approx(getattr(figures.test, metric), rel=1e-6)


@pytest.mark.parametrize("part", Figures.__dataclass_fields__)
def test_a_part_that_was_not_measured_is_left_out(part: str) -> None:
    whole, empty = Figures.read(Path("weights/avatars")), Figures()
    config = read_config(Path("weights/avatars"))
    for figures in (replace(whole, **{part: getattr(empty, part)}), replace(empty, **{part: getattr(whole, part)})):
        card = model_card(OURS, config, figures, ["samples.png", "curves.png"])
        assert f'VAE.from_pretrained("{OURS}")' in card
        assert "None" not in card
        assert "\n\n\n" not in card
        for before, line in zip(card.splitlines(), card.splitlines()[1:], strict=False):
            assert not line.startswith("|---") or before.startswith("| "), "a table without a head"


def test_a_model_without_figures_has_a_card() -> None:
    card = model_card(OURS, read_config(FASHION), Figures(), ["samples.png"])
    assert "# Variational autoencoder\n\n![Pictures decoded from N(0, I), seeds 0 to 31](samples.png)" in card
    assert "metrics.json" not in card


def test_the_card_of_a_folder_says_only_its_last_part(tmp_path: Path) -> None:
    card = model_card(str(tmp_path / "mine"), read_config(FASHION), Figures.read(FASHION), ())
    assert 'VAE.from_pretrained("mine")' in card
    assert str(tmp_path) not in card


def test_a_strangers_texts_do_not_break_out_of_the_card() -> None:
    figures, hostile = Figures.read(FASHION), "[x](http://evil)<img>\n\n# Title |{{ 7919 * 7907 }}"
    assert figures.training is not None
    assert figures.generation is not None
    facts = DatasetFacts(name=hostile, title=hostile, source=hostile, licence=hostile, model_licence=hostile)
    changed = replace(
        figures,
        dataset=facts,
        training=replace(figures.training, command=f"x`{hostile}", device=hostile),
        generation=replace(figures.generation, features=hostile),
        priors={hostile: next(iter(figures.priors.values()))},
        attributes={hostile: next(iter(figures.attributes.values()))},
    )
    card = model_card(OURS, replace(read_config(FASHION), attribution=hostile), changed, ())
    _, _, body = card.split("---\n", 2)
    assert r"minutes on \[x\](http://evil)&lt;img&gt; \# Title \|{{ 7919 * 7907 }}" in body.replace(r"\*", "*")
    assert "`x[x](http://evil)<img> # Title |{{ 7919 * 7907 }}` (" in body  # as code, in which nothing counts
    assert "\n# Title" not in body
    assert body.count("<img>") == 1
    assert "62615533" not in body


@pytest.mark.parametrize(
    "change", [{"elbo": 1e300}, {"pca_mse": -1.0}, {"mse": 0.0, "psnr": 1e9}, {"pictures": 10**50}]
)
def test_odd_figures_still_make_a_card(change: dict[str, Any]) -> None:
    figures = Figures.read(FASHION)
    assert figures.test is not None
    model_card(OURS, read_config(FASHION), replace(figures, test=replace(figures.test, **change)), ())


# --- what the bundled models' figures must agree on, whoever measured them -------------------------------------------


@pytest.mark.parametrize("name", bundled_names())
def test_figures_agree_with_one_another(name: str) -> None:
    figures = Figures.read(Path("weights") / name)
    test, latents, likelihood = figures.test, figures.latents, figures.likelihood
    assert test is not None
    assert latents is not None
    assert likelihood is not None
    assert test.elbo == pytest.approx(test.reconstruction - test.kl)
    assert test.psnr == pytest.approx(-10 * math.log10(test.mse))
    assert test.sample_psnr == pytest.approx(-10 * math.log10(test.sample_mse))
    assert test.pca_mse is not None
    assert test.mse < test.sample_mse
    if DATASETS[name].recipe.get("beta", 1.0) == 1:
        assert test.sample_mse < test.pca_mse
    else:  # pictures are given up for latents that can be named: fewer numbers than PCA's carry them
        assert test.active_units < read_config(Path("weights") / name).latent_dim
    assert latents.kl == pytest.approx(test.kl, rel=1e-5) == latents.mutual_information + latents.marginal_kl
    assert likelihood.elbo < likelihood.bound
    assert figures.generation is not None
    assert figures.generation.prior in [row.generation for row in figures.priors.values()]
