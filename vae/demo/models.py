"""The models that the page offers."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from PIL import Image

from vae.attributes import ClassGaussians
from vae.data import DATASETS, load_examples
from vae.demo.export import decoder_bytes
from vae.figures import Figures, ScoreMetrics, format_mse
from vae.generate import generate
from vae.hub import bundled_names, find_model, resolve_model
from vae.images import to_pil, to_unit
from vae.model import VAE

FACE_SEED = 0
RETRY_SECONDS = 10.0  # after which a Hub that was down is asked for a model again
EXAMPLES = 10  # shown of a dataset whose pictures are of no one class
MAX_SENT_BYTES = 32 * 2**20  # of a decoder that visitors fetch; larger ones stay here
MAX_SENT_DIMENSIONS = 128  # of class Gaussians: a browser would be busy for seconds with more


class Models:
    """The models that the page offers, by name; each is loaded when it is first asked for, once for all visitors.

    Nobody waits long for a Hub that is down: there is the copy in the cache instead, or the bundled models.

    names: what is offered, first what can be had at once.
    notices: what the visitor should know of it, a sentence each.
    refused: why a model that was named is not offered, by its name.
    sent: the files of decoders that browsers may fetch, by the digest of their content.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.notices: list[str] = []
        self.refused: dict[str, str] = {}
        self.sent: dict[str, bytes] = {}
        self._digests: dict[str, str | None] = {}
        self._locks: dict[str, threading.Lock] = {}
        self._loaded: dict[str, tuple[VAE, Figures]] = {}
        self._failed: dict[str, tuple[float, str]] = {}  # until when the Hub isn't asked again, and why
        ready, awaited = [], []
        with ThreadPoolExecutor(max(1, len(names))) as executor:
            searches = {name: executor.submit(resolve_model, name) for name in names}
        for name, search in searches.items():
            try:
                notice = search.result()[1]
                ready.append(name)
            except ConnectionError as error:
                awaited.append(name)
                notice = f"{error}. Choose it again later"
            except ValueError as error:
                self.refused[name] = notice = str(error)
            if notice:
                self.notices.append(notice)
        if not ready:
            ready = bundled_names()
            self.notices.append("The models shown here come with the page")
        self.names = [*ready, *awaited]

    def is_away(self, name: Any) -> bool:
        """Tell whether `name` is that of a model which is offered, but not loaded yet."""
        return isinstance(name, str) and name in self.names and name not in self._loaded

    def __getitem__(self, name: str) -> VAE:
        """Return the model called `name`. Raises ValueError if it isn't offered or can't be loaded."""
        return self._load(name)[0]

    def _load(self, name: str) -> tuple[VAE, Figures]:
        if name not in self.names:
            raise ValueError(f"there is no model {name!r} here: choose one of {', '.join(self.names)}")
        if name in self._loaded:
            return self._loaded[name]
        with self._locks.setdefault(name, threading.Lock()):  # who waits for one doesn't keep others from theirs
            if name not in self._loaded:
                until, reason = self._failed.get(name, (0.0, ""))
                if time.monotonic() < until:
                    raise ValueError(reason)
                try:
                    options, _ = resolve_model(name)
                except ConnectionError as error:
                    self._failed[name] = time.monotonic() + RETRY_SECONDS, str(error)
                    raise ValueError(str(error)) from None
                folder = find_model(name, **options)
                try:
                    self._loaded[name] = VAE.from_pretrained(folder), _read_figures(folder)
                except ValueError as error:
                    raise ValueError(str(error).replace(str(folder), name)) from None  # not where our cache is
            return self._loaded[name]

    def weights(self, name: str) -> str | None:
        """Return the digest of the decoder that a browser may fetch, or None if it is too much for one."""
        model = self[name]
        with self._locks[name]:
            if name not in self._digests:
                content = None if _is_large(model) else decoder_bytes(model)
                self._digests[name] = hashlib.sha256(content).hexdigest() if content else None
                if content:
                    self.sent[hashlib.sha256(content).hexdigest()] = content
            return self._digests[name]

    def figures(self, name: str) -> Figures:
        """Return what was measured of the model called `name`."""
        return self._load(name)[1]

    def scores(self, name: str) -> ScoreMetrics | None:
        """Return how usual test pictures are, if that was measured; a stranger's figures may hold anything."""
        scores = self.figures(name).scores
        lists = (scores.score, scores.typicality, scores.lower) if scores else ()
        return scores if lists and all(len(each) > 1 and each == sorted(each) for each in lists) else None

    def ordered(self, name: str) -> Sequence[str]:
        """Return the attributes whose values have an order."""
        dataset = self._load(name)[1].dataset
        return DATASETS[dataset.name].ordered if dataset and dataset.name in DATASETS else ()

    def offered(self, name: str, attribute: str, max_failures: float) -> list[bool]:
        """Tell of each value of an attribute whether edits to it fail no more often than that, as far as is known."""
        model, figures = self._load(name)
        values = model.directions.attributes.get(attribute, ()) if model.directions else ()
        measured = figures.attributes.get(attribute)
        hits = measured.edited_by_value if measured else {}
        return [hits.get(value, 1.0) >= 1 - max_failures for value in values]

    def choices(self) -> list[tuple[str, str]]:
        """Return what to show and the name of each model: the last part of its path, if that tells them apart."""
        short = [Path(name.partition("@")[0]).name + "".join(name.partition("@")[1:]) for name in self.names]
        return list(zip(short if len(set(short)) == len(short) else self.names, self.names, strict=True))

    def about(self, name: str) -> dict[str, Any]:
        """Tell what the model called `name` is: texts, of which a stranger may have written any, and figures.

        figures: pairs of what was measured and the figure, as text.
        """
        model, figures = self._load(name)
        config, dataset = model.config, figures.dataset
        known = dataset is not None and dataset.name in DATASETS
        told = [
            ("Picture", f"{config.channels} × {config.image_size} × {config.image_size} numbers"),
            ("Latent vector", f"{config.latent_dim} numbers"),
        ]
        test = figures.test
        if test and 0 <= test.mse <= 1:
            told += [("Mean squared error on the test set", format_mse(test.mse)), ("PSNR", f"{test.psnr:.1f} dB")]
        return {
            "title": DATASETS[dataset.name].title if dataset and known else Path(name).name,
            "data": f"{dataset.source}, {dataset.licence}" if dataset and known else "",
            "attribution": config.attribution,
            "figures": told,
        }

    def face(self, name: str) -> Image.Image:
        """Return a picture that the model called `name` draws, by which visitors know it."""
        model = self[name]
        return to_pil(generate(model, [FACE_SEED])[0])

    def examples(self, name: str) -> list[tuple[Image.Image, str]]:
        """Return ten test pictures of the model's dataset and, if there are, their classes; empty if none come with us."""
        dataset = self._load(name)[1].dataset
        try:
            images, labels, attributes = load_examples(dataset.name if dataset else "")
        except ValueError:
            return []
        if len(attributes) > 1:
            return [(to_pil(to_unit(image)), "") for image in images[:EXAMPLES]]
        ((_, names),) = attributes.items()
        first = [int((labels[:, 0] == label).nonzero()[0]) for label in range(len(names))]
        return [(to_pil(to_unit(images[index])), names[int(labels[index, 0])]) for index in first]


def _is_large(model: VAE) -> bool:
    """Tell whether a browser had better leave a model's decoder to the server."""
    numbers = sum(parameter.numel() for parameter in model.decoder.parameters())
    is_class = isinstance(model.directions, ClassGaussians)
    return 2 * numbers > MAX_SENT_BYTES or (is_class and model.config.latent_dim > MAX_SENT_DIMENSIONS)


def _read_figures(folder: Path) -> Figures:
    """Read the figures of a model; a model whose figures are broken is shown without them."""
    try:
        return Figures.read(folder)
    except ValueError:
        return Figures()
