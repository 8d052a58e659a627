"""The real page: app.py in a process of its own, asked through its API and driven in a real browser."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from conftest import TOKEN
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from hub_server import Hub
from PIL import Image
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright
from torch import Tensor

from vae import VAE, StandardNormal, generate
from vae.data import DATASETS
from vae.demo.explore import explore
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
    expect(page.locator("#explore-here img")).to_be_visible(timeout=LOADING)
    expect(page.locator("#explore-slider-0")).to_be_visible(timeout=LOADING)
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


def test_explore_tab(page: Page, tmp_path: Path, sneaker: Path) -> None:
    attributes = DATASETS["avatars"].attributes
    sliders = page.locator("[id^=explore-slider-] input[type=range]")
    expect(sliders).to_have_count(len(attributes))
    for index, (name, values) in enumerate(attributes.items()):
        expect(page.locator(f"#explore-slider-{index}")).to_contain_text(name)
        expect(page.locator(f"#explore-slider-{index}")).to_contain_text(values[-1])
    begun = source(page, "#explore-here")
    first = sliders.first.input_value()
    sliders.first.fill("4" if float(first) < 2 else "0")
    wait_for_another(page, "#explore-here", begun)
    page.locator("#explore-reset").click()
    expect(page.locator("#explore-here img")).to_have_attribute("src", begun, timeout=LOADING)
    expect(sliders.first).to_have_value(first, timeout=LOADING)
    page.locator("#explore-another").click()
    wait_for_another(page, "#explore-here", begun)
    other = source(page, "#explore-here")
    page.locator("#explore-examples button.thumbnail-item").nth(3).click()
    wait_for_another(page, "#explore-here", other)
    example = source(page, "#explore-here")
    page.locator("#explore-picture").get_by_label("Remove Image").click()
    wait_for_another(page, "#explore-here", example)
    other = source(page, "#explore-here")
    page.locator("#explore-picture input[type=file]").set_input_files(sneaker)
    wait_for_another(page, "#explore-here", other)
    # Another model has sliders of its own.
    page.locator("#model").get_by_label("fashion-mnist").check()
    expect(sliders).to_have_count(1, timeout=LOADING)
    expect(page.locator("#explore-slider-0")).to_contain_text("class")


def test_a_broken_picture_leaves_explore_with_a_sentence(page: Page, tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    page.locator("#explore-picture input[type=file]").set_input_files(tmp_path / "broken.png")
    expect(page.locator(".toast-body").first).to_contain_text("Broken.png", timeout=LOADING)
    before = source(page, "#explore-here")
    page.locator("#explore-another").click()
    wait_for_another(page, "#explore-here", before)
    expect(page.locator("#explore-slider-0")).to_be_visible(timeout=LOADING)


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
