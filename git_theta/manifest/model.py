"""The manifest as plain values."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from git_theta.core.hashes import Ref


@dataclass(frozen=True, slots=True)
class Chunk:
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
class AliasEntry:
    """A further name for (a view of) the bytes that entry ``of`` owns."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    of: str
    offset: int = 0
    strides: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True)
class Manifest:
    """A checkpoint: its skeleton, its tensors in file order, its size in bytes and BLAKE3 hash."""

    format: str
    size: int
    hash: str
    skeleton: tuple[Chunk, ...]
    tensors: tuple[TensorEntry, ...]
    aliases: tuple[AliasEntry, ...] = ()
    recipe: Mapping[str, Any] | None = None

    def chunks(self) -> Iterator[Chunk]:
        """Every chunk, the skeleton's first."""
        yield from self.skeleton
        for tensor in self.tensors:
            yield from tensor.chunks

    def refs(self) -> Iterator[Ref]:
        """Every frame that decoding needs, base chains included, with repetitions."""
        for chunk in self.chunks():
            yield from chunk.chain

    def objects(self) -> dict[str, int]:
        """Every object that decoding needs: oid to size in bytes."""
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
