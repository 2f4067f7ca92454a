"""Where tensors lie in a file, and arrays ready to be stored."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from git_theta.core.dtypes import DType

Buffer = bytes | bytearray | memoryview

# Of a file, aliases included. The largest mixtures of experts have 90,000, or 200,000 quantised,
# over many files. Adding 249,000 takes 976 MB of memory.
MAX_TENSORS = 250_000

# Bytes of the largest chunk that a frame may hold.
MAX_RAW = 1 << 26

_NUMBER = re.compile(r"0*([0-9]+)")


def natural_order(name: str) -> tuple[tuple[int, str], ...]:
    """Return a key that sorts the names of tensors with layer 2 before layer 10."""
    # By length, then digits: a stranger's number may be too long for int().
    return tuple((len(part) * (at % 2), part) for at, part in enumerate(_NUMBER.split(name)))


class Source(Protocol):
    """Random access to the bytes of a file that may be larger than memory."""

    @property
    def size(self) -> int:
        """Length in bytes."""
        ...

    def read(self, offset: int, length: int) -> bytes:
        """Return ``length`` bytes at ``offset``; raise ``ChangedError`` if the file is shorter."""
        ...


@dataclass(frozen=True, slots=True)
class TensorSpan:
    """A run of bytes in a file that is one tensor's storage.

    ``start`` and ``length`` are in bytes. ``offset`` (in elements) and ``strides`` describe the
    tensor within the storage; ``strides=None`` with ``offset=0`` means C-contiguous from the
    start.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    length: int
    offset: int = 0
    strides: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True)
class Alias:
    """A further name for (a view of) the storage of the tensor ``of``: a tied tensor."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    of: str
    offset: int = 0
    strides: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the tensors of a file lie: spans ordered by start, disjoint, unique in name.

    The bytes in no span are the file's skeleton. ``remark`` says, in one line, what other readers
    of the format may find wrong with the file. ``hides`` is whether numbers may lie in the
    skeleton, as compressed ones do: where both sides changed it, a merge must not choose one.
    """

    format: str
    spans: tuple[TensorSpan, ...] = ()
    aliases: tuple[Alias, ...] = ()
    remark: str | None = None
    hides: bool = False


class Checksum(NamedTuple):
    """The CRC-32 of ``length`` bytes of a file from ``start``.

    It stands, four bytes little-endian, at each of ``places``, also counted in bytes of the file.
    Where there are ``sizes``, the bytes are a stream of DEFLATE, the checksum is of what they
    inflate to, and the length of that stands, in four bytes too, at each of ``sizes``.
    """

    start: int
    length: int
    places: tuple[int, ...]
    sizes: tuple[int, ...] = ()


class Rebuilt(NamedTuple):
    """A file with other tensors: where they lie, and the bytes around them.

    ``pieces`` are the skeleton: what precedes each span of ``layout``, then what follows the last.
    ``checksums`` are those in the pieces that are of tensors: whoever writes the file renews them.
    """

    layout: Layout
    pieces: tuple[bytes, ...]
    checksums: tuple[Checksum, ...] = ()


class Geometry(NamedTuple):
    """What an encoding may know of a chunk: its dtype, and the tensor that it is a slice of.

    ``shape`` is the whole tensor's; ``first`` is the flat index of the chunk's first element.
    """

    dtype: DType
    shape: tuple[int, ...] = ()
    first: int = 0


class Transposition(NamedTuple):
    """A base that is transposed before it is used.

    Its words of ``word`` bytes are a matrix in row-major order, with ``columns`` in a row.
    """

    word: int
    columns: int


@dataclass(frozen=True, slots=True)
class Part:
    """One homogeneous array of an encoded chunk: little-endian words of ``word`` bytes.

    Before planes are cut, the sign (the highest bit) of every word is moved below the
    ``exponent`` bits that follow it. Data that ``is_coded`` will not shrink any more.
    """

    word: int
    data: Buffer
    exponent: int = 0
    is_coded: bool = field(default=False, compare=False)

    @property
    def nbytes(self) -> int:
        """Raw length in bytes, a multiple of ``word``."""
        return memoryview(self.data).nbytes


@dataclass(frozen=True, slots=True)
class Encoded:
    """A chunk expressed by an encoding: a few parameter bytes and the arrays to be compressed."""

    params: bytes
    parts: tuple[Part, ...]
