"""Measure how fast the page answers, in Chromium on this machine: python tests/benchmarks/page.py

Prints the time from a slider's event to the picture on the canvas, by the browser and by the server, how long 81 events of
a quick drag take, and when the first picture is there, beside a bare page of gradio and torch.
"""

from __future__ import annotations

import os
import shutil
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
from playwright.sync_api import Browser, Page, sync_playwright

EVENTS = 81  # of a quick drag
EVENT_MS = 10  # between two of them
SAMPLES = 60
LOADS = 5
START_SECONDS = 120

BARE = """
import gradio as gr, torch
from PIL import Image
def draw():
    return Image.fromarray((torch.rand(64, 64, 3) * 255).byte().numpy())
with gr.Blocks(analytics_enabled=False) as page:
    picture = gr.Image(format="png")
    page.load(draw, None, picture)
page.launch(server_port={port}, quiet=True)
"""
FIRST_PICTURE = {
    "ours": """new Promise((give) => {
        const look = () => {
            const picture = document.querySelector(".stage .picture");
            return (picture?.naturalWidth || picture?.width) > 1 ? give(performance.now()) : requestAnimationFrame(look);
        };
        look();
    })""",
    "bare": """new Promise((give) => {
        const look = () => {
            const image = document.querySelector(".image-container img, .image-frame img");
            return image?.complete && image.naturalWidth ? give(performance.now()) : requestAnimationFrame(look);
        };
        look();
    })""",
}
FIRST_PAINT = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? 0"

# From the event that a slider fires to the picture on the stage, one after the other.
SLIDE = """async ([count, isByServer]) => {
    const { app } = await import(new URL("web/page.js", document.baseURI));
    const { download } = await import(new URL("web/server.js", document.baseURI));
    const slider = document.querySelector(".controls input[type=range]");
    const times = [];
    for (let index = 0; index < count; index++) {
        const value = (4 * ((index * 7) % 41)) / 41;
        const start = performance.now();
        if (isByServer) {
            const { point, model } = app.state.present;
            const [file] = await app.call("draw_point", [model, { z: point.z, positions: { "skin colour": value } }]);
            await createImageBitmap(await download(file));
        } else {
            const painted = new Promise((go) => app.addEventListener("paint", go, { once: true }));
            slider.value = String(value);
            slider.dispatchEvent(new Event("input"));
            await painted;
        }
        times.push(performance.now() - start);
        await new Promise((go) => setTimeout(go, 30));
    }
    return times;
}"""
DRAG = """async ([count, pause]) => {
    const { app } = await import(new URL("web/page.js", document.baseURI));
    const slider = document.querySelector(".controls input[type=range]");
    const start = performance.now();
    for (let index = 0; index < count; index++) {
        slider.value = String((4 * index) / (count - 1));
        slider.dispatchEvent(new Event("input"));
        await new Promise((go) => setTimeout(go, pause));
    }
    while (!app.isSettled) await new Promise((go) => requestAnimationFrame(go));
    return performance.now() - start;
}"""


@contextmanager
def running(*command: str, port: int) -> Iterator[str]:
    """Run a page and yield its address."""
    address = f"http://127.0.0.1:{port}"
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, env=os.environ | {"GRADIO_ANALYTICS_ENABLED": "False"}
    ) as app:
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end:
            try:
                httpx.get(address, timeout=5)
                break
            except httpx.TransportError:
                time.sleep(0.2)
        try:
            yield address
        finally:
            app.terminate()


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def open_page(browser: Browser, address: str) -> Page:
    context = browser.new_context(viewport={"width": 1280, "height": 900}, reduced_motion="reduce")
    page = context.new_page()
    page.set_default_timeout(1000 * START_SECONDS)
    page.goto(address)
    return page


def first_pictures(browser: Browser, address: str, kind: str) -> tuple[float, float]:
    """Return the medians of when a page paints first and when its first picture is there, ms after it is asked for."""
    paints, pictures = [], []
    for load in range(LOADS + 1):
        page = open_page(browser, address)
        picture = page.evaluate(FIRST_PICTURE[kind])
        if load > 0:  # the first warms the server up
            pictures.append(picture)
            paints.append(page.evaluate(FIRST_PAINT))
        page.context.close()
    return statistics.median(paints), statistics.median(pictures)


def summed(times: list[Any]) -> str:
    return f"median {statistics.median(times):.0f} ms, p95 {statistics.quantiles(times, n=20)[-1]:.0f} ms"


def main() -> None:
    port, bare_port = free_port(), free_port()
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    with (
        running(sys.executable, "app.py", "--port", str(port), port=port) as ours,
        running(sys.executable, "-c", BARE.replace("{port}", str(bare_port)), port=bare_port) as bare,
        sync_playwright() as playwright,
    ):
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        page = open_page(browser, ours)
        page.evaluate(FIRST_PICTURE["ours"])
        page.wait_for_timeout(3000)  # until the thumbnails are there
        page.evaluate(SLIDE, [10, False])
        print(f"slider to canvas, by the browser: {summed(page.evaluate(SLIDE, [SAMPLES, False]))}")
        print(f"slider to canvas, by the server: {summed(page.evaluate(SLIDE, [SAMPLES, True]))}")
        print(f"{EVENTS} events, {EVENT_MS} ms apart: {page.evaluate(DRAG, [EVENTS, EVENT_MS]) / 1000:.2f} s")
        page.context.close()
        for kind, address in (("bare", bare), ("ours", ours)):
            paint, picture = first_pictures(browser, address, kind)
            print(f"{kind}: first paint {paint:.0f} ms, first picture {picture:.0f} ms")
        browser.close()


if __name__ == "__main__":
    main()
