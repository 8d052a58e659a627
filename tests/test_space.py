"""The Space: what is put there, by the real client, against a Hub on loopback, and that it starts."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from conftest import TOKEN, Client, Rest
from hub_server import Hub

from vae.hub import bundled_names
from vae.space import space_files


def test_a_space_gets_what_it_needs_and_nothing_else(hub: Hub, client: Client) -> None:
    client("push_space", "somebody/demo", token=TOKEN, models=["somebody/fashion"])
    files = hub.spaces["somebody/demo"].files
    assert {path for path in files if "/" not in path} == {"app.py", "requirements.txt", "README.md", "LICENSE"}
    assert {path.partition("/")[0] for path in files if "/" in path} == {"vae", "weights"}
    assert {"vae/model.py", "vae/demo/generate.py", "vae/examples/mnist.png", "weights/mnist/README.md"} <= set(files)
    assert {path.as_posix() for path in Path("weights/learn").rglob("*") if path.is_file()} <= set(files)
    assert not [path for path in files if "__pycache__" in path or path.endswith((".pyc", ".pyi", ".part"))]
    front = files["README.md"].decode().partition("\n---\n")[0]
    assert "models:\n- somebody/fashion" in front
    assert "sdk: gradio" in front
    for path, content in files.items():
        assert path == "README.md" or content == Path(path).read_bytes(), path


def test_a_space_gets_the_whole_package() -> None:
    package = {path.as_posix() for path in Path("vae").rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    assert package <= set(space_files())


def test_a_space_shows_its_owners_models_only(hub: Hub, client: Client) -> None:
    for name in ("stranger/model", "mnist", "somebody/model@v1", "somebody/../x"):
        assert "a Space shows models of its own owner, somebody/..." in client(
            "push_space", "somebody/demo", token=TOKEN, models=[name]
        )
    assert hub.log == []


def test_the_command_makes_a_space_that_starts(hub: Hub, tmp_path: Path) -> None:
    environment = os.environ | {"HF_ENDPOINT": hub.url, "HF_TOKEN": TOKEN, "HF_HUB_DISABLE_XET": "1"}
    environment |= {"HF_HOME": str(tmp_path)}
    command = [sys.executable, "-m", "vae.space", "somebody/demo"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert f"{hub.url}/somebody/demo/commit/" in done.stdout
    assert TOKEN not in done.stdout + done.stderr
    for path, content in hub.spaces["somebody/demo"].files.items():
        (tmp_path / "space" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "space" / path).write_bytes(content)
    command = [sys.executable, "app.py"]
    environment |= {"PYTHONUNBUFFERED": "1", "GRADIO_TEMP_DIR": str(tmp_path / "gradio")}
    environment.pop("PYTHONPATH", None)  # the Space has nothing but its own files
    with subprocess.Popen(
        command,
        cwd=tmp_path / "space",
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as page:
        assert page.stdout
        said: list[str] = []
        for line in page.stdout:
            said.append(line)
            if address := re.search(r"http://127\.0\.0\.1:\d+", line):
                break
        else:
            pytest.fail("".join(said))
        rest = Rest(page)
        try:
            shown = httpx.get(f"{address[0]}/config", timeout=60).raise_for_status().text
        finally:
            written = rest.end()
    assert page.returncode == 0, written
    assert all(f'"{name}"' in shown for name in bundled_names())
