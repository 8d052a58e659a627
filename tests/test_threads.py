"""How many threads a training takes."""

from __future__ import annotations

import itertools
import os
import re
import time
from collections.abc import Callable, Iterator

import pytest
import torch

from vae.training import threads


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Pretend that the machine has some processors, each idle for a part of the time."""
    before = torch.get_num_threads()
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)

    def pretend(idle: dict[int, float], siblings: dict[int, str] | None = None, quota: str = "max 100000") -> None:
        ticks, reads = os.sysconf("SC_CLK_TCK"), itertools.count()

        def read(path: str) -> str:
            if path == "/proc/stat":
                seconds = next(reads) * threads.SAMPLE_SECONDS
                rows = [f"cpu{n} 5 0 5 {round(part * seconds * ticks)} 0 0" for n, part in idle.items()]
                return "\n".join(["cpu  1 2 3 4 5", *rows, "intr 5"])
            if path.endswith("thread_siblings_list"):
                return (siblings or {}).get(int(re.findall(r"\d+", path)[0]), "")
            return quota if path.endswith("cpu.max") else ""

        monkeypatch.setattr(threads, "_read", read)
        monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(idle), raising=False)
        monkeypatch.setattr(time, "sleep", lambda seconds: None)

    yield pretend
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("idle", "siblings", "quota", "expected"),
    [
        ({0: 1.0, 1: 1.0}, None, "max 100000", 2),
        ({0: 1.0, 1: 0.0, 2: 0.9}, None, "max 100000", 2),
        ({0: 0.0, 1: 0.1}, None, "max 100000", 1),  # at least one
        ({3: 1.0, 5: 1.0}, None, "max 100000", 2),  # the affinity of the process
        ({0: 1.0, 1: 1.0, 2: 1.0, 3: 0.0}, {0: "0,2", 2: "0,2", 1: "1,3", 3: "1,3"}, "max 100000", 1),
        (dict.fromkeys(range(8), 1.0), None, "300000 100000", 3),  # a container's share
        (dict.fromkeys(range(8), 1.0), None, "50000 100000", 1),
    ],
)
def test_a_thread_for_each_core_that_is_free(
    idle: dict[int, float],
    siblings: dict[int, str] | None,
    quota: str,
    expected: int,
    machine: Callable[..., None],
) -> None:
    machine(idle, siblings, quota)
    said = threads.choose_threads()
    assert torch.get_num_threads() == expected
    assert f"with {expected} thread" in said


def test_omp_num_threads_has_the_last_word(machine: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    machine({0: 1.0, 1: 1.0, 2: 1.0})
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    before = torch.get_num_threads()
    assert "as OMP_NUM_THREADS says" in threads.choose_threads()
    assert torch.get_num_threads() == before


def test_a_machine_that_tells_nothing_is_taken_for_idle(
    machine: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    machine({0: 1.0, 1: 1.0})
    monkeypatch.setattr(threads, "_read", lambda path: "")
    assert threads.count_cores() == (2, 2)
