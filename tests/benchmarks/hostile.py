"""Attack the page as hostile visitors would, then crowd it, and print what it took. Linux only.

    python tests/benchmarks/hostile.py files     # 2,000 mutated pictures and bombs of 40 formats and wrappers
    python tests/benchmarks/hostile.py calls     # 1,000 wrong calls of every endpoint and route
    python tests/benchmarks/hostile.py crowd     # 50 clients for a minute, and a queue that runs full
    python tests/benchmarks/hostile.py crowd --attackers 10     # and others that send bombs and fetch no answers

Each starts app.py on a free port in a process of its own, with a folder of bait beside it that nobody may open.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import ctypes
import gzip
import io
import itertools
import json
import math
import os
import random
import re
import socket
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from PIL import Image

API = "/gradio_api"
MODEL = "fashion-mnist"
# The inputs of each endpoint, and what a well-behaved client sends; None stands for a picture that was uploaded.
ENDPOINTS: dict[str, list[Any]] = {
    "generate": [MODEL, 4, 0, 1, "fitted", None],
    "reconstruct": [MODEL, None, "auto", "auto", None],
    "explore": [MODEL, None, 3, {"class": 4}],
    "interpolate": [MODEL, None, 0, None, 5, 0.5, 5, "slerp"],
}
LATENT_DIM = json.loads(Path("weights", MODEL, "config.json").read_text())["latent_dim"]
# Those that only the page itself calls.
INTERNAL: dict[str, list[Any]] = {
    "point": [MODEL, None, 0, {"z": [0.5] * LATENT_DIM}],
    "draw_point": [MODEL, {"z": [0.5] * LATENT_DIM, "positions": {"class": 3}}],
    "seed_points": [MODEL, 4, 0, 1, "fitted", None],
    "generate_choices": [MODEL],
    "map_points": [MODEL],
    "tutorial": [MODEL],
    "place_picture": [MODEL, None, None],
    "interpolate_gif": [MODEL, {"a": [0.5] * LATENT_DIM, "b": [0.1] * LATENT_DIM, "path": "slerp"}],
    "examples": [MODEL],
    "about": [MODEL],
}
PICTURES = {
    "reconstruct": [1],
    "explore": [1],
    "interpolate": [1, 3],
    "place_picture": [1],
}  # which of them are pictures


# --- files -----------------------------------------------------------------------------------------------------------


def _encoded(picture: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def png_of(width: int, height: int, depth: int = 8, colour: int = 6, channels: int = 4) -> bytes:
    """A small file that is, or claims to be, a black picture of that size."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    packer = zlib.compressobj(1)
    row = bytes(1 + width * channels * depth // 8)
    body = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def many_scans(side: int = 1500, scans: int = 2000) -> bytes:
    """A progressive JPEG whose last scan is repeated."""
    data = _encoded(Image.new("L", (side, side), 99), "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    return data[:last] + data[last:-2] * scans + b"\xff\xd9"


def wrapped_in_iptc(data: bytes) -> bytes:
    """A picture inside an IPTC file, which Pillow unpacks and opens again."""

    def field(record: int, tag: int, value: bytes) -> bytes:
        return struct.pack(">BBBH", 0x1C, record, tag, len(value)) + value

    fields = ((3, 60, b"\x00\x01"), (3, 20, struct.pack(">H", 9)), (3, 30, struct.pack(">H", 9)), (3, 120, b"\x01"))
    return b"".join(itertools.starmap(field, fields)) + struct.pack(">BBBBB", 0x1C, 8, 10, 0x84, 0) + data


def files() -> dict[str, bytes]:
    """Small whole files of many formats, by a name with the usual suffix."""
    noise = np.random.default_rng(0).integers(0, 256, (48, 40, 4), dtype=np.uint8)
    rgba = Image.fromarray(noise)
    rgb, grey = rgba.convert("RGB"), rgba.convert("L")
    deep = Image.fromarray(noise[:, :, 0].astype(np.uint16) * 16)
    number = Image.fromarray(noise[:, :, 0].astype(np.float32) / 50 - 2)
    exif = Image.Exif()
    exif[0x0112] = 6
    made: dict[str, tuple[Image.Image, str, dict[str, Any]]] = {
        "grey.png": (grey, "PNG", {}),
        "rgba.png": (rgba, "PNG", {}),
        "deep.png": (deep, "PNG", {}),
        "palette.png": (rgb.convert("P"), "PNG", {"transparency": 3}),
        "moving.png": (rgb, "PNG", {"save_all": True, "append_images": [rgb.rotate(90)]}),
        "photo.jpg": (rgb, "JPEG", {"exif": exif}),
        "progressive.jpg": (rgb, "JPEG", {"progressive": True}),
        "print.jpg": (rgb.convert("CMYK"), "JPEG", {}),
        "two.mpo": (rgb, "MPO", {"save_all": True, "append_images": [rgb]}),
        "photo.webp": (rgb, "WEBP", {}),
        "lossless.webp": (rgba, "WEBP", {"lossless": True}),
        "moving.webp": (rgb, "WEBP", {"save_all": True, "append_images": [rgb.rotate(90)]}),
        "one.gif": (rgb, "GIF", {}),
        "moving.gif": (rgb, "GIF", {"save_all": True, "append_images": [rgb.rotate(90)]}),
        "a.bmp": (rgb, "BMP", {}),
        "raw.tif": (rgb, "TIFF", {}),
        "lzw.tif": (rgba, "TIFF", {"compression": "tiff_lzw"}),
        "jpeg.tif": (rgb, "TIFF", {"compression": "jpeg"}),
        "float.tif": (number, "TIFF", {}),
        "a.ppm": (rgb, "PPM", {}),
        "a.pgm": (grey, "PPM", {}),
        "a.pfm": (number, "PPM", {}),
        "a.avif": (rgb, "AVIF", {}),
        "a.ico": (rgba, "ICO", {"sizes": [(32, 32)]}),
        "a.icns": (rgba.resize((64, 64)), "ICNS", {}),
        "a.eps": (rgb, "EPS", {}),
        "a.pdf": (rgb, "PDF", {}),
        "a.tga": (rgb, "TGA", {}),
        "a.dds": (rgba, "DDS", {}),
        "a.sgi": (rgb, "SGI", {}),
        "a.pcx": (rgb, "PCX", {}),
        "a.im": (rgb, "IM", {}),
        "a.jp2": (rgb, "JPEG2000", {}),
        "a.xbm": (grey.convert("1"), "XBM", {}),
        "a.spider": (number, "SPIDER", {}),
        "a.qoi": (rgb, "QOI", {}),
    }
    whole = {name: _encoded(picture, kind, **options) for name, (picture, kind, options) in made.items()}
    with contextlib.suppress(ImportError):
        from pillow_heif import from_pillow

        buffer = io.BytesIO()
        from_pillow(rgb.resize((64, 64))).save(buffer)
        whole["a.heic"] = buffer.getvalue()
    png = whole["grey.png"]
    size = struct.pack(">HIIHH", 3, 40, 48, 8, 3)
    whole |= {
        "a.psd": b"8BPS\x00\x01" + bytes(6) + size + bytes(14) + bytes(3 * 40 * 48),
        "a.fits": b"".join(
            f"{card:80}".encode()
            for card in ("SIMPLE  = T", "BITPIX  = 8", "NAXIS   = 2", "NAXIS1  = 40", "NAXIS2  = 48", "END")
        ).ljust(2880)
        + bytes(40 * 48),
        "a.wmf": b"\xd7\xcd\xc6\x9a" + bytes(100),
        "png.iptc": wrapped_in_iptc(png),
        "a.svg": b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
        "png.gz": gzip.compress(png, mtime=0),
        "png.tar": b"grey.png".ljust(512, b"\0") + png,
        "html.jpg": b"<!DOCTYPE html><script>alert(1)</script>",
        "nothing.png": b"",
    }
    return whole


def bombs() -> dict[str, bytes]:
    """Small files that want much memory or time."""
    wide = png_of(7000, 7000, 1, 0, 1)
    flat = Image.new("RGB", (7000, 7000))
    canvas = b"RIFF\x1e\0\0\0WEBPVP8X\x0a\0\0\0\x02\0\0\0" + b"\xfe\x3f\0" * 2 + b"ANIM\x06\0\0\0" + bytes(6)
    return {
        "rgba16.png": png_of(7070, 7070, 16),
        "rgba8.png": png_of(7070, 7070),
        "grey16.png": png_of(7070, 7070, 16, 0, 1),
        "bits.png": wide,
        "huge.png": png_of(20_000, 20_000, 1, 0, 1),
        "wrapped.iptc": wrapped_in_iptc(png_of(13_000, 13_000, 1, 0, 1)),
        "scans.jpg": many_scans(),
        "flat.jpg": _encoded(flat, "JPEG"),
        "slow.jpg": _encoded(flat, "JPEG", progressive=True, subsampling=0),
        "flat.webp": _encoded(flat, "WEBP", method=0),
        "lzw.tif": _encoded(flat, "TIFF", compression="tiff_lzw"),
        "canvas.webp": canvas,
        "lies.gif": b"GIF89a"
        + struct.pack("<HH", 65535, 65535)
        + b"\0\0\0,\0\0\0\0"
        + struct.pack("<HH", 65535, 65535),
        "text.ppm": b"P3 2000 2000 255\n" + b"1 2 3\n" * 3_000_000,
        "lies.bmp": _encoded(Image.new("L", (2, 2)), "BMP").replace(
            struct.pack("<ii", 2, 2), struct.pack("<ii", 7000, 7000)
        ),
    }


def mutated(data: bytes, chance: random.Random) -> bytes:
    """Break a file in one of the ways in which files are broken on purpose."""
    broken, way = bytearray(data or b"\0"), chance.randrange(6)
    if way == 0:
        return bytes(broken[: chance.randrange(len(broken))])
    if way == 1:  # some bits anywhere
        for _ in range(chance.randint(1, 20)):
            broken[chance.randrange(len(broken))] ^= 1 << chance.randrange(8)
    if way == 2:  # numbers of the header, extreme
        for _ in range(chance.randint(1, 3)):
            at = chance.randrange(min(64, len(broken)))
            broken[at : at + 4] = chance.choice((b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff", b"\0\1\0\0"))
    if way == 3:  # a part twice
        start = chance.randrange(len(broken))
        broken[start:start] = broken[start : start + chance.randint(1, 500)] * chance.randint(1, 20)
    if way == 4:  # a part gone
        start = chance.randrange(len(broken))
        del broken[start : start + chance.randint(1, 100)]
    if way == 5:
        broken += bytes(chance.choices(range(256), k=chance.randint(1, 2000)))
    return bytes(broken)


# --- calls -----------------------------------------------------------------------------------------------------------


def wrong_values(bait: Path) -> list[Any]:
    """What no input of the page takes, or only by mistake."""
    picture, pipe = str(bait / "picture.png"), str(bait / "pipe")
    meta = {"meta": {"_type": "gradio.FileData"}}
    deep: Any = []
    for _ in range(400):
        deep = [deep]
    paths = [
        picture,
        pipe,
        "/dev/ptmx",
        "/dev/zero",
        "/etc/passwd",
        "/proc/self/environ",
        str(bait),
        "../../x",
        "\0",
        "a" * 9000,
    ]
    png = base64.b64encode(png_of(10, 10)).decode()
    urls = ["http://127.0.0.1:9/x.png", f"file://{picture}", f"data:image/png;base64,{png}", "data:,", "ftp://x", "//x"]
    return [
        *(True, False, "", "x", "NaN", "1", "<b>*x*</b>", "m" * 5000, "é\ud800"),
        *(math.nan, math.inf, -math.inf, 1e30, -1e30, -1, 0.5, 2**31, 2**63, 10**400),
        *(
            [],
            [1],
            [[]],
            {},
            {"a": 1},
            deep,
            {"class": "red"},
            {"class": math.nan},
            {"class": 10**400},
            {"z": [10**400]},
            {"z": [math.nan]},
            {"z": "x"},
            {"class": [1]},
            {"hat": 1},
            {"class": 1e9},
        ),
        *({"path": path} for path in paths),
        *({"path": path} | meta for path in paths),
        *({"url": url} for url in urls),
        *({"path": None, "url": url} | meta for url in urls),
        *({"path": url} | meta for url in urls),
        *({"path": value} for value in (1, [picture], {"path": picture}, True)),
        *({"path": picture, "is_stream": True} | meta, {"path": picture, "orig_name": "x.svg"} | meta),
        *([{"path": picture} | meta], {"value": {"path": picture}}, {"__type__": "update", "value": 1}),
        *({"image": {"path": picture}, "caption": "x"}, {"image": {"path": picture} | meta}),
    ]


def wrong_calls(bait: Path) -> Iterator[tuple[str, list[Any]]]:
    """Calls of the endpoints in which one value is wrong, and such with too few and too many values."""
    for name, values in (ENDPOINTS | INTERNAL).items():
        for index in range(len(values)):
            for value in wrong_values(bait):
                yield name, [*values[:index], value, *values[index + 1 :]]
        broken: list[list[Any]] = [[10**400], [math.nan], [math.inf], ["x"], [None], [[]], [True], [0.5] * 10]
        for numbers in broken:
            yield "draw_point", [MODEL, {"z": (numbers * LATENT_DIM)[:LATENT_DIM], "positions": {}}]
        for length in (0, 1, len(values) - 1, len(values) + 1, 50):
            yield name, (values * 20)[:length]


def wrong_requests(bait: Path) -> Iterator[tuple[str, str, bytes | None]]:
    """Requests of other routes, and of theirs with other bodies: method, path and body."""

    def body(**values: Any) -> bytes:
        return json.dumps(values).encode()

    picture = str(bait / "picture.png")
    events: list[Any] = [None, 5, "x", [], {}, {"path": picture}]
    events += [{"index": index} for index in (10**9, -1, [1, 2], "x")]
    for value in (-1, 0, 3, 7, 999, 10**6, "x", None, [0], 1.5):
        for data in ([], [MODEL], [MODEL, None, "x"], [picture] * 5):
            for session in ("s", None, 5, "x" * 1000):
                yield (
                    "POST",
                    f"{API}/queue/join",
                    body(fn_index=value, data=data, session_hash=session, trigger_id=value),
                )
                yield "POST", f"{API}/run/predict", body(fn_index=value, data=data, session_hash=session)
    for event in events:
        for number in range(40):
            data = [MODEL]
            yield "POST", f"{API}/queue/join", body(fn_index=number, data=data, session_hash="s", event_data=event)
    for name in (*ENDPOINTS, "nothing", "lambda", "..", "x" * 2000):
        for content in (
            b"",
            b"{",
            b"[]",
            b"null",
            b'{"data": 5}',
            b'{"data": null}',
            b"\xff\xfe",
            b"[" * 50_000,
            b'"' + b"x" * 10**6 + b'"',
        ):
            yield "POST", f"{API}/call/{name}", content
            yield "POST", f"{API}/call/v2/{name}", content
            yield "POST", f"{API}/api/{name}", content
    for path in (
        picture,
        "/etc/passwd",
        "/dev/zero",
        str(bait / "pipe"),
        "../../etc/passwd",
        "http://127.0.0.1:9/",
        "https://x.invalid/",
    ):
        for route in ("file=", "file/", "proxy=", "stream/", "custom_component/", "deep_link?session_hash="):
            yield "GET", f"{API}/{route}{path}", None
    for route in (
        "process_recording",
        "vibe-edit",
        "vibe-code",
        "component_server",
        "dev/reload",
        "run-history/connect",
        "upload",
        "cancel",
        "reset",
    ):
        for content in (
            b"",
            b"{}",
            b"[1]",
            body(session_hash="s", component_id=5, fn_name="x", data=picture, event_id="x", fn_index=0),
        ):
            yield "POST", f"{API}/{route}", content
    for path in (
        f"{API}/queue/data?session_hash=nobody",
        f"{API}/call/generate/nothing",
        "/?deep_link=../../x",
        "/monitoring",
        "/monitoring/x",
    ):
        yield "GET", path, None


# --- the page --------------------------------------------------------------------------------------------------------


class Attacked:
    """A running page: asks it, and watches its memory, its log and the bait."""

    def __init__(self, folder: Path) -> None:
        self.bait = folder / "bait"
        self.bait.mkdir()
        Image.new("RGB", (64, 64), "red").save(self.bait / "picture.png")
        os.mkfifo(self.bait / "pipe")
        libc = ctypes.CDLL(None, use_errno=True)
        self._watch = libc.inotify_init1(os.O_NONBLOCK)
        opened_or_read = 0x20 | 0x01
        libc.inotify_add_watch(self._watch, bytes(self.bait), opened_or_read)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.address, self.log = f"http://127.0.0.1:{port}", folder / "log.txt"
        (folder / "cache").mkdir()
        environment = os.environ | {"GRADIO_TEMP_DIR": str(folder / "cache"), "PYTHONUNBUFFERED": "1"}
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "app.py", "--port", str(port)], stdout=log, stderr=subprocess.STDOUT, env=environment
            )
        deadline = time.monotonic() + 120
        while b"public link" not in self.log.read_bytes():  # said last
            assert time.monotonic() < deadline
            assert self.process.poll() is None, self.log.read_text()
            time.sleep(0.2)
        self.client = httpx.AsyncClient(
            base_url=self.address, timeout=60, limits=httpx.Limits(max_connections=400, max_keepalive_connections=0)
        )
        self.seconds: list[float] = []
        self.peak = self.peak_of_page = self.peak_of_shares = 0
        self.memory: list[tuple[float, int]] = []

    async def upload(self, data: bytes, name: str) -> str:
        """Send a file as the browser does and return its path."""
        answer = await self.client.post(f"{API}/upload", files={"files": (name, data)})
        answer.raise_for_status()
        return str(answer.json()[0])

    async def ask(self, endpoint: str, values: list[Any]) -> tuple[str, Any]:
        """Call an endpoint and return "complete", "error" or a status, and what it says."""
        start = time.monotonic()
        body = json.dumps({"data": values}).encode()
        answer = await self.client.post(
            f"{API}/call/{endpoint}", content=body, headers={"content-type": "application/json"}
        )
        kind, said = str(answer.status_code), answer.text
        if answer.status_code == 200:
            stream = await self.client.get(f"{API}/call/{endpoint}/{answer.json()['event_id']}")
            found = re.search(r"event: (complete|error)\ndata: (.*)", stream.text)
            kind, said = (found[1], json.loads(found[2])) if found else ("nothing", stream.text)
        self.seconds.append(time.monotonic() - start)
        return kind, said

    def processor_seconds(self) -> float:
        """Return the processor time that the page itself has taken."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def bait_taken(self) -> int:
        """Count how often a file of the bait was opened or read."""
        with contextlib.suppress(BlockingIOError):
            return len(os.read(self._watch, 65536)) // 16
        return 0

    async def watch_memory(self) -> None:
        """Sample the resident memory of the page and its processes, together."""
        start = time.monotonic()
        while True:
            resident, shares = {}, 0
            for status in Path("/proc").glob("[0-9]*/status"):
                with contextlib.suppress(OSError):
                    fields = dict(line.split(":", 1) for line in status.read_text().splitlines())
                    if int(fields["PPid"]) == self.process.pid or int(fields["Pid"]) == self.process.pid:
                        resident[int(fields["Pid"])] = int(fields.get("VmRSS", "0 kB").split()[0]) // 1024
                        rollup = status.with_name("smaps_rollup").read_text()
                        shares += int(rollup.partition("\nPss:")[2].split()[0]) // 1024
            self.peak_of_shares = max(self.peak_of_shares, shares)
            total = sum(resident.values())
            if total > self.peak:
                self.peak, self.peak_of_page = total, resident.get(self.process.pid, 0)
            self.memory.append((time.monotonic() - start, total))
            await asyncio.sleep(0.1)

    async def report(self) -> None:
        """Print what it took."""
        start = time.monotonic()
        alive = (await self.client.get("/config")).status_code == 200
        log = self.log.read_text(errors="replace")
        seconds = sorted(self.seconds)
        print(f"alive: {alive} (answers in {time.monotonic() - start:.2f} s)")
        print(
            f"tracebacks in the log: {log.count('Traceback')}; lines: {len(log.splitlines())}, the longest of "
            f"{max(map(len, log.splitlines()))} letters"
        )
        print(
            f"peak memory of the page and its decoders: {self.peak} MB, {self.peak_of_page} of it the page's; "
            f"{self.peak_of_shares} MB with what they share counted once"
        )
        files = [path.stat().st_size for path in self.log.with_name("cache").rglob("*") if path.is_file()]
        print(f"cache: {len(files)} files, {sum(files) // 2**20} MB")
        print(
            f"calls: {len(seconds)}, p50 {seconds[len(seconds) // 2]:.2f} s, p95 {seconds[int(0.95 * len(seconds))]:.2f} s, "
            f"slowest {seconds[-1]:.2f} s"
        )
        print(f"files read from outside: {self.bait_taken()}")


@contextlib.asynccontextmanager
async def attacked() -> AsyncIterator[Attacked]:
    """Run a page to attack, and report at the end."""
    with tempfile.TemporaryDirectory() as folder:
        page = Attacked(Path(folder))
        watching = asyncio.create_task(page.watch_memory())
        try:
            for endpoint, values in ENDPOINTS.items():  # the first visitor waits until a model is loaded
                kind, said = await page.ask(endpoint, values)
                assert kind == "complete" or endpoint == "reconstruct", said  # which has no picture here
            print(f"first calls: {', '.join(f'{seconds:.2f} s' for seconds in page.seconds)}; {page.memory[-1][1]} MB")
            page.seconds.clear()
            yield page
            await page.report()
        finally:
            watching.cancel()
            await page.client.aclose()
            if page.process.poll() is not None:
                print(f"the page has ended: {page.process.returncode}")
            page.process.terminate()
            page.process.wait()
            if keep := os.environ.get("KEEP_LOG"):
                Path(keep).write_bytes(page.log.read_bytes())


def words(said: Any) -> str:
    """Return the sentence of an error; empty if it has none."""
    if isinstance(said, str) and said.startswith("{"):
        said = json.loads(said)
    text = said.get("error") or said.get("detail") if isinstance(said, dict) else said
    return text if isinstance(text, str) else ""


async def send_files(count: int, seed: int) -> None:
    """Upload mutated files and bombs, and send each to an endpoint that takes a picture."""
    chance, whole, outcome = random.Random(seed), files(), Counter[str]()
    names = list(whole)
    batch = [(name, data) for name, data in bombs().items()] * 3 + list(whole.items())
    batch += [(name := names[index % len(names)], mutated(whole[name], chance)) for index in range(count - len(batch))]
    chance.shuffle(batch)
    slowest: list[tuple[float, str]] = []
    async with attacked() as page:
        for name, data in batch:
            endpoint = chance.choice(list(PICTURES))
            values = list((ENDPOINTS | INTERNAL)[endpoint])
            suffix = chance.choice((Path(name).suffix, ".png", ".jpg", ""))
            for index in PICTURES[endpoint]:
                values[index] = {
                    "path": await page.upload(data, Path(name).stem + suffix),
                    "meta": {"_type": "gradio.FileData"},
                }
            kind, said = await page.ask(endpoint, values)
            slowest.append((page.seconds[-1], f"{endpoint} {name}"))
            outcome[kind if kind == "complete" or words(said) else f"{kind} without words"] += 1
        print(f"{len(batch)} files of {len(whole)} formats and wrappers: {dict(outcome)}")
        print("slowest:", ", ".join(f"{name} {seconds:.2f} s" for seconds, name in sorted(slowest)[-4:]))


async def send_calls() -> None:
    """Send every wrong call and request."""
    outcome = Counter[str]()
    async with attacked() as page:
        for endpoint, values in wrong_calls(page.bait):
            kind, said = await page.ask(endpoint, values)
            outcome[kind if kind == "complete" or words(said) else f"{kind} without words"] += 1
        for method, path, content in wrong_requests(page.bait):
            start = time.monotonic()
            with contextlib.suppress(httpx.TimeoutException):
                answer = await page.client.request(
                    method, path, content=content, headers={"content-type": "application/json"}, timeout=20
                )
                outcome[f"{answer.status_code}{'' if answer.text else ' without words'}"] += 1
            page.seconds.append(time.monotonic() - start)
        print(f"{outcome.total()} wrong calls: {dict(outcome)}")


async def crowd(clients: int, duration: float, attackers: int) -> None:
    """Let well-behaved clients use all endpoints at once, and fetch every picture that they are shown.

    attackers: so many others send bombs and the largest pictures that are taken, and leave answers unfetched.
    """
    outcome, attacks, broken = Counter[str](), Counter[str](), 0
    photo = _encoded(Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)), "JPEG")

    def pictures(said: Any) -> Iterator[str]:
        if isinstance(said, dict) and isinstance(said.get("path"), str):
            yield said["path"]
        elif isinstance(said, dict | list):
            for part in said.values() if isinstance(said, dict) else said:
                yield from pictures(part)

    async def visit(page: Attacked, number: int) -> None:
        nonlocal broken
        chance, end = random.Random(number), time.monotonic() + duration
        while time.monotonic() < end:
            endpoint = chance.choice(list(ENDPOINTS))
            values = list(ENDPOINTS[endpoint])
            values[0] = chance.choice(("mnist", "fashion-mnist", "avatars"))
            if endpoint == "explore":
                values[2:] = chance.randrange(50), {}
            if endpoint == "generate":
                values[2] = chance.randrange(50)
            for index in PICTURES.get(endpoint, []):
                if endpoint == "reconstruct" or chance.random() < 0.5:
                    try:
                        values[index] = {"path": await page.upload(photo + bytes([chance.randrange(9)]), "mine.jpg")}
                    except httpx.HTTPStatusError as error:
                        outcome[f"upload {error.response.status_code} {error.response.text}"] += 1
            kind, said = await page.ask(endpoint, values)
            outcome[kind] += 1
            if kind != "complete":
                print(endpoint, kind, str(said)[:200])
            for path in pictures(said):
                answer = await page.client.get(f"{API}/file={path}")
                try:
                    Image.open(io.BytesIO(answer.content)).load()
                    outcome["pictures"] += 1
                except OSError:
                    broken += 1

    async def attack(page: Attacked, number: int) -> None:
        chance, end = random.Random(-number), time.monotonic() + duration
        while time.monotonic() < end:
            endpoint = chance.choice(list(PICTURES))
            values = list((ENDPOINTS | INTERNAL)[endpoint])
            sent = await page.client.post(
                f"{API}/upload", files={"files": ("bomb.png", chance.choice(weapons) + chance.randbytes(4))}
            )
            for index in PICTURES[endpoint]:
                values[index] = {"path": sent.json()[0]} if sent.status_code == 200 else None
            attacks[str(sent.status_code)] += 1
            kind, _ = await page.ask(endpoint, values)
            attacks[kind] += 1
            page.seconds.pop()
            content = json.dumps({"data": [MODEL, 64, chance.randrange(10**6), 1, "fitted", None]})
            headers = {"content-type": "application/json"}
            attacks["unfetched"] += (
                await page.client.post(f"{API}/call/generate", content=content, headers=headers)
            ).is_success

    weapons = []
    if attackers:
        noise = np.random.default_rng(0).integers(0, 256, (2500, 2600, 3), dtype=np.uint8)
        weapons = [*bombs().values(), _encoded(Image.fromarray(noise), "PNG", compress_level=0)]  # 19 MB
    async with attacked() as page:
        visits = [visit(page, number) for number in range(clients)]
        await asyncio.gather(*visits, *(attack(page, number) for number in range(attackers)))
        early = max(memory for at, memory in page.memory if at < 20)
        late = max(memory for at, memory in page.memory if at > max(20, page.memory[-1][0] - 15))
        print(f"{clients} clients for {duration:.0f} s: {dict(outcome)}; broken pictures: {broken}")
        if attackers:
            print(f"{attackers} attackers: {dict(attacks)}")
        print(f"memory: {early} MB in the first 20 s, {late} MB in the last 15 s")
        every = [memory for _, memory in page.memory][:: len(page.memory) // 12 or 1]
        print(f"memory over time: {every} MB; processor: {page.processor_seconds() / outcome['complete']:.3f} s a call")
        seconds, full = page.seconds, Counter[str]()
        page.seconds = []
        for answer in await asyncio.gather(
            *(page.ask("generate", [MODEL, 64, number, 1, "fitted", None]) for number in range(300)),
            return_exceptions=True,
        ):
            kind, said = (repr(answer), "") if isinstance(answer, BaseException) else answer
            full[kind if kind == "complete" else f"{kind} {words(said)}"] += 1
        print(f"300 calls at once: {dict(full)}")
        page.seconds = seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mode", choices=["files", "calls", "crowd"])
    parser.add_argument("--count", type=int, default=2000, help="files")
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--attackers", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    asyncio.run(
        {
            "files": lambda: send_files(options.count, options.seed),
            "calls": send_calls,
            "crowd": lambda: crowd(options.clients, options.seconds, options.attackers),
        }[options.mode]()
    )


if __name__ == "__main__":
    main()
