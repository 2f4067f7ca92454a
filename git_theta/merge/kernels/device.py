"""Devices of a merge, size of their slices, and number of slices at once."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from git_theta.errors import SettingsError
from git_theta.merge.kernels.lazy_torch import torch

if TYPE_CHECKING:
    from torch import Tensor

# On a CPU a slice and its temporaries stay in the cache. More threads than two wait for each other
# after every operation, as Python has one lock: of 16 cores larger slices make 2.6 times as much
# (`average`, 1.8 to 4.6 GB/s), and so do those of 4 cores, so that more than 8 threads only take
# memory. On a GPU a slice is large beside the 10 us that starting an operation takes, and small
# enough for several to be on their way.
CPU_SLICE = 1 << 18
_SHARED_SLICE = 1 << 20
_MOST_THREADS = 8
GPU_SLICE = 1 << 22

_NAME = re.compile(r"auto|cpu|mps|cuda(:\d{1,3})?")
_ACCEPTED = "not auto, cpu, cuda, cuda:N or mps"

# Copies of a slice that are alive at once beside the inputs: task vectors, masks, the result.
_TEMPORARIES = 6
_FLOAT = 4
# Of what is free, as other programs may come.
_SHARE = 0.5
# Slices on a GPU at once: one comes, one is computed, one goes back, and the CPU's threads copy
# others into memory that the GPU reads: 17 GB/s reach an H200 from 3 threads, 37 from 12.
_FEWEST_LANES = 3
_MOST_LANES = 12
# Bytes of page-locked memory for a tensor: locking a page that was not takes 4 times a plain copy.
_LOCKED = 1 << 26
_lanes = threading.local()

Devices = tuple["torch.device", ...]


def device_named(name: str) -> torch.device:
    """Return the first of ``devices_named``."""
    return devices_named(name)[0]


def devices_named(name: str) -> tuple[torch.device, ...]:
    """Return the devices of setting ``theta.device``, over which slices are spread.

    ``auto`` and ``cuda`` are all GPUs that torch sees. Raise ``SettingsError`` for one that is
    missing.
    """
    found: list[torch.device] = []
    for word in name.split(","):
        if not _NAME.fullmatch(word):
            raise SettingsError(f"theta.device={name}: {word!r} is {_ACCEPTED}")
        found += _found(word, name)
    return tuple(found)


def _found(word: str, name: str) -> list[torch.device]:
    chosen = torch.device(_best() if word == "auto" else word)
    if not _is_there(chosen):
        raise SettingsError(
            f"theta.device={name}: torch finds no such device here",
            hint="git config theta.device auto",
        )
    if chosen.type == "cuda" and chosen.index is None:
        return [torch.device("cuda", number) for number in range(torch.cuda.device_count())]
    return [chosen]


def slice_elements(device: torch.device, contributors: int, others: Devices = ()) -> int:
    """Return how many elements of a slice fit a CUDA device's free memory; 0 on other devices.

    Those of all devices, if there are ``others``.
    """
    if others:
        return min(slice_elements(each, contributors) for each in (device, *others))
    if device.type != "cuda":
        return 0
    free, _ = torch.cuda.mem_get_info(device)
    copies = _MOST_LANES * (2 * (contributors + 1) + _TEMPORARIES)
    return max(1, min(GPU_SLICE, int(free * _SHARE) // (copies * _FLOAT)))


def usual_slice(device: torch.device, threads: int) -> int:
    """Return how many elements of a slice suit a device, so many of them being computed at once."""
    if device.type != "cpu":
        return GPU_SLICE
    return CPU_SLICE if threads <= 2 else _SHARED_SLICE


def threads_on(device: torch.device, workers: int, others: Devices = ()) -> int:
    """Return how many slices to work on at once; ``workers`` is the number of CPU threads."""
    if others:
        return sum(threads_on(each, workers) for each in (device, *others))
    if device.type == "cpu":
        return min(workers, _MOST_THREADS)
    return max(_FEWEST_LANES, min(workers, _MOST_LANES)) if device.type == "cuda" else 1


def sent(tensor: Tensor, device: torch.device | None) -> Tensor:
    """Return ``tensor`` on a device, in order with what its stream does.

    To a GPU a slice goes through page-locked memory, of which torch keeps a store: from other
    memory, 6 GB/s reach an H200, however many threads send.
    """
    if device is None or not _is_locked(tensor, tensor.device, device):
        return tensor.to(device or tensor.device)
    return tensor.pin_memory().to(device, non_blocking=True)


def fetched(tensor: Tensor, device: torch.device) -> Tensor:
    """Return ``tensor`` on a device, complete; from a GPU a slice comes as ``sent`` sends it."""
    if not _is_locked(tensor, device, tensor.device):
        return tensor.to(device)
    here = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    here.copy_(tensor, non_blocking=True)
    torch.cuda.current_stream(tensor.device).synchronize()
    return here


def _is_locked(tensor: Tensor, cpu: torch.device, gpu: torch.device) -> bool:
    held = tensor.numel() * tensor.element_size()
    return (cpu.type, gpu.type) == ("cpu", "cuda") and held <= _LOCKED


@contextmanager
def lane(device: torch.device | None) -> Iterator[None]:
    """Run the block on a GPU stream of this thread's own, and synchronize at its end.

    Its transfers overlap the computations of other threads. On other devices: do nothing.
    """
    if device is None or device.type != "cuda":
        yield
        return
    streams: dict[torch.device, torch.cuda.Stream] = _lanes.__dict__.setdefault("streams", {})
    if device not in streams:
        streams[device] = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    with torch.cuda.stream(streams[device]):
        yield
        streams[device].synchronize()


@contextmanager
def torch_threads(number: int) -> Iterator[None]:
    """Set the number of torch's own threads, for the whole process, until the block ends."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _best() -> str:
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _is_there(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_available() and (device.index or 0) < torch.cuda.device_count()
    return device.type == "cpu" or torch.backends.mps.is_available()
