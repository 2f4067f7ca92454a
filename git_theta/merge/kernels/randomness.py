"""Random numbers that belong to elements, not to a generator's state.

The number of an element depends on (seed, parameter name, contributor's content, flat index) and
on nothing else: not on device, slicing, thread count, the order of contributors or parameters, or
PYTHONHASHSEED. Every 2^20 elements get two 32-bit keys from BLAKE3; within them a 32-bit integer
hash (three rounds of multiply and xor-shift, whose constants are those of Chris Wellons's
``triple32``, with the second key added after the first round) mixes the index. Integer arithmetic
modulo 2^32 is the same on every device.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from git_theta.core import kernels
from git_theta.merge.kernels.lazy_torch import torch

if TYPE_CHECKING:
    from torch import Tensor

_RUN = kernels.RANDOM_RUN
_MASK = (1 << 32) - 1


def uniform(
    seed: int, name: str, content: str, start: int, count: int, device: torch.device
) -> Tensor:
    """Return a number in [0, 1) for each element from flat index ``start``: float32 ``[count]``.

    They are multiples of 2^-24: exact in float32 on every device.
    """
    pieces = []
    stop = start + count
    while start < stop:
        run, first = divmod(start, _RUN)
        last = min(_RUN, first + stop - start)
        keys = _keys(seed, name, content, run)
        pieces.append(_numbers(first, last, keys, device))
        start += last - first
    return torch.cat(pieces) if pieces else torch.empty(0, device=device)


def run_keys(
    seed: int, name: str, content: str, start: int, count: int
) -> tuple[int, NDArray[np.uint32]]:
    """Return the keys (runs, 2) that ``uniform`` takes, and where in the first run it starts."""
    run, first = divmod(start, _RUN)
    runs = range(run, run + -(-(first + count) // _RUN))
    keys = np.array([_keys(seed, name, content, each) for each in runs], np.int32)
    return first, keys.reshape(-1, 2).view(np.uint32)


def _numbers(first: int, last: int, keys: tuple[int, int], device: torch.device) -> Tensor:
    if device.type == "cpu" and kernels.name() == "compiled":
        unsigned = keys[0] & _MASK, keys[1] & _MASK
        return torch.from_numpy(kernels.uniform(first, last - first, unsigned))
    bits = _mix(torch.arange(first, last, dtype=torch.int32, device=device), keys)
    return _shift(bits, 8).to(torch.float32).mul_(2.0**-24)


def _keys(seed: int, name: str, content: str, run: int) -> tuple[int, int]:
    # Lengths first, so that no two combinations give the same bytes.
    label = name.encode("utf-8", "surrogatepass")
    head = struct.pack("<qQQ", seed, run, len(label))
    first, second = struct.unpack("<ii", blake3(head + label + content.encode()).digest(8))
    return first, second


def _mix(index: Tensor, keys: tuple[int, int]) -> Tensor:
    """Hash int32 in place; products wrap, and constants are written as signed numbers."""
    bits = index.bitwise_xor_(keys[0])
    bits.bitwise_xor_(_shift(bits, 17)).mul_(0xED5AD4BB - (1 << 32)).bitwise_xor_(keys[1])
    bits.bitwise_xor_(_shift(bits, 11)).mul_(0xAC4C1B51 - (1 << 32))
    bits.bitwise_xor_(_shift(bits, 15)).mul_(0x31848BAB)
    return bits.bitwise_xor_(_shift(bits, 14))


def _shift(bits: Tensor, by: int) -> Tensor:
    # int32 shifts copy the sign; the mask makes the shift logical.
    return (bits >> by).bitwise_and_((1 << (32 - by)) - 1)
