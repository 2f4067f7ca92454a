"""The manifest's one valid encoding: JSON lines with fixed keys (``docs/spec.md``, Manifest)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from git_theta.core.hashes import Ref
from git_theta.core.layout import Alias
from git_theta.manifest.model import Chunk, Manifest, TensorEntry

VERSION = 1
PREFIX = b'{"git-theta":'
MAGIC = PREFIX + b"%d," % VERSION
ABOUT = (
    "This stands for a model checkpoint that git-theta stores. To get the file: "
    "pip install theta-vcs; git theta install; git theta checkout"
)
"""For people and programs that find a manifest where they look for a checkpoint."""

# Limits that no honest manifest meets; they bound the work that a hostile one can ask for.
MAX_BYTES = 256 << 20
MAX_CHUNK = 1 << 26
MAX_CHAIN = 64
MAX_DIMENSIONS = 64
MAX_INT = 1 << 62
MAX_DEPTH = 64
MAX_NAME = 1 << 16


def is_manifest(head: bytes) -> bool:
    """Return whether a file that begins with ``head`` (16 bytes) is a manifest of any version."""
    return head.startswith(PREFIX)


def dump(manifest: Manifest) -> bytes:
    """Return the manifest's text; ``parse`` gives an equal manifest back."""
    header = header_line((manifest.format, manifest.size, manifest.hash))
    lines = [header, skeleton_line(manifest.skeleton)]
    if manifest.recipe is not None:
        lines.append(recipe_line(manifest.recipe))
    lines += map(tensor_line, manifest.tensors)
    lines += map(alias_line, manifest.aliases)
    return b"".join(lines)


def header_line(header: tuple[str, int, str]) -> bytes:
    """Return the first line: format, size in bytes and identity of the file."""
    form, size, identity = header
    row = {"git-theta": VERSION, "about": ABOUT, "format": form, "size": size, "hash": identity}
    return _line(row)


def skeleton_line(chunks: Iterable[Chunk]) -> bytes:
    """Return the second line: the chunks of the skeleton."""
    return _line({"skeleton": _chunk_rows(chunks)})


def recipe_line(recipe: Mapping[str, Any]) -> bytes:
    """Return the third line of a merged checkpoint.

    ``ValueError`` when a number is not finite, or where it is nested too deeply.
    """
    if _depth(recipe) > MAX_DEPTH:
        raise ValueError(f"a recipe has objects in each other to more than {MAX_DEPTH} levels")
    return _line({"recipe": _sorted(recipe)})


def _line(row: Mapping[str, Any]) -> bytes:
    return json.dumps(row, separators=(",", ":"), allow_nan=False).encode("ascii") + b"\n"


def _depth(value: Any) -> int:
    """Return how many objects and lists are in each other; no deeper than it must to say so."""
    depth, level = 0, [value]
    while level and depth <= MAX_DEPTH:
        depth += any(isinstance(each, (Mapping, list, tuple)) for each in level)
        level = [inner for outer in level for inner in _inside(outer)]
    return depth


def _inside(outer: Any) -> Iterable[Any]:
    if isinstance(outer, Mapping):
        return outer.values()
    return outer if isinstance(outer, (list, tuple)) else ()


def _sorted(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _sorted(value[key]) for key in sorted(value)}
    return [_sorted(item) for item in value] if isinstance(value, (list, tuple)) else value


def _chunk_rows(chunks: Iterable[Chunk]) -> list[list[Any]]:
    return [[c.length, c.hash, *(_ref_row(ref) for ref in c.chain)] for c in chunks]


def _ref_row(ref: Ref) -> list[Any]:
    return [ref.oid, ref.size] if ref.is_whole else [ref.oid, ref.size, ref.offset, ref.length]


def tensor_line(entry: TensorEntry) -> bytes:
    """Return the line of a tensor that owns bytes."""
    row: dict[str, Any] = {
        "name": entry.name,
        "dtype": entry.dtype,
        "shape": list(entry.shape),
    }
    if entry.gap:
        row["gap"] = entry.gap
    row |= _view(entry)
    row["chunks"] = _chunk_rows(entry.chunks)
    return _line(row)


def alias_line(alias: Alias) -> bytes:
    """Return the line of a further name."""
    row = {
        "name": alias.name,
        "dtype": alias.dtype,
        "shape": list(alias.shape),
        "of": alias.of,
    }
    return _line(row | _view(alias))


def _view(entry: TensorEntry | Alias) -> dict[str, Any]:
    row: dict[str, Any] = {}
    if entry.offset:
        row["offset"] = entry.offset
    if entry.strides is not None:
        row["strides"] = list(entry.strides)
    return row
