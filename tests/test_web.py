"""The decoder in the browser: in Chromium it gives the pictures, the walks and the edits that torch gives."""

from __future__ import annotations

import re
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
from playwright.sync_api import Browser, Page, expect, sync_playwright
from torch import Tensor

import vae.demo.export
from vae import VAE
from vae.attributes import ClassGaussians, fit_attributes
from vae.demo.export import decoder_bytes
from vae.demo.learn import code, describe_tiny, place, tiny_models
from vae.demo.map import describe_map
from vae.demo.models import Models
from vae.images import to_uint8
from vae.latent import lerp, slerp
from vae.prior import noise

WEB = Path(vae.demo.export.__file__).with_name("web")
CLOSE = 5e-4  # of the [0, 1] pixel range, where 16-bit weights cost up to 2e-4
LATENT_CLOSE = 2e-4  # standard deviations, where 16-bit interplay of attributes costs up to 6e-5
EDITED_SEEDS = 4  # each with every value of every attribute
expect.set_options(timeout=60_000)  # milliseconds: these machines are shared

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


# --- the map and the tutorial, with an app that answers as the server would -------------------------------------------

# A tab on an empty page: what it shows on the stage, begins with and asks the server for is written down.
MOUNT = """async ([tab, model, answers]) => {
    const { Decoder, toRgba } = await import("/decoder.js");
    const decoder = new Decoder(await (await fetch("model")).arrayBuffer());
    const decode = (z) => {
        const { image_size: size, channels } = decoder.config;
        return new ImageData(toRgba(decoder.decode(z), channels), size, size);
    };
    const style = Object.assign(document.createElement("link"), { rel: "stylesheet", href: "/style.css" });
    await new Promise((go) => { style.onload = go; document.head.append(style); });
    const app = Object.assign(new EventTarget(), {
        model,
        z: new Float32Array(decoder.config.latent_dim),
        state: { present: { model, positions: new Map(), picture: null } },
        shown: [], begun: [], asked: [], said: "", isByServer: false,
        decode: async (z) => decode(z),
        call: async (endpoint) => { app.asked.push(endpoint); return [answers[endpoint]]; },
        show: (z) => {
            app.shown.push(z && [...z]);
            if (z) app.dispatchEvent(new CustomEvent("paint", { detail: { picture: decode(z), z } }));
        },
        begin: (source) => app.begun.push([...source.z]),
        say: (text) => { app.said = text; },
    });
    globalThis.app = app;
    const { mount } = await import(`/${tab}.js`);
    const page = document.createElement("div");
    page.className = "vae";
    const panel = Object.assign(document.createElement("div"), { className: `panel ${tab}` });
    page.append(panel);
    document.body.append(page);
    await mount(panel, app).update();
}"""


def mount(page: Page, site: Site, tab: str, model: VAE, **answers: Any) -> None:
    site.put_model(model)
    page.evaluate(MOUNT, [tab, "mnist", answers])


def test_places_on_the_map_have_latent_vectors(page: Page, site: Site) -> None:
    told = describe_map(model_of("mnist"))
    answer = page.evaluate(
        """async (chart) => {
            const { Points } = await import("/points.js");
            const points = new Points(chart);
            const [x, y] = points.places.subarray(0, 2);
            const near = points.latentAt(x + 1e-4, y);
            // On a walk across the map no step is far from the one before it.
            const walk = Array.from({ length: 401 }, (_, step) => points.latentAt(step / 200 - 1, 0.1));
            return {
                count: points.count,
                exact: distance(points.latentAt(x, y), points.latent(0)),
                near: distance(near, points.latent(0)),
                jump: Math.max(...walk.slice(1).map((z, step) => distance(z, walk[step]))),
                back: distance(points.placeOf(points.latent(7)), points.places.subarray(14, 16)),
                nearest: points.nearest(x, y),
            };
        }""",
        told,
    )
    assert answer["count"] == 2000
    assert answer["nearest"] == 0
    assert answer["exact"] == 0
    assert answer["near"] < 0.3
    assert answer["back"] < 1e-6
    assert 0 < answer["jump"] < 2.5  # standard deviations: the nearest picture alone would jump by 4


def test_the_map_shows_keeps_and_plays(page: Page, site: Site) -> None:
    model = model_of("mnist")
    mount(page, site, "map", model, map_points=describe_map(model))
    over = page.locator(".scatter .over")
    expect(page.locator(".legend .pill")).to_have_count(10)
    expect(page.locator(".intro")).to_contain_text("2,000 test pictures")
    box = over.bounding_box()
    assert box is not None
    middle = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(*middle)
    assert page.evaluate("app.shown.length") > 0  # on the stage, but nothing is begun with
    expect(page.locator(".tip .says")).to_contain_text("nearest test picture")
    assert page.evaluate("app.begun.length") == 0
    page.mouse.click(*middle)
    assert page.evaluate("app.begun.length === 1 && distance(app.begun[0], app.shown.at(-1)) === 0")
    page.mouse.down()
    page.mouse.move(middle[0] + 60, middle[1] + 10, steps=6)
    page.mouse.up()
    page.wait_for_function("app.begun.length === 2", timeout=30_000)  # a path plays, and its end is kept
    expect(page.get_by_role("button", name="Play the path")).to_be_visible()
    page.mouse.move(0, 0)
    assert page.evaluate("app.shown.at(-1)") is None  # back to the present picture
    over.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    assert page.evaluate("app.begun.length === 3 && distance(app.begun[2], app.shown.at(-1)) === 0")
    page.locator(".legend .pill").nth(3).click()
    expect(page.locator(".pill[aria-pressed=true]")).to_have_text("3")


def test_the_tutorial_runs_on_the_present_picture(page: Page, site: Site) -> None:
    model = model_of("mnist")
    models = Models(["mnist"])
    tiny = [describe_tiny(each, models) for each in tiny_models()]
    (site.folder / "decoders").mkdir()
    for digest, content in models.sent.items():
        (site.folder / "decoders" / digest).write_bytes(content)
    told = place(model, None, {"z": draw(model, 1)[0].tolist()})
    tutorial = {"code": code(), "shape": [1, 28, 32], "width": 64, "grid": 7, "tiny": tiny}
    mount(page, site, "learn", model, tutorial=tutorial, place_picture=told)
    expect(page.get_by_role("heading", level=3)).to_have_count(7)
    for part in [part for parts in code().values() for part in parts]:
        assert page.get_by_text(part["lines"], exact=True).count() == 1
    page.wait_for_function("document.querySelector('canvas.sheet').width > 400")  # every card is filled
    # Without spread the point is the mean itself; with it, a roll moves it.
    page.get_by_label("How much noise, in times σ").fill("0")
    assert page.evaluate("(mean) => distance(app.shown.at(-1), mean) < 1e-6", told["mean"])
    page.get_by_label("How much noise, in times σ").fill("2")
    before = page.evaluate("app.shown.at(-1)")
    page.get_by_role("button", name="Roll ε").click()
    assert page.evaluate("(before) => distance(app.shown.at(-1), before) > 0.01", before)
    page.get_by_role("button", name="Keep this picture").click()
    assert page.evaluate("distance(app.begun[0], app.shown.at(-1)) === 0")
    # The slider over β says where it stands, and the scatter decodes under the pointer.
    slider = page.get_by_label("β, the weight of the KL")
    expect(slider).to_have_attribute("aria-valuetext", "β = 1, variational autoencoder")
    slider.press("ArrowRight")
    expect(slider).to_have_attribute("aria-valuetext", "β = 2, too tidy")
    pixels = "document.querySelector('.thumb canvas').toDataURL()"
    first = page.evaluate(pixels)
    page.locator(".pair .over").hover(position={"x": 20, "y": 60})
    assert page.evaluate(pixels) != first
    page.get_by_text("without", exact=True).click()
    expect(page.locator("svg.gradient")).to_have_attribute("aria-label", re.compile("the encoder would learn nothing"))
    page.evaluate("document.querySelector('.panel').hidden = true")  # another tab: the stage shows the present picture
    page.wait_for_function("app.shown.at(-1) === null")
