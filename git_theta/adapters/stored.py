"""The tensors of an adapter's file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from git_theta import formats
from git_theta.core.dtypes import dtype, element_count
from git_theta.core.files import FileSource
from git_theta.core.layout import Alias, Layout, TensorSpan
from git_theta.encodings.float_formats import FORMATS, narrow, widen
from git_theta.errors import FormatError, UsageError, naming

Words = NDArray[Any]

_COPIES = 8


@dataclass(frozen=True, slots=True)
class Stored:
    """A tensor: its bit patterns, as unsigned words of its shape."""

    dtype: str
    words: Words

    @property
    def shape(self) -> tuple[int, ...]:
        """Lengths of the dimensions."""
        return self.words.shape

    def is_finite(self) -> bool:
        """Return whether every number is one; ``True`` for what is not a float."""
        form = FORMATS.get(self.dtype)
        return form is None or bool(np.isfinite(widen(self.words, form)).all())

    def matrix(self, *, transposed: bool = False) -> Words:
        """Return the first dimension by all the others, contiguous."""
        flat = self.words.reshape(self.shape[0], -1)
        return np.ascontiguousarray(flat.T if transposed else flat)

    def converted(self, name: str) -> Stored | None:
        """Return the numbers in dtype ``name``, rounded to nearest-even.

        ``None`` but between floats.
        """
        if name == self.dtype:
            return self
        old, new = FORMATS.get(self.dtype), FORMATS.get(name)
        if old is None or new is None:
            return None
        return Stored(name, narrow(widen(self.words, old), new))


def read_tensors(path: Path) -> dict[str, Stored]:
    """Return every tensor of a file of any known format, by name.

    Nothing is unpickled. Raises ``FormatError`` for a file that no format can read, ``UsageError``
    for one that is not there.
    """
    try:
        with naming(str(path)), FileSource(path) as source:
            layout, warning = formats.scan(source, path.name)
            if warning is not None or not layout.spans:
                raise FormatError(warning or "it holds no tensors")
            _check_sizes(layout)
            data = {span.name: source.read(span.start, span.length) for span in layout.spans}
            spans = {span.name: _view(data[span.name], span) for span in layout.spans}
            return spans | {alias.name: _view(data[alias.of], alias) for alias in layout.aliases}
    except OSError as error:
        raise UsageError(f"cannot be read: {error.strerror}", path=str(path)) from error


def _check_sizes(layout: Layout) -> None:
    """Refuse views that would take more memory than the bytes that they view, or many times it.

    A stride of 0 makes a matrix of any size out of one number; each alias is copied.
    """
    lengths = {span.name: span.length for span in layout.spans}
    copied = 0
    tensors: list[TensorSpan | Alias] = [*layout.spans, *layout.aliases]
    for tensor in tensors:
        length = lengths[tensor.of if isinstance(tensor, Alias) else tensor.name]
        needed = element_count(tensor.shape) * dtype(tensor.dtype).word
        if needed > length:
            raise FormatError(f"{tensor.name} is larger than the bytes that it views")
        copied += needed if tensor.strides else 0
    if copied > _COPIES * sum(lengths.values()):
        raise FormatError("its tensors view the same bytes too many times")


def _view(data: bytes, tensor: TensorSpan | Alias) -> Stored:
    """Return the tensor within its storage, contiguous; the layout was checked to be inside it."""
    kind = dtype(tensor.dtype)
    if kind.bits != 8 * kind.word:
        raise FormatError(f"{tensor.name}: an adapter cannot hold {kind.name}")
    storage = np.frombuffer(data, f"<u{kind.word}")[tensor.offset :]
    strides = tensor.strides or _contiguous(tensor.shape)
    steps = [stride * kind.word for stride in strides]
    view = np.lib.stride_tricks.as_strided(storage, tensor.shape, steps, writeable=False)
    return Stored(tensor.dtype, np.ascontiguousarray(view))


def _contiguous(shape: Sequence[int]) -> tuple[int, ...]:
    return tuple(element_count(shape[axis + 1 :]) for axis in range(len(shape)))
