"""The tab that sends a picture through the bottleneck and back, and says how much it is like what the model knows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, get_args

from PIL import Image
from torch import Tensor

from vae.decode import Values
from vae.demo.page import Endpoints, choice_input, picture_input, picture_output, table
from vae.demo.prepare import Invert, prepare_upload
from vae.figures import ScoreMetrics
from vae.generate import decode, encode, score, typicality
from vae.images import psnr, ssim, to_pil
from vae.model import VAE, kl_divergence

FOREIGN, UNUSUAL = 1.0, 10.0  # percentiles of test pictures' scores: below the first, a picture is called foreign


class GivenBack(NamedTuple):
    """A picture before and after the bottleneck.

    seen, back: what the model sees, and what it draws again.
    facts: what web/reconstruct.js calls Facts.
    """

    seen: Image.Image
    back: Image.Image
    facts: dict[str, Any]


def give_back(
    model: VAE,
    picture: str | None,
    invert: Invert = "auto",
    values: Values = "auto",
    crop: Mapping[str, Any] | None = None,
    scores: ScoreMetrics | None = None,
) -> GivenBack:
    """Squeeze the picture in a file through a model; invert, values and crop as in `prepare_upload`.

    scores: of the test pictures that it is compared with.
    Raises ValueError if the picture can't be read or is empty, or an option is none.
    """
    if picture is None:
        raise ValueError("there is no picture: upload one first")
    prepared = prepare_upload(model, picture, invert, values, crop)
    x = prepared.x[None]
    posterior = encode(model, x)
    back = decode(model, posterior.mean)
    mean, logvar = posterior.mean[0], posterior.logvar[0]  # (D,)
    mse = (back - x).square().mean().item()
    place, sentence = compare(model, prepared.x, scores)
    left, top, size = prepared.crop
    facts = {
        "psnr": round(psnr(mse), 2) if mse > 0 else None,
        "ssim": round(ssim(back, x).item(), 4) if min(x.shape[2:]) >= 11 else None,
        "percentile": place,
        "foreign": place is not None and place < FOREIGN,
        "sentence": sentence,
        "notes": list(prepared.notes),
        "mean": mean.tolist(),
        "logvar": logvar.tolist(),
        "kl": kl_divergence(mean[:, None], logvar[:, None]).tolist(),  # of each dimension
        "channels": model.config.channels,
        "picture": prepared.picture,
        "crop": {"left": left, "top": top, "size": size},
    }
    return GivenBack(to_pil(prepared.x), to_pil(back[0]), facts)


def compare(model: VAE, x: Tensor, scores: ScoreMetrics | None) -> tuple[float | None, str]:
    """Return how many in a hundred test pictures are stranger to a model than a picture, (C, H, W), and a sentence of it.

    The number is None, and the sentence empty, if nothing is known of test pictures.
    """
    if scores is None:
        return None, ""
    place = scores.place(score(model, x[None]).item(), typicality(model, x[None]).item())
    if place == 0:
        return place, f"Foreign: less typical than all {scores.pictures:,} test pictures."
    if place < FOREIGN:
        return place, f"Foreign: only {place:.1f} % of test pictures are less typical."
    if place < UNUSUAL:
        return place, f"Unusual: {place:.0f} % of test pictures are less typical."
    return place, f"Familiar: {place:.0f} % of test pictures are less typical."


def reconstruct_endpoints(endpoints: Endpoints) -> None:
    """Add what the tab calls."""
    models = endpoints.models

    def reconstruct(
        model: str,
        picture: str | None,
        invert: Invert = "auto",
        values: Values = "auto",
        crop: dict[str, float] | None = None,
    ) -> GivenBack:
        """Reconstruct a picture: encode it into a few numbers, then decode these.

        Args:
            model: the name of the model.
            picture: the picture; for a model of light objects on black (digits), the object is found and centred.
            invert: invert light and dark; "auto" does so if such a model is given a dark object.
            values: how more than 8 bits become 8: "auto" by the range in use, "full" by the range of the type.
            crop: the square to look at, {"left": 0, "top": 0, "size": 1} in parts of the picture's width; left out, it is found.

        Returns:
            the picture as the model sees it
            the picture that it draws again
            a table: psnr (dB), ssim, percentile (the % of test pictures that are less typical), a sentence, ...
        """
        return give_back(models[model], picture, invert, values, crop, models.scores(model))

    endpoints.add(
        reconstruct,
        [
            picture_input(),
            choice_input("invert", get_args(Invert)),
            choice_input("values", get_args(Values)),
            table("crop"),
        ],
        [picture_output("seen"), picture_output("reconstruction"), table("facts")],
    )
