"""Manifests made by hand, whose tensors are told apart by a word each."""

from __future__ import annotations

from git_theta.core.hashes import Ref, content_hash
from git_theta.core.layout import Alias
from git_theta.manifest import Chunk, Manifest, TensorEntry
from git_theta.merge.planning.versions import Contributor, Versions

REF = Ref("0" * 64, 100, 0, 100)


def tensor(name: str, word: str, dtype: str = "F32", shape=(2, 3), cut=(24,)) -> TensorEntry:
    """A tensor whose chunks, of ``cut`` bytes each, hold something that ``word`` stands for."""
    chunks = tuple(
        Chunk(length, content_hash(f"{word} {number}".encode()), (REF,))
        for number, length in enumerate(cut)
    )
    return TensorEntry(name, dtype, tuple(shape), 0, chunks)


def entry_named(described: Manifest, name: str) -> TensorEntry:
    """The entry of a tensor that owns its bytes."""
    return next(entry for entry in described.tensors if entry.name == name)


def alias(name: str, of: str, **view) -> Alias:
    """A further name for the tensor called ``of``."""
    return Alias(name, "F32", (2, 3), of, **view)


def manifest(*entries: TensorEntry | Alias, form: str = "safetensors", **words: str):
    """A manifest of ``entries``, and of a tensor for each of ``words``."""
    tensors = [entry for entry in entries if isinstance(entry, TensorEntry)]
    tensors += [tensor(name, word) for name, word in words.items()]
    aliases = [entry for entry in entries if isinstance(entry, Alias)]
    size = sum(entry.length for entry in tensors)
    return Manifest(form, size, (), tuple(tensors), tuple(aliases))


def versions(base: Manifest | None, *contributors: Manifest, path: str = "model.safetensors"):
    """Versions whose contributors are called main, dev, next, last."""
    names = ("main", "dev", "next", "last")
    named = zip(names, contributors, strict=False)
    return Versions(tuple(Contributor(name, m) for name, m in named), base, path)
