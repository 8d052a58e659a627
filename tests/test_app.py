"""The real page: app.py in a process of its own, asked through its API and driven in a real browser."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import io
import json
import os
import re
import runpy
import shutil
import socket
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from conftest import TOKEN, Rest, small_model
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from hub_server import Hub
from PIL import Image
from playwright.sync_api import Browser, Page, Route, expect, sync_playwright
from torch import Tensor

import app
from vae import VAE, StandardNormal, generate, reconstruct
from vae.attributes import fit_attributes
from vae.data import DATASETS, load_examples
from vae.demo.explore import MAX_FAILURES, begin, edit_picture, turn
from vae.demo.prepare import prepare
from vae.figures import Figures
from vae.generate import decode, latents
from vae.hub import bundled_names
from vae.images import to_pil, to_uint8, to_unit
from vae.latent import slerp

CLOSED = "http://127.0.0.1:9"  # no server is there
LOADING = 60_000  # milliseconds: these machines are shared
expect.set_options(timeout=LOADING)


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
        ) as process,
    ):
        assert process.stdout is not None
        said = []
        for line in process.stdout:
            said.append(line)
            if address := re.search(r"http://127\.0\.0\.1:\d+", line):
                break
        else:
            pytest.fail("".join(said))
        rest = Rest(process)
        try:
            yield address[0]
        finally:
            written = rest.end()
            assert not list(Path(files).glob("unvaelievable-*"))  # nor anything that was sent
    assert process.returncode == 0, written
    assert "Traceback" not in written
    assert max(map(len, written.splitlines()), default=0) < 500
    assert TOKEN not in "".join(said) + written


def test_a_signal_is_heeded_while_the_page_is_still_starting() -> None:
    with running():  # the address is printed a moment before the page is served
        pass


# What strangers may call an attribute and its values.
ATTRIBUTE, VALUES = "<b>a</b>", ["<img src=x onerror=alert(1)>", "${alert(1)}", "b"]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a running app.py with the bundled models and that of a stranger."""
    folder = tmp_path_factory.mktemp("models") / "strange"
    model = small_model(attribution="<i>by nobody</i>")
    z = torch.randn(60, model.config.latent_dim, generator=torch.Generator().manual_seed(0))
    model.directions = fit_attributes(z, torch.arange(60)[:, None] % 3, {ATTRIBUTE: VALUES})
    model.save_pretrained(folder)
    names = [*bundled_names(), str(folder)]
    with running(*(word for name in names for word in ("--model", name))) as address:
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
    seen, back, facts = client.predict("fashion-mnist", handle_file(str(sneaker)), api_name="/reconstruct")
    with Image.open(seen) as picture, Image.open(sneaker) as original:
        assert np.array_equal(np.array(picture.convert("L")), np.array(original))
    with Image.open(back) as picture:
        assert picture.size == (28, 28)
    assert facts["psnr"] > 18
    assert facts["percentile"] > 1
    assert len(facts["mean"]) == len(facts["kl"]) == VAE.from_pretrained("fashion-mnist").config.latent_dim


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
    expected = edit_picture(VAE.from_pretrained("avatars"), None, 3, {"hair colour": 4, "beard": 0.5})
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
    assert names["/generate"] == ["model", "count", "seed", "temperature", "prior", "where"]
    assert {parameters[0] for parameters in names.values()} == {"model"}
    assert all(len(endpoint["description"]) > 30 for endpoint in api["named_endpoints"].values())


def test_endpoints_refuse_bad_input_in_a_sentence(client: Client, tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_text("no picture")
    for arguments, endpoint, sentence in (
        (("mnist", 3, -1, 1), "/generate", "-1"),
        (("avatars", None, 0, {"hat": 1}), "/explore", "There is no slider 'hat'"),
        (("avatars", None, 0, {"beard": 1e30}), "/explore", "Beard must be from 0 to 5"),
        (("mnist", 1000, 0, 1), "/generate", "1000"),
        (("../../etc", 3, 0, 1), "/generate", "../../etc"),
        (("mnist", 1, 0, 1, "fitted", {"hat": "red"}), "/generate", "hat"),
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
            ("reconstruct", ["mnist", {"path": path} | meta, "no", "auto", None]),
            ("explore", ["mnist", {"path": path} | meta, 0, {}]),
            ("interpolate", ["mnist", None, 0, {"path": path} | meta, 0, 0.5, 5, "slerp"]),
        ):
            answer = called(server, endpoint, data)
            assert answer.startswith("event: error")
            assert "This picture is not on the page: upload it first." in answer
    answer = called(
        server, "reconstruct", ["mnist", {"url": "data:image/png;base64,iVBORw0KGgo="} | meta, "no", "auto", None]
    )
    assert "Picture must be a picture that was uploaded" in answer


def test_wrong_types_are_answered_in_words(server: str) -> None:
    wrong: list[Any] = ["x", [1], {"a": 1}, True, None, "m" * 10_000]
    for value in wrong:
        for index in range(5):
            data = ["mnist", 1, 0, 1, "fitted", None]
            answer = called(server, "generate", [*data[:index], value, *data[index + 1 :]])
            error = json.loads(answer.partition("data: ")[2].partition("\n")[0])["error"]
            assert re.fullmatch(r"[^\n]{10,300}\.", error)


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


def test_points_that_no_browser_sends_are_refused_in_words(server: str) -> None:
    for z in (None, [0.0] * 31, [0.0] * 31 + ["x"], [0.0] * 31 + [1e9], [True] * 32, "0" * 32):
        answer = httpx.post(
            f"{server}/gradio_api/run/draw_point", json={"data": ["mnist", {"z": z, "positions": {}}]}, timeout=60
        )
        assert answer.json()["error"] == "Z must be 32 numbers, from -10000 to 10000."
        answer = httpx.post(
            f"{server}/gradio_api/run/place_picture", json={"data": ["mnist", None, {"z": z}]}, timeout=60
        )
        assert answer.json()["error"] == "Z must be 32 numbers, from -10000 to 10000."


def test_decoders_are_cached_by_their_content_and_nothing_else_is_served(server: str) -> None:
    point = httpx.post(f"{server}/gradio_api/run/point", json={"data": ["mnist", None, 0, None]}, timeout=60).json()
    weights = point["data"][0]["weights"]
    answer = httpx.get(f"{server}/web/decoders/{weights}", timeout=60)
    assert hashlib.sha256(answer.content).hexdigest() == weights
    assert "immutable" in answer.headers["cache-control"]
    again = httpx.get(f"{server}/web/decoders/{weights}", headers={"if-none-match": answer.headers["etag"]}, timeout=60)
    assert (again.status_code, again.content) == (304, b"")
    for path in ("decoders/mnist", "decoders/", "", "nothing.js", "..%2f..%2f..%2fapp.py", "%2e%2e/explore.py"):
        assert httpx.get(f"{server}/web/{path}", timeout=60).status_code == 404, path
    assert httpx.post(f"{server}/web/explore.js", timeout=60).status_code == 404


def test_who_links_the_page_shows_our_own_picture(server: str) -> None:
    head = httpx.get(f"{server}/?x=1", timeout=60).text.partition("</head>")[0]
    assert head.count('"og:image"') == 1
    tags = dict(re.findall(r'<meta (?:property|name)="(og:\w+|description|twitter:\w+)" content="([^"]*)"', head))
    assert tags["og:title"].startswith("unvaelievable")
    assert tags["description"] == tags["og:description"]
    assert tags["og:url"] == f"{server}/"
    preview = httpx.get(tags["og:image"], timeout=60)
    with Image.open(io.BytesIO(preview.content)) as picture:
        assert picture.size == (1200, 630)
    for index in range(4):  # every model has a face, also one that does not come with us
        face = httpx.get(f"{server}/web/faces/{index}", timeout=60)
        with Image.open(io.BytesIO(face.content)) as picture:
            assert picture.width == picture.height >= 128
    assert httpx.get(f"{server}/web/faces/4", timeout=60).status_code == 404


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--model", "weights"), "weights holds no config.json"),
        (("--model", "nothing"), "there is no model 'nothing'"),
        (("--host", "no.such.host"), "--host no.such.host is no address of this machine"),
        (("--port", "99999"), "--port must be from 1 to 65535, got 99999"),
    ],
)
def test_app_refuses_what_it_cannot_show(
    arguments: tuple[str, ...], sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["app.py", *arguments])
    with pytest.raises(SystemExit, match=f"^app.py: .*{re.escape(sentence)}"):
        app.main()


def test_programs_find_tools_and_call_them_within_the_same_limits(server: str, sneaker: Path) -> None:
    pytest.importorskip("mcp")
    from mcp import ClientSession
    from mcp.client.streamable_http import streamablehttp_client

    async def use() -> None:
        async with (
            streamablehttp_client(f"{server}/gradio_api/mcp/") as (reader, writer, _),
            ClientSession(reader, writer) as session,
        ):
            await session.initialize()
            tools = {tool.name: tool for tool in (await session.list_tools()).tools}
            assert set(tools) == {"explore", "generate", "reconstruct", "interpolate"}
            for tool in tools.values():
                assert tool.description
                assert all(each.get("description") for each in tool.inputSchema["properties"].values()), tool.name
            encoded = f"data:image/png;base64,{base64.b64encode(sneaker.read_bytes()).decode()}"
            answer = await session.call_tool("reconstruct", {"model": "fashion-mnist", "picture": encoded})
            assert not answer.isError
            with Image.open(io.BytesIO(base64.b64decode(answer.content[0].data))) as seen:  # type: ignore[union-attr]
                assert seen.size == (28, 28)
            answer = await session.call_tool("generate", {"model": "mnist", "count": 1, "where": {"digit": "7"}})
            assert not answer.isError
            own = str(Path("vae/examples/mnist.png").resolve())
            pictures: tuple[Any, ...] = (own, f"file://{own}", "http://127.0.0.1:9/a.png", 5)
            calls: list[tuple[str, dict[str, Any]]] = [("reconstruct", {"picture": picture}) for picture in pictures]
            calls += [
                ("generate", {"count": 1e9}),
                ("generate", {"count": "x"}),
                ("generate", {"where": {"digit": [7]}}),
                ("explore", {"positions": {"hat": 1}}),
                ("point", {}),  # the page's own
            ]
            for name, arguments in calls:
                refused = await session.call_tool(name, {"model": "mnist", **arguments})
                assert refused.isError, (name, arguments)
                assert "Traceback" not in str(refused.content)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of the client's own name
        asyncio.run(use())
    headers = {"accept": "application/json, text/event-stream", "content-type": "application/json"}
    large = httpx.post(f"{server}/gradio_api/mcp/", content=b" " * 5 * 2**20, headers=headers, timeout=60)
    assert large.status_code == 413


# --- in a browser ----------------------------------------------------------------------------------------------------

# What follows an input is its answer, and no jump. The browser itself takes that to be half a second, too short for a
# machine on which others compute.
WATCH_SHIFTS = """
    globalThis.shifts = 0;
    const inputs = [];
    for (const kind of ["pointerdown", "pointerup", "keydown", "input", "change"])
        addEventListener(kind, () => inputs.push(performance.now()), { capture: true });
    new PerformanceObserver((list) => {
        for (const { value, startTime, hadRecentInput } of list.getEntries()) {
            const isAnswer = hadRecentInput || inputs.some((time) => time <= startTime && startTime < time + 3000);
            if (!isAnswer) shifts += value;
        }
    }).observe({ type: "layout-shift", buffered: true });
"""
DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
LEAST_CONTRAST = 4.5


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    chromium = shutil.which("chromium") or shutil.which("google-chrome")  # else the one that playwright installed
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@contextmanager
def opened(browser: Browser, address: str, viewport: dict[str, int], **options: Any) -> Iterator[Page]:
    """Open the page; at the end it has had no error, asked nobody else for anything, and nothing has jumped."""
    context = browser.new_context(viewport=viewport, reduced_motion="reduce", **options)  # type: ignore[arg-type]
    page = context.new_page()
    page.set_default_timeout(LOADING)
    page.add_init_script(WATCH_SHIFTS)
    errors: list[str] = []
    strangers: list[str] = []
    own = (address.partition("#")[0], "data:", "blob:")
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("dialog", lambda dialog: errors.append(dialog.message))
    page.on("request", lambda request: None if request.url.startswith(own) else strangers.append(request.url))
    page.goto(address)
    settle(page)
    yield page
    shifts = page.evaluate("shifts")
    context.close()
    assert errors == []
    assert strangers == []
    assert shifts <= 0.05


def settle(page: Page, tab: str = "explore") -> None:
    """Wait until the stage and a tab's pictures show what is set."""
    page.evaluate(
        """async ([tab, limit]) => {
            const page = await import(new URL("web/page.js", document.baseURI)); // whose app may be still to come
            const module = await import(new URL(`web/${tab}.js`, document.baseURI));
            const isHidden = () => document.getElementById(`panel-${tab}`)?.hidden;
            const isSettled = () => page.app?.isSettled && (isHidden() || module[tab]?.isSettled);
            const end = performance.now() + limit;
            while (!isSettled()) {
                if (performance.now() > end) throw new Error("the page does not settle");
                await new Promise((go) => setTimeout(go, 20));
            }
        }""",
        [tab, LOADING],
    )


def pixels(page: Page, selector: str) -> np.ndarray:
    """Return the picture on a canvas, (H, W, 3) uint8."""
    side, values = page.locator(selector).evaluate(
        "canvas => [canvas.width, [...canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data]]"
    )
    return np.array(values, dtype=np.uint8).reshape(-1, side, 4)[..., :3]


def stage(page: Page) -> np.ndarray:
    settle(page)
    return pixels(page, ".stage canvas")


def far(shown: np.ndarray, expected: Image.Image) -> int:
    """Return how far two pictures are from each other at most, of 255."""
    return int(np.abs(shown.astype(int) - np.array(expected.convert("RGB"))).max())


def choose_model(page: Page, name: str) -> None:
    page.get_by_role("radiogroup", name="Model").get_by_label(name, exact=True).check()
    expect(page.get_by_role("img", name=re.compile(f"^{re.escape(name)}, "))).to_be_visible()


def low_contrasts(page: Page) -> list[str]:
    """Return the texts in sight whose colour is too near to what lies behind them."""
    return page.evaluate(
        """(least) => {
            const light = (colour) => {
                const [r, g, b] = colour.match(/[\\d.]+/g).slice(0, 3).map((value) => value / 255)
                    .map((value) => (value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4));
                return 0.2126 * r + 0.7152 * g + 0.0722 * b;
            };
            const isClear = (colour) => /, 0\\)$/.test(colour);
            const behind = (element) => {
                for (let at = element; at; at = at.parentElement) {
                    const { backgroundColor } = getComputedStyle(at);
                    if (!isClear(backgroundColor)) return backgroundColor;
                }
                return "rgb(255, 255, 255)";
            };
            const low = [];
            for (const element of document.querySelectorAll(".vae *")) {
                const text = [...element.childNodes].filter((node) => node.nodeType === 3).map((node) => node.data).join("");
                const isSeen = element.checkVisibility({ opacityProperty: true }) && !element.closest(":disabled, .elsewhere");
                if (!text.trim() || !isSeen) continue;
                const [a, b] = [getComputedStyle(element).color, behind(element)].map(light).sort((x, y) => y - x);
                if ((a + 0.05) / (b + 0.05) < least) low.push(text);
            }
            return low;
        }""",
        LEAST_CONTRAST,
    )


def test_explore_edits_the_picture_as_torch_does_and_remembers(browser: Browser, server: str) -> None:
    avatars = VAE.from_pretrained("avatars")
    with opened(browser, server, DESKTOP) as page:
        header = page.locator(".top").bounding_box()
        assert header is not None
        assert header["height"] <= 120
        assert page.evaluate("document.documentElement.scrollHeight") <= DESKTOP["height"]
        assert low_contrasts(page) == []
        first = stage(page)
        assert far(first, edit_picture(avatars, None, 0, {})) <= 1
        undo, redo = page.get_by_role("button", name="Undo"), page.get_by_role("button", name="Redo")
        expect(undo).to_be_disabled()
        # A chip edits, and has the result in small.
        page.get_by_label("full", exact=True).check()
        picture = page.get_by_role("img", name=re.compile("^Avatars, "))
        expect(picture).to_have_accessible_name(re.compile("beard full,.* from seed 0$"))
        second = stage(page)
        assert far(second, edit_picture(avatars, None, 0, {"beard": 4})) <= 1
        z, described = begin(avatars, None, 0)
        shown = torch.tensor([page.evaluate("async () => [...(await import('/web/page.js')).app.z]")])
        expected = decode(avatars, turn(avatars, z, described, {"beard": 4})[None])
        assert (decode(avatars, shown) - expected).abs().max() < 1e-3
        assert np.array_equal(pixels(page, ".chip:has([aria-label=full]) canvas"), second)
        # There is something between two values only where there is an order.
        assert DATASETS["avatars"].ordered == ("skin colour",)
        expect(page.locator(".controls > .slider")).to_have_count(1)
        skin = page.get_by_role("slider", name="skin colour")
        skin.fill("1.5")
        expect(skin).to_have_attribute("aria-valuetext", "between brown and tan")
        page.get_by_text("More", exact=True).click()
        page.get_by_role("slider", name="axis 2", exact=True).fill("-2")
        set_ = {"beard": 4, "skin colour": 1.5, "axis 2": -2}
        assert far(stage(page), edit_picture(avatars, None, 0, set_)) <= 1
        page.get_by_role("button", name="axis 2 to 3", exact=True).click()
        assert far(stage(page), edit_picture(avatars, None, 0, set_ | {"axis 2": 3})) <= 1
        # All of it can be undone and redone.
        for _ in range(3):
            undo.click()
        assert np.array_equal(stage(page), second)
        undo.click()
        assert np.array_equal(stage(page), first)
        expect(undo).to_be_disabled()
        redo.click()
        expect(page.get_by_label("full", exact=True)).to_be_checked()
        page.get_by_role("button", name="Random").click()
        expect(page.get_by_role("img", name="from seed 0")).to_have_count(0)
        expect(redo).to_be_disabled()
        undo.click()
        assert np.array_equal(stage(page), second)
        page.get_by_role("button", name="Reset").click()
        assert np.array_equal(stage(page), first)
        undo.click()
        # A seed that is typed leaves what was set.
        page.get_by_role("spinbutton", name="Seed").fill("7")
        page.get_by_role("spinbutton", name="Seed").press("Enter")
        expect(picture).to_have_accessible_name(re.compile("beard full,.* from seed 7$"))
        assert far(stage(page), edit_picture(avatars, None, 7, {"beard": 4})) <= 1
        # By the keyboard, too, and the focus is seen.
        page.get_by_role("tab", name="Explore").focus()
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.type") == "radio"
        name = page.evaluate("document.activeElement.ariaLabel")
        page.keyboard.press("ArrowRight")
        settle(page)
        assert page.evaluate("document.activeElement.ariaLabel") != name
        focused = page.locator(".chip:has(:focus-visible)")
        assert focused.evaluate("chip => getComputedStyle(chip).outlineStyle") == "solid"
        page.get_by_role("button", name="About").click()
        about = page.get_by_role("dialog")
        expect(about).to_contain_text("Johan Melin, licensed under CC BY 4.0")
        expect(about).to_contain_text("64 numbers")
        about.get_by_role("button", name="Call these models from a program").click()
        expect(page.get_by_role("heading", name=re.compile("(API|MCP) documentation"))).to_be_visible()


def test_each_model_offers_what_it_can_and_strangers_names_are_text(browser: Browser, server: str) -> None:
    with opened(browser, f"{server}#model=mnist&seed=0", DESKTOP) as page:
        mnist = VAE.from_pretrained("mnist")
        page.get_by_role("group", name="digit").get_by_label("7", exact=True).check()
        assert far(stage(page), edit_picture(mnist, None, 0, {"digit": 7})) <= 1
        choose_model(page, "Fashion-MNIST")
        settle(page)
        offered = page.locator(".chip:visible").all_inner_texts()
        hits = Figures.read(Path("weights/fashion-mnist")).attributes["class"].edited_by_value
        shown = page.locator(".chip:has(:checked)").inner_text()  # what the picture already is
        assert offered == [name for name, hit in hits.items() if hit >= 1 - MAX_FAILURES or name == shown]
        assert len(offered) < len(hits) == 10  # edits to shirts, which look like other garments, often fail
        choose_model(page, "strange")
        settle(page)
        assert page.locator(".chip").all_inner_texts() == VALUES
        expect(page.locator(".explore legend")).to_have_text(ATTRIBUTE)
        assert page.locator(".explore img").count() == 0
        expect(page.locator(".example")).to_have_count(0)
        page.get_by_role("button", name="About").click()
        expect(page.get_by_role("dialog")).to_contain_text("<i>by nobody</i>")


def test_a_picture_of_ones_own_is_edited_linked_and_found_again(
    browser: Browser, server: str, sneaker: Path, tmp_path: Path
) -> None:
    with opened(browser, f"{server}#model=fashion-mnist&seed=3", DESKTOP) as page:
        page.locator(".sources input[type=file]").set_input_files(sneaker)
        own = page.get_by_role("img", name="from a picture of your own")
        expect(own).to_be_visible()
        with Image.open(sneaker) as picture:
            x = torch.from_numpy(np.array(picture.convert("L"), dtype=np.float32) / 255)[None, None]
        model = VAE.from_pretrained("fashion-mnist")
        assert far(stage(page), to_pil(reconstruct(model, x)[0])) <= 1
        # The way that it took, and another point of the same cloud.
        expect(page.get_by_role("img", name="What the model sees of your picture")).to_be_visible()
        before = stage(page)
        page.get_by_role("button", name="Roll ε").click()
        assert not np.array_equal(stage(page), before)
        page.get_by_role("button", name="Undo").click()
        assert np.array_equal(stage(page), before)
        page.get_by_label("Ankle boot", exact=True).check()
        link, boot = page.evaluate("location.href"), stage(page)
        page.goto("about:blank")
        page.goto(link)
        assert np.array_equal(stage(page), boot)
        expect(page.get_by_role("radio", name="Fashion-MNIST")).to_be_checked()
        assert page.evaluate("location.href") == link
        # An example is begun with, a broken picture is not, and nonsense in a link does no harm.
        page.get_by_role("button", name="Start from Bag").click()
        expect(own).to_be_visible()
        (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
        page.locator(".sources input[type=file]").set_input_files(tmp_path / "broken.png")
        expect(page.locator(".status")).to_contain_text("Broken.png")
        page.get_by_role("button", name="Random").click()
        expect(page.locator(".status")).to_be_empty()
        expect(own).to_have_count(0)
        nonsense = ["model=mnist&seed=99999999999", "model=mnist&z=%25%25%25", "model=mnist", "seed=1"]
        read = "async (links) => links.map((await import('/web/state.js')).readFragment)"
        assert page.evaluate(read, nonsense) == [None] * 4
        page.goto("about:blank")
        page.goto(f"{server}#model=mnist&seed=3&at=[[%22digit%22,99],[%22hat%22,1],5]&tab=nothing&ia=sx")
        assert far(stage(page), edit_picture(VAE.from_pretrained("mnist"), None, 3, {"digit": 9})) <= 1


def test_where_the_browser_cannot_decode_the_server_draws(browser: Browser, server: str) -> None:
    page = browser.new_page(reduced_motion="reduce")
    page.set_default_timeout(LOADING)
    page.route("**/worker.js", lambda route: route.abort())
    page.goto(f"{server}#model=mnist&seed=4")
    expect(page.locator(".status")).to_contain_text("the server draws")
    model = VAE.from_pretrained("mnist")
    assert far(stage(page), edit_picture(model, None, 4, {})) <= 1
    page.get_by_label("3", exact=True).check()
    expect(page.get_by_role("img", name="digit 3")).to_be_visible()
    assert far(stage(page), edit_picture(model, None, 4, {"digit": 3})) <= 1
    # What the server drew is what other tabs go on with.
    z, described = begin(model, None, 4)
    shown = torch.tensor(page.evaluate("async () => [...(await import('/web/page.js')).app.z]"))
    torch.testing.assert_close(shown, turn(model, z, described, {"digit": 3}), atol=1e-4, rtol=0)
    page.close()


def test_from_explore_to_interpolate_to_a_gif(browser: Browser, server: str) -> None:
    model = VAE.from_pretrained("mnist")
    with opened(browser, f"{server}#model=mnist&seed=3", DESKTOP) as page:
        before = stage(page)
        page.get_by_role("tab", name="Explore").focus()
        for _ in range(3):
            page.keyboard.press("ArrowRight")
        expect(page.get_by_role("tab", name="Interpolate")).to_be_focused()
        settle(page, "interpolate")
        assert np.array_equal(pixels(page, ".stage canvas"), before)  # A is what was there
        page.get_by_role("button", name="B: Ankle", exact=False).or_(page.get_by_role("button", name="B: 7")).click()
        expect(page.get_by_alt_text("What the model saw at B")).to_be_visible()
        page.get_by_role("button", name="B: random").click()
        expect(page.get_by_alt_text("What the model saw at B")).to_be_hidden()
        settle(page, "interpolate")
        seed = int(page.locator(".end.b .label").inner_text().removeprefix("seed "))
        a, b = latents(model, [3, seed])
        way = decode(model, slerp(a, b, torch.linspace(0, 1, 9)))
        for index in (0, 4, 8):
            assert far(pixels(page, f".strip .frame:nth-child({index + 1}) canvas"), to_pil(way[index])) <= 1
        page.get_by_role("slider", name="On the way from A to B").fill("0.5")
        settle(page, "interpolate")
        assert far(pixels(page, ".stage canvas"), to_pil(way[4])) <= 1
        assert low_contrasts(page) == []
        with page.expect_download() as download:
            page.get_by_role("button", name="Save GIF").click()
        with Image.open(download.value.path()) as film:
            assert getattr(film, "n_frames", 1) > 20
        page.get_by_role("button", name="Keep this picture").click()
        expect(page.get_by_role("img", name="from a point of the latent space")).to_be_visible()
        assert far(stage(page), to_pil(way[4])) <= 1
        # Among four corners, by a link.
        page.get_by_role("radio", name="Four corners").check()
        settle(page, "interpolate")
        link = page.evaluate("location.href")
        corner = pixels(page, ".pad canvas:nth-child(49)")
        page.goto("about:blank")
        page.goto(link)
        settle(page, "interpolate")
        assert np.array_equal(pixels(page, ".pad canvas:nth-child(49)"), corner)
        # Keys that are held down change the address no more often than browsers allow, and the link is right at once.
        page.evaluate(
            """() => {
                const replace = history.replaceState.bind(history);
                globalThis.replaced = 0;
                history.replaceState = (...all) => (replaced++, replace(...all));
            }"""
        )
        page.locator(".pad").focus()
        for _ in range(20):
            page.keyboard.press("ArrowRight")
        told = page.evaluate("async () => (await import('/web/page.js')).app.link")
        settle(page, "interpolate")
        assert page.evaluate("location.href") == told
        assert page.evaluate("replaced") < 10
        shown = pixels(page, ".stage canvas")
        page.keyboard.press("ArrowDown")
        settle(page, "interpolate")
        assert not np.array_equal(pixels(page, ".stage canvas"), shown)
        # A film of another model's points is no longer shown when that is chosen.
        choose_model(page, "Avatars")
        settle(page, "interpolate")
        assert far(pixels(page, ".stage canvas"), edit_picture(VAE.from_pretrained("avatars"), None, 0, {})) <= 1


def test_the_map_and_the_tutorial_follow_the_picture(browser: Browser, server: str) -> None:
    with opened(browser, f"{server}#model=mnist&seed=3&tab=map", DESKTOP) as page:
        expect(page.get_by_text("Each dot is one of 2,000 test pictures")).to_be_visible()
        before = stage(page)
        page.locator(".map .over").click(position={"x": 250, "y": 250})
        expect(page.get_by_role("img", name="from a point of the latent space")).to_be_visible()
        assert not np.array_equal(stage(page), before)
        assert low_contrasts(page) == []
        page.get_by_role("tab", name="Learn").click()
        expect(page.get_by_text("784 numbers → 32")).to_be_visible()
        expect(page.get_by_text("Your picture, as this model draws it again")).to_be_attached()
        assert low_contrasts(page) == []
        choose_model(page, "Avatars")
        expect(page.get_by_text("49,152 numbers → 64")).to_be_visible()
        expect(page.get_by_text("These models know digits only")).to_be_attached()


def test_new_pictures_of_a_class_go_to_the_stage_and_onto_a_sheet(browser: Browser, server: str) -> None:
    model = VAE.from_pretrained("mnist")
    with opened(browser, f"{server}#model=mnist&seed=3&tab=generate", DESKTOP) as page:
        settle(page, "generate")
        tiles = page.locator(".gallery .tile")
        expect(tiles).to_have_count(32)

        def shown(index: int) -> np.ndarray:
            return pixels(page, f".gallery .tile:nth-child({index + 1}) canvas")

        for index, picture in enumerate(generate(model, range(3))):
            assert far(shown(index), to_pil(picture)) <= 1
        page.get_by_role("radio", name="7", exact=True).check()
        page.get_by_role("slider", name="Temperature").fill("0.5")
        settle(page, "generate")
        # A seed that is typed leaves what was set.
        page.get_by_role("spinbutton", name="First seed").fill("40")
        page.get_by_role("spinbutton", name="First seed").press("Enter")
        settle(page, "generate")
        expect(page.get_by_role("radio", name="7", exact=True)).to_be_checked()
        expected = generate(model, range(40, 42), temperature=0.5, where={"digit": 7})
        for index, picture in enumerate(expected):
            assert far(shown(index), to_pil(picture)) <= 1
        with page.expect_download() as download:
            page.get_by_role("button", name="Contact sheet").click()
        with Image.open(download.value.path()) as sheet:
            assert min(sheet.size) > 400
        tiles.nth(1).click()
        expect(page.get_by_role("img", name="from a point of the latent space")).to_be_visible()
        assert far(stage(page), to_pil(expected[1])) <= 1
        assert low_contrasts(page) == []
        link = page.evaluate("location.href")
        page.goto("about:blank")
        page.goto(link)
        settle(page, "generate")
        assert far(shown(0), to_pil(expected[0])) <= 1
        # N(0, I) is another prior, and its seeds other pictures; a class is one of the fitted.
        page.get_by_role("radio", name="N(0, I)").check()
        settle(page, "generate")
        expect(page.get_by_role("radio", name="any")).to_be_checked()
        other = generate(model, [40], prior=StandardNormal(), temperature=0.5)
        assert far(shown(0), to_pil(other[0])) <= 1
        page.get_by_role("radiogroup", name="A click").get_by_label("A", exact=True).check()
        tiles.first.click()
        expect(page.locator(".stage .status")).to_contain_text("Seed 40 is now A")


def test_lists_of_attributes_follow_what_is_drawn_from(browser: Browser, server: str) -> None:
    with opened(browser, f"{server}#model=avatars&seed=3&tab=generate", DESKTOP) as page:
        settle(page, "generate")
        which, value = page.get_by_role("combobox", name="Attribute"), page.get_by_role("combobox", name="Value")
        expect(value).to_be_hidden()
        which.select_option("beard")
        value.select_option("long")
        page.get_by_role("radio", name="N(0, I)").check()
        expect(which).to_have_value("")
        expect(value).to_be_hidden()


def test_the_camera_is_open_only_where_it_is_seen(browser: Browser, server: str) -> None:
    camera = """() => {
        globalThis.streams = [];
        const open = () => {
            streams.push(document.createElement("canvas").captureStream());
            return new Promise((go) => setTimeout(go, 50, streams.at(-1)));
        };
        Object.defineProperty(navigator, "mediaDevices", { value: { getUserMedia: open } });
    }"""
    states = "() => streams.map((stream) => stream.getTracks()[0].readyState)"
    with opened(browser, f"{server}#model=mnist&seed=3&tab=reconstruct", DESKTOP) as page:
        settle(page, "reconstruct")
        page.evaluate(camera)
        webcam, shoot = page.get_by_role("button", name="Webcam"), page.get_by_role("button", name="Take the picture")
        webcam.dblclick()  # the second while the visitor is asked
        expect(shoot).to_be_visible()
        assert page.evaluate(states) == ["live"]
        page.get_by_role("tab", name="Explore").click()
        page.wait_for_function("streams[0].getTracks()[0].readyState === 'ended'")
        page.get_by_role("tab", name="Reconstruct").click()
        expect(shoot).to_be_hidden()
        webcam.click()
        page.get_by_role("tab", name="Explore").click()  # before the visitor has answered
        page.wait_for_function("streams[1]?.getTracks()[0].readyState === 'ended'")


def test_a_way_is_shown_where_its_link_says_and_as_long_as_its_tab_is(browser: Browser, server: str) -> None:
    model = VAE.from_pretrained("mnist")
    present, other = latents(model, [3, 4])
    halfway = slerp(present, other, torch.tensor([0.5]))
    page = browser.new_page(reduced_motion="reduce")
    page.set_default_timeout(LOADING)
    waiting: list[Route] = []
    page.route("**/web/decoders/*", lambda route: waiting.append(route))
    page.goto(f"{server}#model=mnist&seed=3&tab=interpolate&it=0.500_0.000")
    expect(page.get_by_role("slider", name="On the way from A to B")).to_have_value("0.5")
    while not waiting:
        page.wait_for_timeout(10)
    waiting[0].continue_()  # the decoder comes late
    settle(page, "interpolate")
    assert far(pixels(page, ".stage canvas"), to_pil(decode(model, halfway)[0])) <= 1
    page.get_by_role("button", name="Play").click()
    page.get_by_role("tab", name="Explore").click()
    assert far(stage(page), to_pil(decode(model, present[None])[0])) <= 1
    page.evaluate("new Promise((go) => requestAnimationFrame(() => requestAnimationFrame(go)))")
    assert far(stage(page), to_pil(decode(model, present[None])[0])) <= 1
    page.close()


def test_a_way_whose_ends_are_still_to_come_is_not_gone(browser: Browser, server: str) -> None:
    with opened(browser, f"{server}#model=mnist&seed=3&tab=interpolate", DESKTOP) as page:
        settle(page, "interpolate")
        waiting: list[Route] = []
        page.route("**/run/point", lambda route: waiting.append(route))
        page.get_by_role("radiogroup", name="Model").get_by_label("Avatars", exact=True).check()
        while not waiting:
            page.wait_for_timeout(10)
        waiting[0].continue_()  # the stage's, and no other
        expect(page.get_by_role("img", name=re.compile("^Avatars, "))).to_be_visible()
        page.get_by_role("slider", name="On the way from A to B").fill("0.5")
        for name in ("Keep this picture", "Save GIF", "Save PNG of all"):
            page.get_by_role("button", name=name).click()
        expect(page.locator(".stage .status")).to_be_empty()
        while len(waiting) < 4:
            page.wait_for_timeout(10)
        for route in waiting[1:]:
            route.continue_()
        settle(page, "interpolate")


def test_a_picture_goes_there_and_back_and_nothing_stale_stands_beside_it(
    browser: Browser, server: str, tmp_path: Path
) -> None:
    model = VAE.from_pretrained("mnist")
    digit = to_pil(to_unit(load_examples("mnist").images[7 * 24]))
    paper = Image.new("L", (600, 400), 255)
    paper.paste(Image.eval(digit.resize((140, 140)), lambda value: 255 - value), (60, 200))
    paper.save(tmp_path / "paper.png")
    Image.new("L", (90, 90), 200).save(tmp_path / "empty.png")
    upload = ".reconstruct input[type=file]"
    with opened(browser, f"{server}#model=mnist&seed=3&tab=reconstruct", DESKTOP) as page:
        settle(page, "reconstruct")  # an example is there
        page.locator(upload).set_input_files(tmp_path / "paper.png")
        expect(page.locator(".measures")).to_contain_text("Light and dark were inverted.")
        settle(page, "reconstruct")
        monitored = prepare(model, paper)
        assert far(pixels(page, ".stack canvas:not(.after)"), to_pil(monitored.x)) <= 1
        back = reconstruct(model, monitored.x[None])[0]
        assert far(pixels(page, ".stack .after"), to_pil(back)) <= 1
        expect(page.locator(".verdict")).to_have_text(re.compile("^(Familiar|Unusual): "))
        expect(page.locator(".samples canvas")).to_have_count(8)
        assert low_contrasts(page) == []
        # The square can be moved, and found again.
        square = page.get_by_role("group", name="The square")
        square.press("ArrowRight")
        settle(page, "reconstruct")
        assert far(pixels(page, ".stack canvas:not(.after)"), to_pil(monitored.x)) > 50
        page.get_by_role("button", name="Find it again").click()
        settle(page, "reconstruct")
        assert far(pixels(page, ".stack canvas:not(.after)"), to_pil(monitored.x)) <= 1
        numbers = page.get_by_role("img", name="μ ± σ")
        numbers.press("ArrowRight")
        expect(page.locator(".told")).to_have_text(re.compile("^Number \\d+: μ = "))
        page.get_by_role("button", name="Use as B").click()
        expect(page.locator(".stage .status")).to_contain_text("now B")
        page.get_by_role("button", name="Use as the large picture").click()
        expect(page.get_by_role("img", name="from a picture of your own")).to_be_visible()
        assert far(stage(page), to_pil(back)) <= 1
        # An error clears what it makes untrue.
        page.locator(upload).set_input_files(tmp_path / "empty.png")
        expect(page.get_by_role("alert").filter(visible=True)).to_contain_text("This picture is empty")
        expect(page.locator(".results")).to_be_hidden()
        # What is drawn is read at the end of each stroke.
        page.get_by_role("button", name="Draw", exact=True).click()
        pad = page.get_by_role("img", name="Draw here").bounding_box()
        assert pad is not None
        page.mouse.move(pad["x"] + 140, pad["y"] + 40)
        page.mouse.down()
        page.mouse.move(pad["x"] + 140, pad["y"] + 240, steps=5)
        page.mouse.up()
        expect(page.locator(".results")).to_be_visible()
        settle(page, "reconstruct")
        drawn = pixels(page, ".stack canvas:not(.after)")[..., 0] > 128
        assert drawn.any(axis=1).sum() >= 18  # a 1, as long as the model's own
        assert drawn.any(axis=0).sum() <= 4


def test_on_a_dark_phone_the_stage_is_seen_with_every_control(browser: Browser, server: str) -> None:
    with opened(browser, server, PHONE, color_scheme="dark", has_touch=True) as page:
        page.get_by_text("More", exact=True).click()
        assert low_contrasts(page) == []
        for tab in page.get_by_role("tab").all():
            tab.scroll_into_view_if_needed()
            box = tab.bounding_box()
            assert box is not None
            assert box["x"] >= 0
            assert box["x"] + box["width"] <= PHONE["width"] + 1
            tab.click()
            name = tab.inner_text().lower()
            expect(page.locator(f"#panel-{name} h2").first).to_be_attached()
            settle(page, name if name not in ("map", "learn") else "explore")
            assert low_contrasts(page) == []
            hidden = page.evaluate(
                """([height, name]) => {
                    const [picture, stage] = [".stage canvas", ".stage"].map((name) => document.querySelector(name));
                    const hidden = [];
                    for (const control of document.querySelectorAll(`#panel-${name} :is(button, input, label, select, .pad)`)) {
                        if (!control.checkVisibility()) continue;
                        control.scrollIntoView({ block: "nearest" });
                        const [at, box, below] = [picture, control, stage].map((part) => part.getBoundingClientRect());
                        const isWhole = at.height >= 0.35 * height && at.top >= 0;
                        const isClear = box.top >= below.bottom - 1 && box.bottom <= height + 1;
                        if (!isWhole || !isClear) hidden.push(control.outerHTML.slice(0, 200));
                    }
                    return hidden;
                }""",
                [PHONE["height"], name],
            )
            assert hidden == []
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]


def test_the_picture_moves_by_itself_until_it_is_touched(browser: Browser, server: str) -> None:
    page = browser.new_page()
    page.set_default_timeout(LOADING)
    page.goto(server)
    expect(page.locator(".way.elsewhere")).to_be_attached()
    page.locator("h1").click()
    expect(page.locator(".way.elsewhere")).to_have_count(0)
    assert far(stage(page), edit_picture(VAE.from_pretrained("avatars"), None, 0, {})) <= 1
    page.close()


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
        expect(page.get_by_role("img", name=re.compile("^fashion, "))).to_be_visible()
        expect(page.locator(".notices")).to_have_count(0)
        expect(page.locator(".card img")).to_have_js_property("naturalWidth", 140)
        page.close()
    with running(VAE_MODELS="somebody/fashion", HF_ENDPOINT=CLOSED, **cache) as address:
        page = browser.new_page()
        page.goto(address)
        expect(page.locator(".notices")).to_contain_text("copy in the cache")
        expect(page.get_by_role("img", name=re.compile("^fashion, "))).to_be_visible()
        assert TOKEN not in page.content()
        page.close()


def test_a_page_shows_the_bundled_models_when_the_hub_is_gone(browser: Browser, tmp_path: Path) -> None:
    with running("--model", "somebody/fashion", HF_ENDPOINT=CLOSED, HF_HOME=str(tmp_path)) as address:
        page = browser.new_page()
        page.goto(address)
        expect(page.locator(".notices")).to_contain_text("the Hub can't be reached")
        expect(page.locator(".notices")).to_contain_text("The models shown here come with the page")
        expect(page.get_by_role("img", name=re.compile("^Avatars, "))).to_be_visible()
        page.get_by_label("fashion", exact=True).click()  # which is taken back
        expect(page.locator(".status")).to_contain_text("the Hub can't be reached")
        expect(page.get_by_role("radio", name="Avatars")).to_be_checked()
        page.close()


def test_a_model_that_the_hub_refuses_is_said_before_there_is_a_page(hub: Hub, tmp_path: Path) -> None:
    command = [sys.executable, "app.py", "--model", "somebody/typo"]
    environment = os.environ | {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=environment)
    assert done.returncode == 1
    assert done.stderr.strip().startswith("app.py: somebody/typo can't be loaded: there is no such repo")


def test_zero_gpu_hardware_finds_the_function_that_it_asks_for(monkeypatch: pytest.MonkeyPatch) -> None:
    marked: list[Any] = []
    monkeypatch.setitem(sys.modules, "spaces", SimpleNamespace(GPU=marked.append))
    runpy.run_path("app.py")
    assert len(marked) == 1
