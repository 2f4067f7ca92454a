"""The manifest's one valid encoding: JSON lines with fixed keys (``docs/spec.md``, Manifest)."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NoReturn

from git_theta.errors import ManifestError, UnsupportedVersionError
from git_theta.ids import Ref, is_hex256
from git_theta.manifest.model import AliasEntry, Chunk, Manifest, TensorEntry

VERSION = 1
_PREFIX = b'{"git-theta":'
MAGIC = _PREFIX + b"%d," % VERSION

# Limits that no honest manifest meets; they bound the work that a hostile one can ask for.
MAX_BYTES = 256 << 20
MAX_CHUNK = 1 << 28
MAX_CHAIN = 64
MAX_DIMENSIONS = 64
_MAX_INT = 1 << 62


def is_manifest(head: bytes) -> bool:
    """Whether a file that begins with ``head`` (16 bytes will do) is a manifest of any version."""
    return head.startswith(_PREFIX)


def dump(manifest: Manifest) -> bytes:
    """The manifest's text; ``parse`` gives an equal manifest back."""
    rows: list[dict[str, Any]] = [
        {
            "git-theta": VERSION,
            "format": manifest.format,
            "size": manifest.size,
            "hash": manifest.hash,
        },
        {"skeleton": _chunk_rows(manifest.skeleton)},
    ]
    if manifest.recipe is not None:
        rows.append({"recipe": _sorted(manifest.recipe)})
    rows += [_tensor_row(entry) for entry in manifest.tensors]
    rows += [_alias_row(alias) for alias in manifest.aliases]
    return b"".join(_line(row) for row in rows)


def parse(data: bytes) -> Manifest:
    """Read a manifest that may come from a stranger.

    Raises ``UnsupportedVersionError`` for a newer version and ``ManifestError`` for anything that
    is not exactly what ``dump`` writes.
    """
    if not is_manifest(data):
        raise ManifestError("not a git-theta manifest")
    if len(data) > MAX_BYTES:
        raise ManifestError(f"manifest of {len(data)} bytes is larger than {MAX_BYTES}")
    rows = _rows(data)
    _check_version(rows[0])
    manifest = _build(rows)
    _check_consistency(manifest)
    if dump(manifest) != data:
        raise ManifestError("manifest is not in its one valid encoding")
    return manifest


def _line(row: Mapping[str, Any]) -> bytes:
    return json.dumps(row, separators=(",", ":"), allow_nan=False).encode("ascii") + b"\n"


def _sorted(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _sorted(value[key]) for key in sorted(value)}
    return [_sorted(item) for item in value] if isinstance(value, (list, tuple)) else value


def _chunk_rows(chunks: Iterable[Chunk]) -> list[list[Any]]:
    return [[c.length, c.hash, *(_ref_row(ref) for ref in c.chain)] for c in chunks]


def _ref_row(ref: Ref) -> list[Any]:
    return [ref.oid, ref.size] if ref.is_whole else [ref.oid, ref.size, ref.offset, ref.length]


def _tensor_row(entry: TensorEntry) -> dict[str, Any]:
    row: dict[str, Any] = {
        "name": entry.name,
        "dtype": entry.dtype,
        "shape": list(entry.shape),
    }
    if entry.gap:
        row["gap"] = entry.gap
    row |= _view(entry)
    row["chunks"] = _chunk_rows(entry.chunks)
    return row


def _alias_row(alias: AliasEntry) -> dict[str, Any]:
    row = {
        "name": alias.name,
        "dtype": alias.dtype,
        "shape": list(alias.shape),
        "of": alias.of,
    }
    return row | _view(alias)


def _view(entry: TensorEntry | AliasEntry) -> dict[str, Any]:
    row: dict[str, Any] = {}
    if entry.offset:
        row["offset"] = entry.offset
    if entry.strides is not None:
        row["strides"] = list(entry.strides)
    return row


def _fail(what: str) -> NoReturn:
    raise ManifestError(f"malformed manifest: {what}")


def _rows(data: bytes) -> list[dict[str, Any]]:
    if not data.endswith(b"\n"):
        _fail("the last line is cut off")
    rows = []
    for number, line in enumerate(data[:-1].split(b"\n"), 1):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            _fail(f"line {number} is not JSON")
        if not isinstance(row, dict):
            _fail(f"line {number} is not an object")
        rows.append(row)
    return rows


def _check_version(row: dict[str, Any]) -> None:
    version = row.get("git-theta")
    if type(version) is not int or version < 1:
        _fail("the version is not a number")
    if version > VERSION:
        raise UnsupportedVersionError(
            f"manifest version {version} is newer than this git-theta reads ({VERSION})",
            hint="pip install --upgrade git-theta",
        )


def _build(rows: list[dict[str, Any]]) -> Manifest:
    if len(rows) < 2:
        _fail("the skeleton is missing")
    head, body = rows[0], rows[1:]
    skeleton = _chunks(_get(body[0], "skeleton", list), "skeleton")
    rest = body[1:]
    recipe = _get(rest.pop(0), "recipe", dict) if rest and "recipe" in rest[0] else None
    return Manifest(
        format=_get(head, "format", str),
        size=_number(head.get("size"), "size"),
        hash=_hex(head.get("hash"), "hash"),
        skeleton=skeleton,
        tensors=tuple(_tensor(row) for row in rest if "of" not in row),
        aliases=tuple(_alias(row) for row in rest if "of" in row),
        recipe=recipe,
    )


def _get(row: dict[str, Any], key: str, kind: type) -> Any:
    value = row.get(key)
    if type(value) is not kind:
        _fail(f"{key!r} is not a {kind.__name__}")
    return value


def _number(value: Any, what: str) -> int:
    if type(value) is not int or not 0 <= value < _MAX_INT:
        _fail(f"{what} is not a size")
    return value


def _hex(value: Any, what: str) -> str:
    if not is_hex256(value):
        _fail(f"{what} is not 64 hex digits")
    return str(value)


def _numbers(value: Any, what: str, item: Callable[[Any, str], int] = _number) -> tuple[int, ...]:
    if type(value) is not list or len(value) > MAX_DIMENSIONS:
        _fail(f"{what} is not a list of numbers")
    return tuple(item(number, what) for number in value)


def _stride(value: Any, what: str) -> int:
    if type(value) is not int or abs(value) >= _MAX_INT:
        _fail(f"{what} is not a stride")
    return value


def _strides(row: dict[str, Any]) -> tuple[int, ...] | None:
    return _numbers(row["strides"], "strides", _stride) if "strides" in row else None


def _tensor(row: dict[str, Any]) -> TensorEntry:
    name = _get(row, "name", str)
    return TensorEntry(
        name=name,
        dtype=_get(row, "dtype", str),
        shape=_numbers(row.get("shape"), f"shape of {name}"),
        gap=_number(row.get("gap", 0), f"gap of {name}"),
        chunks=_chunks(_get(row, "chunks", list), name),
        offset=_number(row.get("offset", 0), f"offset of {name}"),
        strides=_strides(row),
    )


def _alias(row: dict[str, Any]) -> AliasEntry:
    name = _get(row, "name", str)
    return AliasEntry(
        name=name,
        dtype=_get(row, "dtype", str),
        shape=_numbers(row.get("shape"), f"shape of {name}"),
        of=_get(row, "of", str),
        offset=_number(row.get("offset", 0), f"offset of {name}"),
        strides=_strides(row),
    )


def _chunks(rows: list[Any], what: str) -> tuple[Chunk, ...]:
    return tuple(_chunk(row, what) for row in rows)


def _chunk(row: Any, what: str) -> Chunk:
    if type(row) is not list or not 3 <= len(row) <= 2 + MAX_CHAIN:
        _fail(f"a chunk of {what} is not [length, hash, ref...]")
    length = _number(row[0], f"chunk length of {what}")
    if not 0 < length <= MAX_CHUNK:
        _fail(f"a chunk of {what} has {length} bytes, the limit is {MAX_CHUNK}")
    return Chunk(length, _hex(row[1], f"chunk hash of {what}"), tuple(_ref(r, what) for r in row[2:]))


def _ref(row: Any, what: str) -> Ref:
    if type(row) is not list or len(row) not in (2, 4):
        _fail(f"a ref of {what} is not [oid, size] or [oid, size, offset, length]")
    oid, size = _hex(row[0], f"oid of {what}"), _number(row[1], f"object size of {what}")
    offset, length = (0, size) if len(row) == 2 else (
        _number(row[2], f"offset of {what}"),
        _number(row[3], f"length of {what}"),
    )
    if length == 0 or offset + length > size:
        _fail(f"a ref of {what} reaches beyond its object")
    return Ref(oid, size, offset, length)


def _check_consistency(manifest: Manifest) -> None:
    owners = {entry.name for entry in manifest.tensors}
    if len(owners | {a.name for a in manifest.aliases}) != len(manifest.tensors) + len(
        manifest.aliases
    ):
        _fail("a tensor name stands twice")
    if any(alias.of not in owners for alias in manifest.aliases):
        _fail("an alias names a tensor that is not there")
    skeleton = sum(chunk.length for chunk in manifest.skeleton)
    if sum(entry.gap for entry in manifest.tensors) > skeleton:
        _fail("the gaps are larger than the skeleton")
    if skeleton + sum(entry.length for entry in manifest.tensors) != manifest.size:
        _fail("the pieces do not add up to the file's size")
