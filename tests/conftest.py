"""What several test files share: small models with known weights, and the bundled examples."""

from __future__ import annotations

import copy
import json
import os
import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # before gradio is imported: tests make no network call
# Two processes of pytest, and what they start, share the cores: more threads would wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Each of pytest's processes starts pages on ports of its own: two that look for a free one at once can find the same.
os.environ["GRADIO_SERVER_PORT"] = str(7860 + 200 * int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:]))

import pytest
import torch
from hub_server import Account, Hub, Repo, serve
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from vae import VAE, VAEConfig
from vae.data import load_examples
from vae.images import to_unit

# A shell makes what it starts in the background deaf to Ctrl-C, and what that starts, too: the tests send it.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True, scope="session")
def _small_curves() -> Iterator[None]:
    """Draw the curves of what is trained in this process in no time: programs that are started draw the real ones."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vae.training.output.draw_curves", lambda history: Figure(figsize=(1, 1)))
        yield


def small_model(**changes: Any) -> VAE:
    """Make an untrained model whose batch normalisations have seen data, as a trained one's have."""
    return copy.deepcopy(_small_model(**changes))


@cache
def _small_model(**changes: Any) -> VAE:
    config = VAEConfig(**{"width": 8, "depth": 1, "latent_dim": 6} | changes)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = VAE(config)
        for _ in range(3):
            model(torch.rand(16, config.channels, config.image_size, config.image_size))
    return model.eval()


@pytest.fixture
def model() -> VAE:
    return small_model()


@pytest.fixture(scope="session")
def sneakers() -> Tensor:
    """24 sneakers of Fashion-MNIST's test set, (24, 1, 28, 28) in [0, 1]."""
    images, labels, _ = load_examples("fashion-mnist")
    return to_unit(images[labels[:, 0] == 7])


def write_celeba(folder: Path, count: int = 30) -> Path:
    """A tiny copy of CelebA's layout: pictures of 178x218, the n-th as red as n, a third of them each for testing."""
    (folder / "celeba" / "img_align_celeba").mkdir(parents=True)
    names = [f"{index:06}.jpg" for index in range(1, count + 1)]
    for index, name in enumerate(names):
        Image.new("RGB", (178, 218), (8 * index, 0, 100)).save(folder / "celeba" / "img_align_celeba" / name)
    partition = "".join(f"{name} {index % 3}\n" for index, name in enumerate(names))
    rows = "".join(
        f"{name} {' '.join(f'{1 if index % 2 else -1:2}' for _ in range(2))}\n" for index, name in enumerate(names)
    )
    (folder / "celeba" / "list_eval_partition.txt").write_text(partition)
    (folder / "celeba" / "list_attr_celeba.txt").write_text(f"{count}\nBlond_Hair Smiling \n{rows}")
    return folder


class Rest(threading.Thread):
    """What a program writes from now on, read all the time, so that it never waits for a reader."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        super().__init__(daemon=True)
        self.process = process
        self.lines: list[str] = []
        self.start()

    def run(self) -> None:
        assert self.process.stdout
        self.lines.extend(self.process.stdout)

    def end(self) -> str:
        """Send the program SIGTERM, and return all that it has written once it has ended."""
        self.process.terminate()
        try:
            self.process.wait(timeout=120)
        except subprocess.TimeoutExpired:
            self.process.kill()  # or the test would wait for it, too
            raise
        self.join()
        return "".join(self.lines)


TOKEN = "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"


class Client:
    """The real client of the Hub, with our functions around it, in a process of its own with an empty cache."""

    def __init__(self, url: str, cache: Path, **env: str) -> None:
        environment = os.environ | {"HF_ENDPOINT": url, "HF_HOME": str(cache)} | env
        cache.mkdir(parents=True, exist_ok=True)
        self.log = cache / f"stderr-{uuid.uuid4()}.txt"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, str(Path(__file__).with_name("hub_client.py"))],
                env=environment | {"PYTHONPATH": str(Path(__file__).parents[1])},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )

    def __call__(self, name: str, *arguments: Any, **options: Any) -> Any:
        """Call a function of hub_client.py and return what it returns, or the sentence of its ValueError."""
        assert self.process.stdin
        assert self.process.stdout
        print(json.dumps([name, arguments, options]), file=self.process.stdin, flush=True)
        line = self.process.stdout.readline()
        assert line, self.close()
        assert TOKEN not in line
        answer = json.loads(line)
        return answer["refused"] if "refused" in answer else answer["answer"]

    def close(self) -> str:
        """End the process and return what it wrote to stderr."""
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()
        written = self.log.read_text()
        assert TOKEN not in written
        return written


@pytest.fixture(scope="session")
def _hub() -> Iterator[Hub]:
    with serve() as hub:
        yield hub


@pytest.fixture
def hub(_hub: Hub) -> Hub:
    """A Hub on loopback that holds a model of ours, somebody/fashion, and knows the token of that somebody."""
    _hub.reset()
    fitted = ("prior.safetensors", "latents.safetensors", "map.safetensors")
    names = ("config.json", "model.safetensors", "metrics.json", *fitted)
    _hub.repos["somebody/fashion"] = Repo({name: Path("weights/fashion-mnist", name).read_bytes() for name in names})
    _hub.accounts[TOKEN] = Account("somebody", ("some-organization",))
    return _hub


@pytest.fixture(scope="session", params=["lfs", "xet"])
def _client(_hub: Hub, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Client]:
    """The client, with Xet left on and with Xet off."""
    switch = {} if request.param == "xet" else {"HF_HUB_DISABLE_XET": "1"}
    client = Client(_hub.url, tmp_path_factory.mktemp("hf"), **switch)
    yield client
    assert "Traceback" not in client.close()


@pytest.fixture
def client(hub: Hub, _client: Client, request: pytest.FixtureRequest) -> Client:
    hub.uses_lfs = "xet" not in request.node.callspec.id
    return _client
