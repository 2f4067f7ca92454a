"""Which tensors changed and in what way, from two manifests alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from git_theta.core.dtypes import dtype, element_count
from git_theta.core.layout import Alias, natural_order
from git_theta.manifest import Chunk, Manifest, TensorEntry

Kind = Literal["added", "removed", "renamed", "reshaped", "cast", "changed"]


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor of one version: its chunks are those of its storage, which aliases share."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    chunks: tuple[Chunk, ...]
    view: tuple[object, ...]

    @property
    def size(self) -> int:
        """Raw bytes of its storage."""
        return sum(chunk.length for chunk in self.chunks)

    @property
    def is_plain(self) -> bool:
        """Whether its bytes are its elements one after another, and all of them.

        A manifest may say otherwise of what it names.
        """
        kind = dtype(self.dtype)
        whole = kind.bits >= 8 and self.size == element_count(self.shape) * kind.bits // 8
        return whole and self.view == (0, None)

    @property
    def content(self) -> tuple[object, ...]:
        """Return what is equal for equal tensors, whatever their names."""
        hashes = (chunk.hash for chunk in self.chunks)
        return (self.dtype, self.shape, self.view, *hashes)


@dataclass(frozen=True, slots=True)
class TensorChange:
    """A tensor that differs; ``old`` is ``None`` where it was added, ``new`` where removed."""

    kind: Kind
    old: Tensor | None
    new: Tensor | None

    @property
    def tensor(self) -> Tensor:
        """The later version, or the earlier one of a removed tensor."""
        found = self.new or self.old
        assert found is not None
        return found

    @property
    def name(self) -> str:
        """The name in the later version, or the last that it had."""
        return self.tensor.name


def compare_tensors(before: Manifest | None, after: Manifest | None) -> list[TensorChange]:
    """Return the tensors that differ, in natural order of their names.

    Equal bytes, dtype and shape decide "unchanged". One that disappeared is renamed where a new
    one is equal to it.
    """
    old, new = tensors_of(before), tensors_of(after)
    renamed = dict(_renamed(old, new))
    changes = [
        TensorChange(_kind(old[name], tensor), old[name], tensor)
        for name, tensor in new.items()
        if name in old and old[name].content != tensor.content
    ]
    changes += [TensorChange("renamed", old[was], new[name]) for name, was in renamed.items()]
    fresh = new.keys() - old.keys() - renamed.keys()
    gone = old.keys() - new.keys() - set(renamed.values())
    changes += [TensorChange("added", None, new[name]) for name in fresh]
    changes += [TensorChange("removed", old[name], None) for name in gone]
    return sorted(changes, key=lambda change: (natural_order(change.name), change.kind))


def tensors_of(manifest: Manifest | None) -> dict[str, Tensor]:
    """Return every tensor of a checkpoint by name, further names of one included."""
    if manifest is None:
        return {}
    owners = {entry.name: entry for entry in manifest.tensors}
    rows = [_tensor(entry, entry) for entry in manifest.tensors]
    rows += [_tensor(alias, owners[alias.of]) for alias in manifest.aliases]
    return {row.name: row for row in rows}


def _tensor(named: TensorEntry | Alias, owner: TensorEntry) -> Tensor:
    view = (named.offset, named.strides)
    return Tensor(named.name, named.dtype, named.shape, owner.chunks, view)


def _kind(old: Tensor, new: Tensor) -> Kind:
    if old.shape != new.shape:
        return "reshaped"
    return "cast" if old.dtype != new.dtype else "changed"


def _renamed(old: dict[str, Tensor], new: dict[str, Tensor]) -> Iterator[tuple[str, str]]:
    """Yield new names of tensors that lost their old one, each with that."""
    gone: dict[object, list[str]] = {}
    for name in _ordered(old.keys() - new.keys()):
        gone.setdefault(old[name].content, []).append(name)
    for name in _ordered(new.keys() - old.keys()):
        # Tensors without elements are all equal, which says nothing.
        same = gone.get(new[name].content) if new[name].size else None
        if same:
            yield name, same.pop(0)


def _ordered(names: Iterable[str]) -> list[str]:
    return sorted(names, key=natural_order)
