"""A state dict in memory as the bytes of a safetensors file, made as they are read."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from git_theta.core.arrays import Bytes
from git_theta.core.dtypes import FRAMEWORK_NAMES, dtype, element_count
from git_theta.core.layout import TensorSpan
from git_theta.errors import UsageError
from git_theta.formats.safetensors import header

_DTYPES = {theirs: name for name, theirs in FRAMEWORK_NAMES.items()}


@dataclass(frozen=True, slots=True)
class _Value:
    """A tensor of a state dict: ``read`` copies it to the CPU, contiguous."""

    span: TensorSpan
    read: Callable[[], Bytes]


class StateDictSource:
    """A ``Source`` of the file; one tensor at a time is copied, and only when it is read.

    Wider dtypes come first, as in the files of safetensors, then by name. Raises ``UsageError``
    for a value that is no dense tensor or array, or of a dtype that safetensors does not have.
    """

    def __init__(self, state: Mapping[str, Any], metadata: Mapping[str, str] | None) -> None:
        values = [_value(name, value) for name, value in state.items()]
        values.sort(key=lambda it: (-dtype(it.span.dtype).word, it.span.name))
        head = header(_checked(metadata), [value.span for value in values])
        self._reads: list[Callable[[], Bytes]] = [lambda: np.frombuffer(head, np.uint8)]
        self._starts, position = [0], len(head)
        for value in values:
            if value.span.length:
                self._reads.append(value.read)
                self._starts.append(position)
                position += value.span.length
        self.size = position
        self._last: tuple[int, Bytes] | None = None

    def read(self, offset: int, length: int) -> bytes:
        """Return ``length`` bytes at ``offset``, which are there."""
        pieces, stop = [], offset + length
        while offset < stop:
            number = bisect_right(self._starts, offset) - 1
            first = offset - self._starts[number]
            piece = self._piece(number)[first : first + stop - offset]
            pieces.append(piece.tobytes())
            offset += piece.size
        return b"".join(pieces)

    def _piece(self, number: int) -> Bytes:
        if self._last is None or self._last[0] != number:
            self._last = None  # one tensor at a time
            self._last = number, self._reads[number]()
        return self._last[1]


def is_torch(value: object) -> bool:
    """Tell whether a value is a tensor of torch, without importing it."""
    names = ((base.__module__, base.__name__) for base in type(value).__mro__)
    return ("torch", "Tensor") in names


def _value(name: object, value: Any) -> _Value:
    if not isinstance(name, str) or name == "__metadata__":
        raise UsageError(f"{name!r} is not a name that a tensor can have")
    if is_torch(value):
        read, problem = _torch_reader(value)
    elif isinstance(value, np.ndarray):
        read, problem = _numpy_reader(value)
    else:
        raise UsageError(f"{name} is a {type(value).__name__}, not a tensor or an array")
    kind = str(value.dtype) if is_torch(value) else value.dtype.name
    known = _DTYPES.get(kind.removeprefix("torch."))
    if problem or known is None:
        raise UsageError(f"{name} is {problem or kind}, which safetensors does not have")
    shape = tuple(value.shape)
    length = element_count(shape) * dtype(known).bits // 8
    return _Value(TensorSpan(name, known, shape, 0, length), read)


def _torch_reader(tensor: Any) -> tuple[Callable[[], Bytes], str | None]:
    import torch

    def read() -> Bytes:
        plain = tensor.detach().cpu().resolve_conj().resolve_neg().contiguous()
        raw: Bytes = plain.reshape(-1).view(torch.uint8).numpy()
        return raw

    if tensor.is_meta:
        return read, "on the device meta, without values"
    return read, None if tensor.layout == torch.strided else str(tensor.layout)


def _numpy_reader(array: np.ndarray[Any, Any]) -> tuple[Callable[[], Bytes], str | None]:
    def read() -> Bytes:
        plain = array.astype(array.dtype.newbyteorder("<"), copy=False)
        return np.ascontiguousarray(plain).reshape(-1).view(np.uint8)

    return read, None


def _checked(metadata: Mapping[str, str] | None) -> dict[str, str] | None:
    if metadata is None:
        return None
    for key, value in metadata.items():
        if not isinstance(key, str) or not isinstance(value, str):
            raise UsageError(f"metadata maps strings to strings: {key!r} is {value!r}")
    return dict(metadata)
