"""How many threads to compute with: one for each physical core that this process may use and that nobody else keeps busy.

Threads that wait for each other at every layer are as slow as the slowest: on a machine that others use, too, torch's
default of one for each core can take several times as long as a single thread.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import torch

SAMPLE_SECONDS = 0.3  # over which is measured how idle the cores are: 30 ticks of the kernel's clock
FREE = 0.5  # a core that is idle for this part of the time, or more, is free


def choose_threads() -> str:
    """Set the number of torch's threads, unless OMP_NUM_THREADS says it, and say in a sentence what was chosen and why."""
    if "OMP_NUM_THREADS" in os.environ:
        return f"computing with {_threads(torch.get_num_threads())}, as OMP_NUM_THREADS says"
    allowed, free = count_cores()
    torch.set_num_threads(max(1, free))
    return f"computing with {_threads(max(1, free))}: {free} of {allowed} cores are free (OMP_NUM_THREADS overrides)"


def count_cores() -> tuple[int, int]:
    """Count the physical cores that this process may use, by affinity and cgroup, and how many of them are idle.

    The load average would remember for a minute what has just ended. Where the kernel doesn't tell, all are idle.
    """
    if not hasattr(os, "sched_getaffinity"):  # macOS and Windows
        return torch.get_num_threads(), torch.get_num_threads()
    processors = os.sched_getaffinity(0)
    before = _idle_seconds()
    time.sleep(SAMPLE_SECONDS)
    after = _idle_seconds()
    idle: dict[str, float] = {}  # of each physical core; its hyper-threads share it
    for processor in processors:
        core = _read(f"/sys/devices/system/cpu/cpu{processor}/topology/thread_siblings_list") or str(processor)
        part = (after[processor] - before[processor]) / SAMPLE_SECONDS if processor in after else 1.0
        idle[core] = min(part, idle.get(core, 1.0))
    allowed = max(1, min(len(idle), int(_quota())))
    return allowed, min(allowed, sum(part >= FREE for part in idle.values()))


def _idle_seconds() -> dict[int, float]:
    """Read for how long each processor has been idle since the machine started."""
    rows = [line.split() for line in _read("/proc/stat").splitlines() if line.startswith("cpu") and line[3] != " "]
    ticks = os.sysconf("SC_CLK_TCK")
    return {int(row[0][3:]): (int(row[4]) + int(row[5])) / ticks for row in rows}  # idle, and waiting for a disk


def _quota() -> float:
    """Read how many processors' time the cgroup allows."""
    quota, _, period = _read("/sys/fs/cgroup/cpu.max").partition(" ")
    return int(quota) / int(period) if quota.isdigit() else float(len(os.sched_getaffinity(0)))


def _read(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


def _threads(count: int) -> str:
    return "1 thread" if count == 1 else f"{count} threads"
