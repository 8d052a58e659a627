"""The decoder in the browser: in Chromium it gives the pictures, the walks and the edits that torch gives."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from functools import lru_cache, partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import small_model
from playwright.sync_api import Browser, Page, sync_playwright
from torch import Tensor

import vae.demo.export
from vae import VAE
from vae.attributes import ClassGaussians, fit_attributes
from vae.demo.export import decoder_bytes
from vae.images import to_uint8
from vae.latent import lerp, slerp
from vae.prior import noise

WEB = Path(vae.demo.export.__file__).with_name("web")
CLOSE = 5e-4  # of the [0, 1] pixel range, where 16-bit weights cost up to 2e-4
LATENT_CLOSE = 2e-4  # standard deviations, where 16-bit interplay of attributes costs up to 6e-5
EDITED_SEEDS = 4  # each with every value of every attribute

# What the tests say to the page in few words.
HELPERS = """
    globalThis.numbers = async (name) => new Float32Array(await (await fetch(name)).arrayBuffer());
    globalThis.distance = (a, b) => {
        if (a.length !== b.length) return Infinity;
        return a.reduce((most, value, index) => Math.max(most, Number.isNaN(value) ? Infinity : Math.abs(value - b[index])), 0);
    };
    globalThis.rows = (matrix, count) =>
        Array.from({ length: count }, (_, row) => matrix.subarray((row * matrix.length) / count, ((row + 1) * matrix.length) / count));
"""


class Handler(SimpleHTTPRequestHandler):
    """Serves the files of a folder as they are now, and says nothing of it."""

    def end_headers(self) -> None:
        self.send_header("Cache-Control", "no-store")
        super().end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        pass


class Site:
    """A server on loopback of the page's modules, and of what a test puts beside them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        shutil.copytree(WEB, folder, dirs_exist_ok=True)
        (folder / "page.html").write_text("<!doctype html><link rel=icon href=data:,><title>test</title>")
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder)))
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def put(self, **tensors: Tensor) -> None:
        """Serve numbers, row by row, by their names."""
        for name, tensor in tensors.items():
            (self.folder / name).write_bytes(tensor.detach().float().contiguous().numpy().tobytes())

    def put_model(self, model: VAE) -> bytes:
        """Serve a model as "model", and return what is served."""
        content = decoder_bytes(model)
        (self.folder / "model").write_bytes(content)
        return content

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    site = Site(tmp_path_factory.mktemp("site"))
    yield site
    site.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    chromium = shutil.which("chromium") or shutil.which("google-chrome")  # else the one that playwright installed
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser, site: Site) -> Iterator[Page]:
    """An empty page, which at the end has had no error and asked nobody else for anything."""
    page = browser.new_page()
    errors: list[str] = []
    strangers: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on(
        "request",
        lambda request: None if request.url.startswith((site.url, "data:")) else strangers.append(request.url),
    )
    page.goto(f"{site.url}/page.html")
    page.evaluate(HELPERS)
    yield page
    page.close()
    assert errors == []
    assert strangers == []


MODELS = ["avatars", "fashion-mnist", "mnist", "narrow", "large"]


@lru_cache
def model_of(name: str) -> VAE:
    """Return a bundled model, or a small one: of odd widths, or of another size and in colour."""
    if name == "narrow":  # with names that mean something else to JavaScript
        model = small_model(width=5, depth=2, latent_dim=7)
        return with_directions(model, {"2": ("a", "b", "c"), "__proto__": ("0", "1"), "1": ("no", "yes")})
    if name == "large":
        return with_directions(small_model(image_size=96, channels=3), {"class": ("a", "b", "c")})
    return VAE.from_pretrained(name)


def with_directions(model: VAE, attributes: dict[str, tuple[str, ...]]) -> VAE:
    """Give a model directions of attributes that its latent vectors depend on."""
    generator = torch.Generator().manual_seed(0)
    sizes = [len(values) for values in attributes.values()]
    labels = torch.stack([torch.randint(size, (400,), generator=generator) for size in sizes], dim=1)
    z = torch.randn(400, model.config.latent_dim, generator=generator)
    z[:, : len(sizes)] += labels
    z[:, -1] *= 1 + labels.sum(dim=1)  # the classes differ in their covariances, too
    z[:, -2] += z[:, -1]
    model.directions = fit_attributes(z, labels, attributes)
    return model


def draw(model: VAE, count: int) -> Tensor:
    return model.prior.from_noise(noise(range(count), model.config.latent_dim))


def pictures(model: VAE, z: Tensor) -> Tensor:
    """Decode as the browser has it, channels last, (B, H, W, C)."""
    with torch.no_grad():
        return torch.cat([model.decode(part).permute(0, 2, 3, 1) for part in z.split(64)])


@pytest.mark.parametrize("name", MODELS)
def test_pictures_are_those_of_torch(page: Page, site: Site, name: str) -> None:
    model = model_of(name)
    z = draw(model, 64)
    site.put_model(model)
    site.put(z=z, expected=pictures(model, z))
    error = page.evaluate(
        """async () => {
            const { Decoder } = await import("/decoder.js");
            const decoder = new Decoder(await (await fetch("model")).arrayBuffer());
            const expected = rows(await numbers("expected"), 64);
            return Math.max(...rows(await numbers("z"), 64).map((z, row) => distance(decoder.decode(z), expected[row])));
        }"""
    )
    assert error <= CLOSE


@pytest.mark.parametrize("name", MODELS)
def test_edits_are_those_of_torch(page: Page, site: Site, name: str) -> None:
    model = model_of(name)
    assert model.directions is not None
    z = draw(model, EDITED_SEEDS)
    assert isinstance(model.directions, ClassGaussians) == (len(model.directions.sizes) == 1)
    since = model.directions.predict(z).float()
    targets = [
        (attribute, position)
        for attribute, values in model.directions.attributes.items()
        for position in [*range(len(values)), 0.25]
    ]
    edited = torch.cat(
        [model.directions.edit(z, {attribute: position}, since=since) for attribute, position in targets]
    )
    site.put_model(model)
    site.put(z=z, since=since, edited=edited, expected=pictures(model, edited))
    found = page.evaluate(
        """async ([targets, seeds]) => {
            const { Decoder } = await import("/decoder.js");
            const { Model } = await import("/model.js");
            const decoder = new Decoder(await (await fetch("model")).arrayBuffer());
            const model = await Model.load("model");
            model.close();
            const [z, since] = [rows(await numbers("z"), seeds), rows(await numbers("since"), seeds)];
            const count = targets.length * seeds;
            const [edited, expected] = [rows(await numbers("edited"), count), rows(await numbers("expected"), count)];
            const errors = { latent: 0, picture: 0 };
            for (let index = 0; index < count; index++) {
                const seed = index % seeds;
                const to = new Map([targets[Math.floor(index / seeds)]]);
                const moved = model.directions.edit(z[seed], to, [...since[seed]]);
                errors.latent = Math.max(errors.latent, distance(moved, edited[index]));
                errors.picture = Math.max(errors.picture, distance(decoder.decode(moved), expected[index]));
            }
            return errors;
        }""",
        [targets, EDITED_SEEDS],
    )
    assert found["latent"] <= LATENT_CLOSE
    assert found["picture"] <= CLOSE


def test_an_edit_beyond_the_values_or_of_nothing_known_is_refused(page: Page, site: Site) -> None:
    site.put_model(model_of("narrow"))
    answers = page.evaluate(
        """async () => {
            const { Model } = await import("/model.js");
            const model = await Model.load("model");
            model.close();
            const attempt = (name, position) => {
                try {
                    return String(model.directions.edit(new Float32Array(7), new Map([[name, position]]), [0, 0, 0]));
                } catch (error) {
                    return error.name;
                }
            };
            return [attempt("2", 3), attempt("2", -1), attempt("2", NaN), attempt("constructor", 0)];
        }"""
    )
    assert answers == ["RangeError"] * 4


def walks() -> list[tuple[Tensor, Tensor]]:
    """Ends that are far apart, the same, opposite, nearly so, and at the origin."""
    a, b = noise([1, 2], 16)
    return [
        (a, b),
        (a, 3 * a),
        (a, -a),
        (a, a + 1e-3 * b),
        (a, -a + 1e-3 * b),
        (a, a + 1e-6 * b),
        (0 * a, b),
        (a, 0 * b),
    ]


def test_walks_are_those_of_torch(page: Page, site: Site) -> None:
    t = torch.linspace(0, 1, 11)
    starts, ends = (torch.stack(side) for side in zip(*walks(), strict=True))
    for name, walk in (("slerp", slerp), ("lerp", lerp)):
        site.put(starts=starts, ends=ends, t=t, expected=torch.cat([walk(a, b, t) for a, b in walks()]))
        error, ends_kept = page.evaluate(
            """async ([name, count]) => {
                const walk = (await import("/latent.js"))[name];
                const [a, b] = [rows(await numbers("starts"), count), rows(await numbers("ends"), count)];
                const t = await numbers("t");
                const expected = rows(await numbers("expected"), count * t.length);
                const points = a.flatMap((start, row) => [...t].map((share) => walk(start, b[row], share)));
                const kept = a.every((start, row) => !distance(walk(start, b[row], 0), start) && !distance(walk(start, b[row], 1), b[row]));
                return [Math.max(...points.map((point, index) => distance(point, expected[index]))), kept];
            }""",
            [name, len(starts)],
        )
        assert error <= 1e-5
        assert ends_kept


def test_a_worker_decodes_in_order_and_shows_the_newest_first(page: Page, site: Site) -> None:
    model = model_of("mnist")
    z = draw(model, 8)
    site.put_model(model)
    expected = to_uint8(pictures(model, z)).expand(-1, -1, -1, 3)
    site.put(z=z, expected=torch.cat([expected, torch.full_like(expected[..., :1], 255)], dim=3))
    answer = page.evaluate(
        """async () => {
            const { Model } = await import("/model.js");
            const model = await Model.load("model");
            const z = rows(await numbers("z"), 8);
            const expected = rows(await numbers("expected"), 8);
            const far = (picture, row) => distance(Float32Array.from(picture.data), expected[row]);
            const order = [];
            const shown = [];
            const decode = async (vector, row) => {
                const error = far(await model.decode(vector), row);
                order.push(row);
                return error;
            };
            // Asked for in the same frame, just before what is shown in it: one is with the worker then, the others wait.
            const asked = new Promise((go) => requestAnimationFrame(() => go(Promise.all(z.map(decode)))));
            for (const [row, vector] of z.entries()) {
                const own = vector.slice();
                model.show(own, (picture) => { order.push("shown"); shown.push(far(picture, row)); });
                own.fill(0);  // the page may go on with its own array at once
            }
            const decoded = await asked;
            model.close();
            const after = await model.decode(z[0]).catch((error) => error.message);
            return { order, shown, decoded, after };
        }"""
    )
    assert answer["order"] == [0, "shown", *range(1, 8)]
    assert max(answer["shown"] + answer["decoded"]) <= 1  # of 255
    assert answer["after"] == "the model was closed"


def test_a_page_learns_that_it_has_to_ask_the_server(page: Page, site: Site) -> None:
    site.put_model(model_of("narrow"))
    load = """async ([name, broken]) => {
        const { Model } = await import("/model.js");
        if (broken) globalThis.Worker = class extends Worker { constructor() { super("/nowhere.js", { type: "module" }); } };
        return Model.load(name).then(() => "loaded", (error) => error.message);
    }"""
    assert page.evaluate(load, ["model", False]) == "loaded"
    assert page.evaluate(load, ["missing", False]) == "missing can't be had: 404"
    assert page.evaluate(load, ["model", True]) == "the worker can't be started"


def test_channels_of_any_strength_are_sent_as_exactly(page: Page, site: Site) -> None:
    model = small_model()
    with torch.no_grad():  # channels from a millionth to a million times as strong, which a normalisation evens out
        strength = torch.logspace(-6, 6, len(model.decoder.get_parameter("trunk.2.residual.2.weight")))
        model.decoder.get_parameter("trunk.2.residual.2.weight").mul_(strength[:, None, None, None])
        model.decoder.get_buffer("trunk.2.residual.3.running_mean").mul_(strength)
        model.decoder.get_parameter("trunk.2.residual.3.weight").div_(strength)
        model.decoder.get_parameter("trunk.2.residual.2.weight")[0] = 0
    site.put_model(model)
    z = draw(model, 1)
    site.put(z=z, expected=pictures(model, z))
    error = page.evaluate(
        """async () => {
            const { Decoder } = await import("/decoder.js");
            const decoder = new Decoder(await (await fetch("model")).arrayBuffer());
            return distance(decoder.decode(await numbers("z")), await numbers("expected"));
        }"""
    )
    assert error <= CLOSE


def test_equal_models_give_equal_files(tmp_path: Path) -> None:
    model = model_of("narrow")
    model.save_pretrained(tmp_path)
    assert decoder_bytes(model) == decoder_bytes(VAE.from_pretrained(tmp_path))
