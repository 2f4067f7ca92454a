"""Chunks of two versions of a tensor, brought together so that they hold the same elements."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from git_theta.commands.diff.changes import TensorChange
from git_theta.commands.diff.ranks import Sample
from git_theta.core.arrays import Bytes
from git_theta.core.dtypes import dtype
from git_theta.manifest import Chunk


class Content(Protocol):
    """Where the raw bytes of chunks come from."""

    def read(self, wanted: Sequence[Chunk]) -> list[Bytes]:
        """Return the bytes of each chunk, in order."""
        ...


@dataclass(frozen=True, slots=True)
class Segment:
    """Chunks of both versions that hold the same elements of tensor number ``at``.

    ``first`` is the number of the first of them in the tensor.
    """

    at: int
    first: int
    dtypes: tuple[str, str]
    chunks: tuple[tuple[Chunk, ...], tuple[Chunk, ...]]
    sample: Sample | None

    @property
    def size(self) -> int:
        """Number of bytes of both versions."""
        return sum(chunk.length for side in self.chunks for chunk in side)


def segments(at: int, change: TensorChange, sample: Sample | None) -> Iterator[Segment]:
    """Cut a tensor where both versions are cut: mostly after every chunk."""
    assert change.old
    assert change.new
    tensors = (change.old, change.new)
    names = (change.old.dtype, change.new.dtype)
    words = [dtype(name).word for name in names]
    taken: tuple[list[Chunk], list[Chunk]] = ([], [])
    ends, first = [0, 0], 0
    rest = [list(reversed(tensor.chunks)) for tensor in tensors]
    while rest[0] or rest[1]:
        # In elements, multiplied out: a chunk may end inside one.
        side = 0 if ends[0] * words[1] <= ends[1] * words[0] and rest[0] else 1
        side = side if rest[side] else 1 - side
        chunk = rest[side].pop()
        taken[side].append(chunk)
        ends[side] += chunk.length
        if ends[0] * words[1] == ends[1] * words[0] and ends[0] % words[0] == 0:
            yield Segment(at, first, names, (tuple(taken[0]), tuple(taken[1])), sample)
            taken, first = ([], []), ends[0] // words[0]


class Stream:
    """Bytes of chunks one after another, one of them in memory."""

    def __init__(self, pieces: Iterable[Bytes]) -> None:
        self._pieces = iter(pieces)
        self._rest: Bytes = np.empty(0, np.uint8)

    def take(self, length: int) -> Bytes:
        """Return the next ``length`` bytes, fewer only at the end."""
        while self._rest.size < length:
            more = next(self._pieces, None)
            if more is None:
                break
            self._rest = np.concatenate([self._rest, more]) if self._rest.size else more
        taken, self._rest = self._rest[:length], self._rest[length:]
        return taken


def streams(segment: Segment, old: Content, new: Content) -> tuple[Stream, Stream]:
    """Return the bytes of both versions."""
    first, second = segment.chunks
    if old is new and len(first) == len(second) == 1:
        # A difference is decoded with its base, which mostly is the other version.
        before, after = old.read([*first, *second])
        return Stream([before]), Stream([after])
    return Stream(_one_by_one(old, first)), Stream(_one_by_one(new, second))


def _one_by_one(content: Content, chunks: Iterable[Chunk]) -> Iterator[Bytes]:
    return (content.read([chunk])[0] for chunk in chunks)
