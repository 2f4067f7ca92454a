"""Flax checkpoints made by hand, right or wrong in any detail."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np


def text(value: str) -> bytes:
    return bytes([0xA0 | len(value)]) + value.encode()


def integer(value: int) -> bytes:
    return b"\xcf" + value.to_bytes(8, "big")


def sized(first: int, width: int, content: bytes, kind: bytes = b"") -> bytes:
    """An item whose length has ``width`` bytes; ``kind`` is the type of an extension."""
    return bytes([first]) + len(content).to_bytes(width, "big") + kind + content


def dict_of(items: Mapping[str, bytes]) -> bytes:
    return bytes([0x80 | len(items)]) + b"".join(text(key) + it for key, it in items.items())


def array(dtype: str, shape: tuple[int, ...], data: bytes) -> bytes:
    """The content of an array's extension."""
    sizes = bytes([0x90 | len(shape)]) + b"".join(map(integer, shape))
    return b"\x93" + sizes + text(dtype) + sized(0xC6, 4, data)


def flax_file(arrays: Mapping[str, np.ndarray[Any, Any]]) -> bytes:
    """A checkpoint with up to 15 arrays, whose names have no more than 31 letters."""
    contents = {n: array(it.dtype.name, it.shape, it.tobytes()) for n, it in arrays.items()}
    return dict_of({name: sized(0xC9, 4, it, b"\1") for name, it in contents.items()})
