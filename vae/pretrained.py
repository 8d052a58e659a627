"""Loading, saving and pushing a model. The model builds on this, and nothing here names it: `cls(config)` makes one."""

from __future__ import annotations

import dataclasses
import json
import shutil
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from vae.attributes import AttributeModel, AttributePrior, load_directions, save_directions
from vae.card import model_card
from vae.config import VAEConfig
from vae.figures import Figures
from vae.files import (
    CARD,
    CONFIG,
    CURVES,
    GENERATED,
    LATENTS,
    MAP,
    PRIOR,
    SAMPLES,
    WEIGHTS,
    count_parameters,
    fingerprint,
    have_same_tensors,
    parse_config,
    parse_metadata,
    read_config,
    read_metadata,
    read_tensors,
    write,
    write_json,
    write_tensors,
)
from vae.hub import PUSHED, find_model, push_files
from vae.images import enlarge, grid
from vae.prior import Prior, StandardNormal, check_prior, load_prior, noise, save_prior

if TYPE_CHECKING:
    from typing_extensions import Self

P = TypeVar("P", bound="Pretrained")

SHEET = range(32)  # seeds of the pictures on the sheet of a model that was never evaluated


class Pretrained(nn.Module):
    """A model that a VAEConfig describes, with what is fitted to its latent space once it is trained.

    prior: where `generate` draws latent vectors from, N(0, I) unless another was fitted. It stays on the CPU and is not
        part of `state_dict()`: it has a file of its own.
    directions: where pictures of known attributes lie, see `vae.attributes`; None if the training pictures had no labels.
    origin: the folder that the model was loaded from, if it was.
    """

    config: VAEConfig
    prior: Prior
    directions: AttributeModel | None = None
    origin: Path | None = None

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        self.config = config
        self.prior = StandardNormal(config.latent_dim)

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "prior":
            object.__setattr__(self, name, value)  # past nn.Module, which would make it a part of the state_dict
        else:
            super().__setattr__(name, value)

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path,
        *,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        force_download: bool = False,
    ) -> Self:
        """Load a model, ready for use (`eval()`, on the CPU): a folder, a bundled name ("fashion-mnist") or a Hub repo.

        Reads config.json and safetensors files (the weights, and prior and directions where they are), nothing that could
        run code. A Hub repo is "owner/name" or "owner/name@revision"; the options are those of
        `huggingface_hub.snapshot_download`. Raises ValueError in one sentence if the model can't be had or its files
        don't fit together.
        """
        folder = find_model(
            name,
            revision=revision,
            token=token,
            cache_dir=cache_dir,
            local_files_only=local_files_only,
            force_download=force_download,
        )
        model = _load(cls, folder)
        latent_dim, weights = model.config.latent_dim, fingerprint(folder)
        for path in (folder / PRIOR, folder / LATENTS):
            if not path.is_file():
                continue
            fitted = load_prior(path) if path.name == PRIOR else load_directions(path)
            if fitted.latent_dim != latent_dim:
                raise ValueError(f"{path} has {fitted.latent_dim} dimensions, the model's latent vectors {latent_dim}")
            if read_metadata(path).get("weights", json.dumps(weights)) != json.dumps(weights):
                warnings.warn(f"{path} was fitted to other weights than those beside it and is not used", stacklevel=2)
            elif isinstance(fitted, AttributeModel):
                model.directions = fitted
                model.prior = AttributePrior(fitted) if fitted.draws else model.prior
            else:
                model.prior = fitted
        model.origin = folder
        return model

    def save_pretrained(self, folder: str | Path) -> None:
        """Write config.json, the weights, a fitted prior and directions into folder, creating it if need be.

        Each file is written whole or not at all. The weights carry their config, and prior and directions the
        fingerprint of their weights: a folder that was left between two files still loads, as what its weights are.
        Raises ValueError, before anything is written, if the prior or the directions could not be loaded again.
        """
        directions, prior = self.directions, self.prior
        for name, fitted in (("prior", prior), ("directions", directions)):
            if fitted is not None and fitted.latent_dim not in (None, self.config.latent_dim):
                raise ValueError(
                    f"the model's {name} must be of {self.config.latent_dim} dimensions, as its latent vectors are, got "
                    f"{fitted.latent_dim}"
                )
        if isinstance(prior, AttributePrior):  # which is what its directions say
            if prior.where:
                raise ValueError(f"a prior of pictures with {prior.where} can't be saved: set model.prior to another")
            directions = dataclasses.replace(prior.directions, draws=True)
        elif directions is not None:
            directions = dataclasses.replace(directions, draws=False)
        is_fitted = type(prior) not in (StandardNormal, AttributePrior)
        if is_fitted:
            check_prior(prior)
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {
            key: value.float() if value.is_floating_point() else value for key, value in self.state_dict().items()
        }
        write_tensors(folder / WEIGHTS, tensors, config=vars(self.config))
        write_json(folder / CONFIG, vars(self.config))
        weights = fingerprint(folder)
        if is_fitted:
            save_prior(prior, folder / PRIOR, weights=weights)
        else:
            (folder / PRIOR).unlink(missing_ok=True)  # it would be of other weights
        if directions is None:
            (folder / LATENTS).unlink(missing_ok=True)
        else:
            save_directions(directions, folder / LATENTS, weights=weights)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool | None = None,
        revision: str | None = None,
        commit_message: str = "Upload model",
        create_pr: bool = False,
        token: str | None = None,
    ) -> str:
        """Push the model to the Hub repo "owner/name", creating it if need be, and return the address of the commit.

        One commit holds weights, a fitted prior, directions, configuration, a card and pictures, and, if the weights are
        those of the folder that the model was loaded from, the figures that are there; with another prior or other
        directions than there, only figures of the weights alone. Raises ValueError in one sentence if that can't be done.
        """
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch)
            self.save_pretrained(folder)
            figures = Figures()
            if self.origin and (self.origin / WEIGHTS).is_file() and fingerprint(self.origin) == fingerprint(folder):
                figures, copied = Figures.read(self.origin), [MAP, CURVES]
                again = folder / "again"  # an older file may have other metadata
                type(self).from_pretrained(self.origin).save_pretrained(again)
                if all(have_same_tensors(again, folder, name) for name in (PRIOR, LATENTS)):
                    copied += [SAMPLES, GENERATED]
                else:
                    figures = figures.without_prior()
                if figures != Figures():
                    figures.write(folder)
                for name in copied:
                    if (self.origin / name).is_file():
                        shutil.copyfile(self.origin / name, folder / name)
            if not (folder / SAMPLES).exists() and figures.test is None:  # else its caption names test pictures
                write(folder / SAMPLES, _draw_sheet(type(self).from_pretrained(folder)).save)
            files = {name: (folder / name).read_bytes() for name in PUSHED if (folder / name).is_file()}
            files[CARD] = model_card(repo_id, self.config, figures, files).encode()
        return push_files(
            files,
            repo_id,
            private=private,
            revision=revision,
            commit_message=commit_message,
            create_pr=create_pr,
            token=token,
        )


def _load(cls: type[P], folder: Path) -> P:
    """Build the model that folder holds, in `eval()`, with its weights alone.

    The config is the one that the weights carry, if they do, else that of config.json. Raises ValueError in one sentence
    if a file is missing, broken or beyond the limits, or if the weights give no finite picture.
    """
    config = read_config(folder)
    if not (folder / WEIGHTS).is_file():
        raise ValueError(f"{folder} holds no {WEIGHTS}, and no other kind of file is opened: pickles can run code")

    def build(metadata: Mapping[str, str]) -> tuple[P, Mapping[str, Tensor]]:
        own = parse_config(parse_metadata(metadata, "config"), folder / WEIGHTS) if "config" in metadata else config
        with torch.device("meta"):  # no memory and no random numbers for weights that are replaced at once
            model = cls(own).float()  # whatever torch's default is
        count_parameters(model)
        return model, model.state_dict()

    model, tensors = read_tensors(folder / WEIGHTS, WEIGHTS, build)
    for key, tensor in tensors.items():
        if key.endswith("running_var") and (tensor < 0).any():
            raise ValueError(f"{folder / WEIGHTS} has negative variances in {key}")
    model.load_state_dict(tensors, assign=True)
    model.eval()
    size = model.config.image_size
    x = torch.full((1, model.config.channels, size, size), 0.5, dtype=torch.float32, device="cpu")
    with torch.no_grad():
        output = model(x, torch.Generator().manual_seed(0))
    if not all(value.isfinite().all() for value in tree_leaves(output)):
        raise ValueError(f"{folder / WEIGHTS} has weights that give no finite picture")
    return model


def _draw_sheet(model: Any) -> Image.Image:
    """Draw the pictures of the first seeds from N(0, I)."""
    with torch.no_grad():
        pictures = model.decode(noise(SHEET, model.config.latent_dim))
    sheet = grid(pictures, columns=len(SHEET) // 2)
    return enlarge(sheet, max(512, *sheet.size))
