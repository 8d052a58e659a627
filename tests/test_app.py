"""The real page: app.py in a process of its own, asked through its API and driven in a real browser."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from conftest import TOKEN, small_model
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from hub_server import Hub
from PIL import Image
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright
from torch import Tensor

from vae import VAE, StandardNormal, generate, reconstruct
from vae.attributes import fit_attributes
from vae.data import DATASETS
from vae.demo.explore import begin, explore, turn
from vae.generate import decode
from vae.images import to_pil, to_uint8

CLOSED = "http://127.0.0.1:9"  # no server is there
LOADING = 60_000  # milliseconds: these machines are shared


@contextmanager
def running(*options: str, **env: str) -> Iterator[str]:
    """Run app.py and yield its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "app.py", "--port", str(port), *options]
    with (
        # Gradio names its files by their content and deletes them at its end: also those that another page shows.
        tempfile.TemporaryDirectory() as files,
        subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=os.environ | {"PYTHONUNBUFFERED": "1", "GRADIO_TEMP_DIR": files} | env,
        ) as app,
    ):
        assert app.stdout is not None
        said = []
        for line in app.stdout:
            said.append(line)
            if address := re.search(r"http://127\.0\.0\.1:\d+", line):
                break
        else:
            pytest.fail("".join(said))
        try:
            yield address[0]
        finally:
            app.terminate()
            rest = app.stdout.read()
            assert not list(Path(files).glob("unvaelievable-*"))  # nor anything that was sent
    assert "Traceback" not in rest
    assert max(map(len, rest.splitlines()), default=0) < 500
    assert TOKEN not in "".join(said) + rest


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The address of a running app.py with the bundled models."""
    with running() as address:
        yield address


@pytest.fixture(scope="module")
def client(server: str, tmp_path_factory: pytest.TempPathFactory) -> Client:
    return Client(
        server, download_files=str(tmp_path_factory.mktemp("downloads")), verbose=False, analytics_enabled=False
    )


@pytest.fixture
def sneaker(sneakers: Tensor, tmp_path: Path) -> Path:
    to_pil(sneakers[0]).save(tmp_path / "sneaker.png")
    return tmp_path / "sneaker.png"


def test_generate_endpoint_gives_the_pictures_of_the_package(client: Client) -> None:
    gallery = client.predict("mnist", 3, 17, 1, "fitted", api_name="/generate")
    expected = to_uint8(generate(VAE.from_pretrained("mnist"), [17, 18, 19]))
    for entry, row, seed in zip(gallery, expected, (17, 18, 19), strict=True):
        assert entry["caption"] == f"seed {seed}"
        with Image.open(entry["image"]) as picture:
            assert np.abs(np.array(picture.convert("L"), dtype=int) - row[0].numpy()).max() <= 1


def test_reconstruct_endpoint(client: Client, sneaker: Path) -> None:
    seen, back, nearness = client.predict("fashion-mnist", handle_file(str(sneaker)), "auto", api_name="/reconstruct")
    with Image.open(seen) as picture, Image.open(sneaker) as original:
        assert np.array_equal(np.array(picture.convert("L")), np.array(original))
    with Image.open(back) as picture:
        assert picture.size == (28, 28)
    decibel = re.match(r"\*\*([\d.]+) dB\*\*", nearness)
    assert decibel is not None
    assert float(decibel[1]) > 18


def test_interpolate_endpoint(client: Client, sneaker: Path) -> None:
    here, strip = client.predict(
        "fashion-mnist", handle_file(str(sneaker)), 0, None, 5, 0.25, 7, "lerp", api_name="/interpolate"
    )
    with Image.open(here) as picture:
        assert picture.size == (28, 28)
    with Image.open(strip) as picture:
        assert picture.size == (7 * 28 + 6, 28)


def test_explore_endpoint(client: Client, sneaker: Path) -> None:
    path = client.predict("avatars", None, 3, {"hair colour": 4, "beard": 0.5}, api_name="/explore")
    expected = explore(VAE.from_pretrained("avatars"), None, 3, {"hair colour": 4, "beard": 0.5})
    with Image.open(path) as picture:
        assert np.abs(np.array(picture.convert("RGB"), dtype=int) - np.array(expected)).max() <= 1
    path = client.predict("fashion-mnist", handle_file(str(sneaker)), 0, {}, api_name="/explore")
    with Image.open(path) as picture:
        assert picture.size == (28, 28)


def test_only_the_four_endpoints_are_public(client: Client) -> None:
    api = client.view_api(return_format="dict", print_info=False)
    assert set(api["named_endpoints"]) == {"/explore", "/generate", "/reconstruct", "/interpolate"}
    names = {
        name: [parameter["parameter_name"] for parameter in endpoint["parameters"]]
        for name, endpoint in api["named_endpoints"].items()
    }
    assert names["/generate"] == ["model", "count", "seed", "temperature", "prior"]
    assert {parameters[0] for parameters in names.values()} == {"model"}


def test_endpoints_refuse_bad_input_in_a_sentence(client: Client, tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_text("no picture")
    for arguments, endpoint, sentence in (
        (("mnist", 3, -1, 1), "/generate", "-1"),
        (("avatars", None, 0, {"hat": 1}), "/explore", "There is no slider 'hat'"),
        (("avatars", None, 0, {"beard": 1e30}), "/explore", "Beard must be from 0 to 5"),
        (("mnist", 1000, 0, 1), "/generate", "1000"),
        (("../../etc", 3, 0, 1), "/generate", "../../etc"),
        (("mnist", handle_file(str(broken)), "auto"), "/reconstruct", "Broken.png is not a picture in a known format"),
    ):
        with pytest.raises(AppError, match=re.escape(sentence)):
            client.predict(*arguments, api_name=endpoint)


def called(server: str, endpoint: str, data: list[Any]) -> str:
    """Call an endpoint by hand, since the client would upload its own file of a path; return the event that ends it."""
    event = httpx.post(f"{server}/gradio_api/call/{endpoint}", json={"data": data}, timeout=60).json()["event_id"]
    return httpx.get(f"{server}/gradio_api/call/{endpoint}/{event}", timeout=60).text


@pytest.mark.parametrize("meta", [{}, {"meta": {"_type": "gradio.FileData"}}])
def test_a_file_of_the_server_is_not_read(server: str, meta: dict[str, Any]) -> None:
    """Not with what gradio marks files by, nor without, and a device isn't waited for."""
    for path in (str(Path("vae/examples/mnist.png").resolve()), "/dev/ptmx", "vae/examples/mnist.png", "/nothing"):
        for endpoint, data in (
            ("reconstruct", ["mnist", {"path": path} | meta, "no"]),
            ("explore", ["mnist", {"path": path} | meta, 0, {}]),
            ("interpolate", ["mnist", None, 0, {"path": path} | meta, 0, 0.5, 5, "slerp"]),
        ):
            answer = called(server, endpoint, data)
            assert answer.startswith("event: error")
            assert "This picture is not on the page: upload it first." in answer
    answer = called(server, "reconstruct", ["mnist", {"url": "data:image/png;base64,iVBORw0KGgo="} | meta, "no"])
    assert "Original must be a picture that was uploaded" in answer


def test_wrong_types_are_answered_in_words(server: str) -> None:
    wrong: list[Any] = ["x", [1], {"a": 1}, True, None, "m" * 10_000]
    for value in wrong:
        for index in range(5):
            data = ["mnist", 1, 0, 1, "fitted"]
            answer = called(server, "generate", [*data[:index], value, *data[index + 1 :]])
            error = json.loads(answer.partition("data: ")[2].partition("\n")[0])["error"]
            assert re.fullmatch(r"[^\n]{10,200}\.", error)


def test_other_ways_in_are_closed_in_words(server: str) -> None:
    for method, path, body, status in (
        ("POST", "upload", b"x" * 100_000, 413),
        ("POST", "queue/join", b'{"data": [], "fn_index": 999, "session_hash": "x"}', 400),
        ("POST", "queue/join", b'{"data": [], "fn_index": ' + b"[" * 60_000, 400),
        ("POST", "run/nothing", b'{"data": []}', 400),
        ("POST", "process_recording", b"{}", 404),
        ("GET", "file=/etc/passwd", b"", 404),
        ("GET", "file=http://127.0.0.1:9/", b"", 404),
        ("GET", "proxy=http://127.0.0.1:9/", b"", 404),
    ):
        headers = {"content-type": "application/json"}
        answer = httpx.request(method, f"{server}/gradio_api/{path}", content=body, headers=headers, timeout=60)
        assert (answer.status_code, path) == (status, path)
        assert answer.json()["detail"]
    large = httpx.post(f"{server}/gradio_api/upload", files={"files": ("a.png", bytes(21 * 2**20))}, timeout=60)
    assert large.status_code == 413


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--model", "weights"), "weights holds no config.json"),
        (("--model", "nothing"), "there is no model 'nothing'"),
        (("--host", "no.such.host"), "--host no.such.host is no address of this machine"),
        (("--port", "99999"), "--port must be from 1 to 65535, got 99999"),
    ],
)
def test_app_refuses_what_it_cannot_show(arguments: tuple[str, ...], sentence: str) -> None:
    command = [sys.executable, "app.py", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr


# --- in a browser ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    chromium = shutil.which("chromium") or shutil.which("google-chrome")  # else the one that playwright installed
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser, server: str) -> Iterator[Page]:
    """The page, opened and filled; at the end it has had no error and asked nobody else for anything."""
    page = browser.new_page(viewport={"width": 1280, "height": 1100})
    page.set_default_timeout(LOADING)
    errors: list[str] = []
    strangers: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on(
        "request",
        lambda request: None if request.url.startswith((server, "data:", "blob:")) else strangers.append(request.url),
    )
    page.goto(server)
    wait_until_settled(page)
    yield page
    page.close()
    assert errors == []
    assert strangers == []


def source(page: Page, selector: str) -> str:
    return page.locator(f"{selector} img").first.get_attribute("src", timeout=LOADING) or ""


def wait_for_another(page: Page, selector: str, source: str) -> None:
    expect(page.locator(f"{selector} img").first).not_to_have_attribute("src", source, timeout=LOADING)


def open_generate(page: Page) -> Locator:
    """Open the tab, wait until it is filled, and return its pictures."""
    page.get_by_role("tab", name="Generate").click()
    gallery = page.locator("#generate-gallery button.thumbnail-item")
    expect(gallery).to_have_count(32, timeout=LOADING)
    return gallery


def wait_until_settled(page: Page) -> None:
    """Wait until the stage and all thumbnails of Explore show what is set."""
    page.evaluate(
        """async (limit) => {
            const module = await import(new URL("web/explore.js", document.baseURI));
            const end = performance.now() + limit;
            while (!module.explore?.isSettled) {
                if (performance.now() > end) throw new Error("Explore does not settle");
                await new Promise((go) => setTimeout(go, 20));
            }
        }""",
        LOADING,
    )


def stage(page: Page) -> np.ndarray:
    """Return the picture on the stage, (H, W, 3) uint8."""
    wait_until_settled(page)
    side, values = page.locator(".stage canvas").evaluate(
        "canvas => [canvas.width, [...canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.width).data]]"
    )
    return np.array(values, dtype=np.uint8).reshape(side, side, 4)[..., :3]


def expect_stage(page: Page, picture: np.ndarray) -> None:
    """Wait until the stage shows a picture, (H, W, 3) uint8, but for rounding."""
    end = time.monotonic() + LOADING / 1000
    while np.abs(stage(page).astype(int) - picture).max() > 1:
        assert time.monotonic() < end, "the stage shows another picture"
        page.wait_for_timeout(50)


def latent(page: Page) -> Tensor:
    """Return the latent vector, (1, D), of the picture on the stage."""
    wait_until_settled(page)
    return torch.tensor([page.evaluate("async () => [...(await import('/web/explore.js')).explore.z]")])


def difference(page: Page, expected: Image.Image) -> int:
    """Return how far the stage is from a picture at most, of 255."""
    return int(np.abs(stage(page).astype(int) - np.array(expected.convert("RGB"))).max())


def test_a_chip_edits_the_picture_as_torch_does(page: Page) -> None:
    for name, attribute, value in (("avatars", "beard", "full"), ("mnist", "digit", "7")):
        page.locator("#model").get_by_label(name, exact=True).check()
        stage_picture = page.get_by_role("img", name=re.compile(f"^{name}, "))
        expect(stage_picture).to_be_visible(timeout=LOADING)
        model = VAE.from_pretrained(name)
        assert difference(page, explore(model, None, 0, {})) <= 1
        assert model.directions is not None
        position = model.directions.attributes[attribute].index(value)
        page.get_by_role("group", name=attribute, exact=True).get_by_label(value, exact=True).check()
        expect(stage_picture).to_have_accessible_name(re.compile(f"{attribute} {value},"))
        edited = explore(model, None, 0, {attribute: position})
        assert difference(page, edited) <= 1
        z, described = begin(model, None, 0)
        expected = decode(model, turn(model, z, described, {attribute: position})[None])
        assert (decode(model, latent(page)) - expected).abs().max() < 1e-3
        # And the chip has it in small.
        thumbnail = page.locator(".chip:has(input:checked) canvas").all()
        assert {canvas.evaluate("canvas => canvas.width") for canvas in thumbnail} == {model.config.image_size}


def test_sliders_move_between_values_only_where_there_is_an_order(page: Page) -> None:
    model = VAE.from_pretrained("avatars")
    assert DATASETS["avatars"].ordered == ("skin colour",)
    sliders = page.locator(".explore .controls > .slider")
    expect(sliders).to_have_count(1)
    skin = page.get_by_role("slider", name="skin colour")
    skin.fill("1.5")
    expect(skin).to_have_attribute("aria-valuetext", "between brown and tan")
    assert difference(page, explore(model, None, 0, {"skin colour": 1.5})) <= 1
    page.get_by_text("More", exact=True).click()
    axis = page.get_by_role("slider", name="axis 2", exact=True)
    axis.fill("-2")
    assert difference(page, explore(model, None, 0, {"skin colour": 1.5, "axis 2": -2})) <= 1


def test_undo_redo_and_reset(page: Page) -> None:
    undo, redo = page.get_by_role("button", name="Undo"), page.get_by_role("button", name="Redo")
    expect(undo).to_be_disabled()
    first = stage(page)
    page.get_by_label("full", exact=True).check()
    second = stage(page)
    page.get_by_role("button", name="Random").click()
    expect(page.get_by_role("img", name="from seed 0", exact=False)).to_have_count(0, timeout=LOADING)
    third = stage(page)
    undo.click()
    assert np.array_equal(stage(page), second)
    undo.click()
    assert np.array_equal(stage(page), first)
    expect(undo).to_be_disabled()
    redo.click()
    assert np.array_equal(stage(page), second)
    expect(page.get_by_label("full", exact=True)).to_be_checked()
    redo.click()
    assert np.array_equal(stage(page), third)
    expect(redo).to_be_disabled()
    undo.click()
    page.get_by_role("button", name="Reset").click()
    assert np.array_equal(stage(page), first)
    expect(redo).to_be_disabled()
    undo.click()
    assert np.array_equal(stage(page), second)
    # A seed that is typed leaves what was set.
    page.get_by_text("More", exact=True).click()
    page.get_by_role("spinbutton", name="Seed").fill("7")
    page.get_by_role("spinbutton", name="Seed").press("Enter")
    expect(page.get_by_role("img", name="beard full, ", exact=False)).to_have_accessible_name(re.compile("from seed 7"))
    assert difference(page, explore(VAE.from_pretrained("avatars"), None, 7, {"beard": 4})) <= 1


def test_a_link_leads_back(page: Page, sneaker: Path) -> None:
    page.locator("#model").get_by_label("fashion-mnist").check()
    expect(page.get_by_role("img", name="fashion-mnist, ", exact=False)).to_be_visible(timeout=LOADING)
    page.get_by_label("Bag", exact=True).check()
    address = "location.href"  # which page.url learns of later
    by_seed = page.evaluate(address)
    pictures = [stage(page)]
    page.locator("#explore-picture input[type=file]").set_input_files(sneaker)
    expect(page.get_by_role("img", name="from a picture of your own", exact=False)).to_be_visible(timeout=LOADING)
    page.get_by_label("Ankle boot", exact=True).check()
    pictures.append(stage(page))
    for link, picture in zip((by_seed, page.evaluate(address)), pictures, strict=True):
        page.goto("about:blank")
        page.goto(link)
        expect_stage(page, picture)
        expect(page.locator("#model").get_by_label("fashion-mnist")).to_be_checked()
        assert page.evaluate(address) == link
        page.reload()
        expect_stage(page, picture)
    # Nonsense in a link does no harm.
    for fragment in ("model=mnist&seed=99999999999", "model=../etc&seed=1", "model=mnist&z=%25%25%25", "model=mnist"):
        page.goto("about:blank")
        page.goto(f"{link.partition('#')[0]}#{fragment}")
        wait_until_settled(page)
        expect(page.get_by_role("img", name="from seed 0", exact=False)).to_be_visible()
    page.goto("about:blank")
    page.goto(f"{link.partition('#')[0]}#model=mnist&seed=3&at=[[%22digit%22,99],[%22hat%22,1],5]")
    assert difference(page, explore(VAE.from_pretrained("mnist"), None, 3, {"digit": 9})) <= 1


def test_a_picture_of_ones_own_is_begun_with(page: Page, sneaker: Path) -> None:
    page.locator("#model").get_by_label("fashion-mnist").check()
    own = page.get_by_role("img", name="from a picture of your own", exact=False)
    page.locator("#explore-picture input[type=file]").set_input_files(sneaker)
    expect(own).to_be_visible(timeout=LOADING)
    with Image.open(sneaker) as picture:
        x = torch.from_numpy(np.array(picture.convert("L"), dtype=np.float32) / 255)[None, None]
    assert difference(page, to_pil(reconstruct(VAE.from_pretrained("fashion-mnist"), x)[0])) <= 1
    page.get_by_role("button", name="Random").click()
    expect(own).to_have_count(0, timeout=LOADING)
    expect(page.locator("#explore-picture img")).to_have_count(0, timeout=LOADING)
    page.locator("#explore-examples button.thumbnail-item").nth(8).click()
    expect(page.get_by_role("img", name="from a picture of your own", exact=False)).to_be_visible(timeout=LOADING)
    page.locator("#explore-picture").get_by_label("Remove Image").click()
    expect(own).to_have_count(0, timeout=LOADING)


def test_a_value_whose_edits_often_fail_is_not_offered(page: Page) -> None:
    page.locator("#model").get_by_label("fashion-mnist").check()
    expect(page.get_by_label("Ankle boot", exact=True)).to_be_visible(timeout=LOADING)
    wait_until_settled(page)
    offered = page.locator(".chip:visible").all_inner_texts()
    assert offered == [name for name in DATASETS["fashion-mnist"].attributes["class"] if name not in ("Coat", "Shirt")]


@pytest.mark.parametrize("broken", ["weights", "worker"])
def test_where_the_browser_cannot_decode_the_server_draws(browser: Browser, server: str, broken: str) -> None:
    page = browser.new_page()
    page.set_default_timeout(LOADING)
    page.route("**/decoders/*" if broken == "weights" else "**/worker.js", lambda route: route.abort())
    page.goto(f"{server}#model=mnist&seed=4")
    expect(page.locator(".explore.by-server .status")).to_contain_text("The server draws")
    model = VAE.from_pretrained("mnist")
    assert difference(page, explore(model, None, 4, {})) <= 1
    page.get_by_label("3", exact=True).check()
    expect(page.get_by_role("img", name="digit 3", exact=False)).to_be_visible()
    assert difference(page, explore(model, None, 4, {"digit": 3})) <= 1
    page.close()


def test_on_a_phone_the_stage_is_seen_with_every_control(browser: Browser, server: str) -> None:
    page = browser.new_page(viewport={"width": 390, "height": 844}, reduced_motion="reduce")
    page.goto(server)
    wait_until_settled(page)
    page.get_by_text("More", exact=True).click()
    controls = page.locator(".explore .chip:visible, .explore .slider:visible")
    assert controls.count() > 50
    for control in controls.all():
        control.evaluate("control => control.scrollIntoView({ block: 'nearest' })")
        picture, box = page.locator(".stage canvas").bounding_box(), control.bounding_box()
        assert picture is not None
        assert box is not None
        assert picture["height"] >= 0.35 * 844
        assert picture["y"] >= 0
        buttons = page.locator(".stage").bounding_box()
        assert buttons is not None
        assert box["y"] >= buttons["y"] + buttons["height"] - 1
        assert box["y"] + box["height"] <= 844 + 1
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.close()


def test_chips_are_reached_by_the_keyboard_and_the_focus_is_seen(page: Page) -> None:
    page.get_by_role("button", name="Copy link").focus()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.type") == "radio"
    name = page.evaluate("document.activeElement.ariaLabel")
    page.keyboard.press("ArrowRight")
    wait_until_settled(page)
    assert page.evaluate("document.activeElement.ariaLabel") != name
    assert page.locator(".chip:has(:focus-visible)").evaluate("chip => getComputedStyle(chip).outlineStyle") == "solid"


def test_what_strangers_call_their_values_is_text(browser: Browser, tmp_path: Path) -> None:
    model = small_model()
    z = torch.randn(60, model.config.latent_dim, generator=torch.Generator().manual_seed(0))
    values = ["<img src=x onerror=alert(1)>", "${alert(1)}", "b"]
    model.directions = fit_attributes(z, torch.arange(60)[:, None] % 3, {"<b>a</b>": values})
    model.save_pretrained(tmp_path)
    with running("--model", str(tmp_path)) as address:
        page = browser.new_page()
        page.on("dialog", lambda dialog: pytest.fail(dialog.message))
        page.goto(address)
        wait_until_settled(page)
        assert page.locator(".chip").all_inner_texts() == values
        expect(page.locator(".explore legend")).to_have_text("<b>a</b>")
        assert page.locator(".explore img").count() == 0
        page.close()


def test_decoders_are_cached_by_their_content_and_nothing_else_is_served(server: str, page: Page) -> None:
    weights = page.evaluate("async () => (await import('/web/explore.js')).explore.state.present.point.weights")
    answer = httpx.get(f"{server}/web/decoders/{weights}", timeout=60)
    assert hashlib.sha256(answer.content).hexdigest() == weights
    assert "immutable" in answer.headers["cache-control"]
    again = httpx.get(f"{server}/web/decoders/{weights}", headers={"if-none-match": answer.headers["etag"]}, timeout=60)
    assert (again.status_code, again.content) == (304, b"")
    for path in ("decoders/mnist", "decoders/", "", "nothing.js", "..%2f..%2f..%2fapp.py", "%2e%2e/explore.py"):
        assert httpx.get(f"{server}/web/{path}", timeout=60).status_code == 404, path
    assert httpx.post(f"{server}/web/explore.js", timeout=60).status_code == 404


def test_points_that_no_browser_sends_are_refused_in_words(server: str) -> None:
    for z in (None, [0.0] * 31, [0.0] * 31 + ["x"], [0.0] * 31 + [1e9], [True] * 32, "0" * 32):
        answer = httpx.post(
            f"{server}/gradio_api/run/draw_point", json={"data": ["mnist", {"z": z, "positions": {}}]}, timeout=60
        )
        assert answer.json()["error"] == "Z must be 32 numbers, from -10000 to 10000."


def test_a_broken_picture_leaves_explore_with_a_sentence(page: Page, tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    page.locator("#explore-picture input[type=file]").set_input_files(tmp_path / "broken.png")
    expect(page.locator(".explore .status")).to_contain_text("Broken.png", timeout=LOADING)
    page.get_by_role("button", name="Random").click()
    expect(page.locator(".explore .status")).to_be_empty(timeout=LOADING)
    expect(page.get_by_role("img", name="from seed 0", exact=False)).to_have_count(0, timeout=LOADING)


def test_who_drew_the_avatars_is_named(page: Page) -> None:
    expect(page.locator("#description")).to_contain_text("Johan Melin, licensed under CC BY 4.0")


def test_generate_tab(page: Page) -> None:
    gallery = open_generate(page)
    expect(gallery.first).to_contain_text("seed 0")
    first = source(page, "#generate-gallery")
    page.locator("#generate-temperature input[type=range]").fill("0.5")
    wait_for_another(page, "#generate-gallery", first)
    page.locator("#generate-count input[type=range]").fill("8")
    expect(gallery).to_have_count(8, timeout=LOADING)
    page.locator("#generate-seed input").fill("100")
    expect(gallery.first).to_contain_text("seed 100", timeout=LOADING)
    page.locator("#generate-others").click()
    expect(gallery.first).not_to_contain_text("seed 100", timeout=LOADING)


def test_small_pictures_are_shown_large_and_crisp(page: Page) -> None:
    page.locator("#model").get_by_label("fashion-mnist").check()
    open_generate(page)
    picture = page.locator("#generate-gallery img").first
    expect(picture).to_have_js_property("naturalWidth", 28, timeout=LOADING)
    assert picture.evaluate("image => [image.naturalWidth, getComputedStyle(image).imageRendering]") == [
        28,
        "pixelated",
    ]
    box = picture.bounding_box()
    assert box is not None
    assert box["width"] > 80


def test_reconstruct_tab(page: Page, tmp_path: Path) -> None:
    page.get_by_role("tab", name="Reconstruct").click()
    expect(page.locator("#reconstruct-psnr")).to_contain_text("dB", timeout=LOADING)
    example = source(page, "#reconstruct-back")
    page.locator("#reconstruct-examples button.thumbnail-item").nth(2).click()
    wait_for_another(page, "#reconstruct-back", example)
    before = source(page, "#reconstruct-back")
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (200, 300, 3), dtype=np.uint8)).save(
        tmp_path / "mine.png"
    )
    page.locator("#reconstruct-picture input[type=file]").set_input_files(tmp_path / "mine.png")
    wait_for_another(page, "#reconstruct-back", before)
    mine = source(page, "#reconstruct-picture")
    seen = source(page, "#reconstruct-seen")
    page.locator("#reconstruct-invert").get_by_label("yes").check()
    wait_for_another(page, "#reconstruct-seen", seen)
    # The visitor's own picture stays when another model is chosen.
    back = source(page, "#reconstruct-back")
    other = page.locator("#model input:not(:checked)").first
    other.check()
    wait_for_another(page, "#reconstruct-back", back)
    assert source(page, "#reconstruct-picture") == mine


def test_a_broken_upload_is_answered_by_a_sentence(page: Page, tmp_path: Path) -> None:
    page.get_by_role("tab", name="Reconstruct").click()
    expect(page.locator("#reconstruct-psnr")).to_contain_text("dB", timeout=LOADING)
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    page.locator("#reconstruct-picture input[type=file]").set_input_files(tmp_path / "broken.png")
    expect(page.locator(".toast-body")).to_contain_text("Broken.png", timeout=LOADING)


def test_interpolate_tab(page: Page) -> None:
    page.get_by_role("tab", name="Interpolate").click()
    for end in ("#interpolate-a", "#interpolate-b"):
        expect(page.locator(f"{end} img").first).to_be_visible(timeout=LOADING)
    here, strip = source(page, "#interpolate-here"), source(page, "#interpolate-strip")
    page.locator("#interpolate-t input[type=range]").fill("0.1")
    wait_for_another(page, "#interpolate-here", here)
    page.locator("#interpolate-steps input[type=range]").fill("5")
    wait_for_another(page, "#interpolate-strip", strip)
    for action in (
        lambda: page.locator("#interpolate-path").get_by_label("lerp", exact=True).check(),
        lambda: page.locator("#interpolate-examples-b button.thumbnail-item").nth(1).click(),
        lambda: page.locator("#interpolate-a").get_by_label("Remove Image").click(),
        lambda: page.locator("#interpolate-seed-a input").fill("123"),
    ):
        strip = source(page, "#interpolate-strip")
        action()
        wait_for_another(page, "#interpolate-strip", strip)


def test_another_model_changes_everything(page: Page) -> None:
    description = page.locator("#description")
    expect(description).to_contain_text("→")
    open_generate(page)
    before, text = source(page, "#generate-gallery"), description.inner_text()
    page.locator("#model input:not(:checked)").first.check()
    wait_for_another(page, "#generate-gallery", before)
    expect(description).not_to_have_text(text)


# --- models from the Hub ---


def test_a_page_shows_a_model_of_the_hub_and_the_cache_when_the_hub_is_gone(
    hub: Hub, browser: Browser, tmp_path: Path
) -> None:
    hub.repos["somebody/fashion"].private = True
    cache = {"HF_HOME": str(tmp_path), "HF_TOKEN": TOKEN}
    with running("--model", "somebody/fashion", HF_ENDPOINT=hub.url, **cache) as address:
        client = Client(address, download_files=str(tmp_path), verbose=False, analytics_enabled=False)
        gallery = client.predict("somebody/fashion", 1, 5, 1, "standard-normal", api_name="/generate")
        expected = to_uint8(generate(VAE.from_pretrained("fashion-mnist"), [5], prior=StandardNormal()))
        with Image.open(gallery[0]["image"]) as picture:
            assert np.abs(np.array(picture.convert("L"), dtype=int) - expected[0, 0].numpy()).max() <= 1
        client.close()
        page = browser.new_page()
        page.goto(address)
        expect(page.locator("#description")).to_contain_text("Fashion-MNIST", timeout=LOADING)
        expect(page.locator("#notice")).to_have_count(0)
        page.close()
    with running(VAE_MODELS="somebody/fashion", HF_ENDPOINT=CLOSED, **cache) as address:
        page = browser.new_page()
        page.goto(address)
        expect(page.locator("#notice")).to_contain_text("copy in the cache", timeout=LOADING)
        expect(page.locator("#description")).to_contain_text("Fashion-MNIST", timeout=LOADING)
        assert TOKEN not in page.content()
        page.close()


def test_a_page_shows_the_bundled_models_when_the_hub_is_gone(browser: Browser, tmp_path: Path) -> None:
    with running("--model", "somebody/fashion", HF_ENDPOINT=CLOSED, HF_HOME=str(tmp_path)) as address:
        page = browser.new_page()
        page.goto(address)
        expect(page.locator("#notice")).to_contain_text("the Hub can't be reached", timeout=LOADING)
        expect(page.locator("#notice")).to_contain_text("The models shown here come with the page")
        expect(page.locator("#description")).to_contain_text("Avatars", timeout=LOADING)
        page.get_by_label("fashion", exact=True).check()
        expect(page.locator(".toast-body").first).to_contain_text("the Hub can't be reached", timeout=LOADING)
        page.screenshot(path=os.environ.get("SCREENSHOT", str(tmp_path / "page.png")))
        page.close()


def test_a_model_that_the_hub_refuses_is_said_before_there_is_a_page(hub: Hub, tmp_path: Path) -> None:
    command = [sys.executable, "app.py", "--model", "somebody/typo"]
    environment = os.environ | {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=environment)
    assert done.returncode == 1
    assert done.stderr.strip().startswith("app.py: somebody/typo can't be loaded: there is no such repo")


def test_zero_gpu_hardware_finds_the_function_that_it_asks_for(tmp_path: Path) -> None:
    (tmp_path / "spaces.py").write_text(
        "marked = []\ndef GPU(function):\n    marked.append(function)\n    return function\n"
    )
    command = [sys.executable, "-c", "import app, spaces; print(len(spaces.marked))"]
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=environment)
    assert done.stdout == "1\n", done.stderr
