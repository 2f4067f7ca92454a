"""What a device's memory allows, and the conditions under which merging is timed on it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from git_theta.merge.kernels.device import torch_threads

R = TypeVar("R")


@dataclass(frozen=True)
class Floors:
    """GB/s of ``device``: the best of some runs, as nothing can be faster than a floor.

    ``copy`` copies bf16 numbers within its memory, read and written bytes counted, on a CPU with
    as many threads as merging uses. ``transfer`` brings bytes to it from the CPU's memory, where
    the tool's tensors are; a CPU has none.
    """

    device: str
    copy: float
    transfer: float | None


def floors(device: str, size: int, runs: int) -> Floors:
    """The floors of ``device`` for ``size`` bytes that are read."""
    # Ones: pages of zeros that nobody wrote may all be one page, which stays in the cache.
    source = torch.ones(size // 2, dtype=torch.bfloat16)
    there = source.to(device)
    target = torch.zeros_like(there).fill_(2)
    with torch_threads(cores()):
        copy = _best(lambda: target.copy_(there), device, runs)
    transfer = None if device == "cpu" else _best(lambda: source.to(device), device, runs)
    return Floors(device, 2 * size / copy / 1e9, size / transfer / 1e9 if transfer else None)


def _best(work: Callable[[], Tensor], device: str, runs: int) -> float:
    return min(timed(work, device)[1] for _ in range(runs + 1))


def timed(work: Callable[[], R], device: str) -> tuple[R, float]:
    """What ``work`` returns, and the seconds until the device has done it."""
    _wait(device)
    begin = time.perf_counter()
    result = work()
    _wait(device)
    return result, time.perf_counter() - begin


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()
    if device == "mps":
        torch.mps.synchronize()


def cores() -> int:
    """The threads that merging uses by default."""
    return os.cpu_count() or 1
