"""The manifest as plain values."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from blake3 import blake3

from git_theta.core.hashes import Ref
from git_theta.core.layout import Alias


class Chunk(NamedTuple):
    """``length`` raw bytes with content hash ``hash``; ``chain`` is its frame, then its bases.

    The first ref is the frame that decodes to the chunk, the next is that frame's base, and so on
    to a frame without a base: everything that decoding needs.
    """

    length: int
    hash: str
    chain: tuple[Ref, ...]


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """A tensor that owns bytes: ``gap`` skeleton bytes precede it in the file, then its chunks."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    gap: int
    chunks: tuple[Chunk, ...]
    offset: int = 0
    strides: tuple[int, ...] | None = None

    @property
    def length(self) -> int:
        """Raw bytes."""
        return sum(chunk.length for chunk in self.chunks)


@dataclass(frozen=True, slots=True)
class Manifest:
    """A checkpoint: its size in bytes, its skeleton, and its tensors in file order.

    ``hash`` is the file's identity: BLAKE3 over its chunks' content hashes and where they lie.
    Equal hashes are equal files; equal files that are cut differently have different hashes.
    """

    format: str
    size: int
    skeleton: tuple[Chunk, ...]
    tensors: tuple[TensorEntry, ...]
    aliases: tuple[Alias, ...] = ()
    recipe: Mapping[str, Any] | None = None
    hash: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "hash", _identity(self.tensors, self.skeleton))

    def chunks(self) -> Iterator[Chunk]:
        """Yield every chunk, the skeleton's first."""
        yield from self.skeleton
        for tensor in self.tensors:
            yield from tensor.chunks

    def refs(self) -> Iterator[Ref]:
        """Yield every frame that decoding needs, base chains included, with repetitions."""
        for chunk in self.chunks():
            yield from chunk.chain

    def objects(self) -> dict[str, int]:
        """Return every object that decoding needs: oid to size in bytes."""
        return {ref.oid: ref.size for ref in self.refs()}


def objects_of(manifests: Iterable[Manifest]) -> list[dict[str, int]]:
    """Return the objects of several manifests, oid to size in bytes, in as few groups as can be.

    In each group an object has one size. A manifest that states a wrong one must not stop others
    that name the same object from getting it.
    """
    groups: list[dict[str, int]] = []
    for manifest in manifests:
        objects = manifest.objects()
        for group in groups:
            if all(group.get(oid, size) == size for oid, size in objects.items()):
                group.update(objects)
                break
        else:
            groups.append(objects)
    return groups


_PLACE = struct.Struct("<QQ")


def _identity(tensors: tuple[TensorEntry, ...], skeleton: tuple[Chunk, ...]) -> str:
    """Hash what determines the file (docs/spec.md, Identity).

    Chunks are verified by their own hashes whenever they are written or read, so neither
    direction reads every byte a second time for the file's sake (0.33 s a GB on one core).
    """
    digest = blake3()
    for tensor in tensors:
        hashes = "".join([chunk.hash for chunk in tensor.chunks])
        digest.update(_PLACE.pack(tensor.gap, len(tensor.chunks)) + bytes.fromhex(hashes))
    digest.update(bytes.fromhex("".join([chunk.hash for chunk in skeleton])))
    return digest.hexdigest()
