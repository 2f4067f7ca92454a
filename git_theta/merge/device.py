"""Where a merge computes, and how much of a tensor at a time."""

from __future__ import annotations

import re

import torch

from git_theta.errors import SettingsError

_NAME = re.compile(r"auto|cpu|mps|cuda(:\d+)?")

# Copies of a slice that are alive at once beside the inputs: task vectors, masks, the result.
_TEMPORARIES = 6
_FLOAT = 4
# Of what is free, as other programs may come.
_SHARE = 0.5


def device_named(name: str) -> torch.device:
    """The device of setting ``theta.device``; ``SettingsError`` where it is not there."""
    if not _NAME.fullmatch(name):
        raise SettingsError(f"theta.device={name}: not auto, cpu, cuda, cuda:N or mps")
    if name == "auto":
        return torch.device(_best())
    found = torch.device(name)
    if not _is_there(found):
        raise SettingsError(
            f"theta.device={name}: torch finds no such device here",
            hint="git config theta.device auto",
        )
    return found


def slice_elements(device: torch.device, contributors: int) -> int:
    """The most elements of a slice that fit the free memory of a GPU; 0 for what suits a CPU."""
    if device.type != "cuda":
        return 0
    free, _ = torch.cuda.mem_get_info(device)
    copies = 2 * (contributors + 1) + _TEMPORARIES
    return max(1, int(free * _SHARE) // (copies * _FLOAT))


def _best() -> str:
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _is_there(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_available() and (device.index or 0) < torch.cuda.device_count()
    return device.type == "cpu" or torch.backends.mps.is_available()
