"""Reading a manifest that may come from a stranger: refused unless it is what ``dump`` writes."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from io import BytesIO
from typing import Any, NoReturn

from git_theta.core.hashes import Ref, is_hex256
from git_theta.core.layout import MAX_TENSORS, Alias
from git_theta.core.messages import short_id
from git_theta.errors import ManifestError, UnsupportedVersionError
from git_theta.manifest import text
from git_theta.manifest.model import Chunk, Manifest, TensorEntry

_VERSION = re.compile(rb'\{"git-theta":([1-9][0-9]{0,8})[,}]')


# The file, its skeleton, a recipe.
_OTHER_LINES = 3


def parse(data: bytes) -> Manifest:
    """Return the manifest whose text is ``data``.

    Raises ``UnsupportedVersionError`` for a newer version and ``ManifestError`` for anything that
    is not exactly what ``dump`` writes.
    """
    if not text.is_manifest(data):
        raise ManifestError("not a git-theta manifest")
    _check_version(data)
    if len(data) > text.MAX_BYTES:
        raise ManifestError(f"manifest of {len(data)} bytes is larger than {text.MAX_BYTES}")
    if data.count(b"\n") > MAX_TENSORS + _OTHER_LINES:
        raise ManifestError(f"malformed manifest: it has more than {MAX_TENSORS:,} tensors")
    reader = _Reader(data)
    manifest = reader.manifest()
    _check_names(manifest)
    _check_sizes(manifest)
    if manifest.hash != reader.identity:
        _fail("the hash of the file is not that of its chunks")
    return manifest


def _fail(what: str) -> NoReturn:
    raise ManifestError(f"malformed manifest: {what}")


def _check_version(data: bytes) -> None:
    # Before anything else is read: of a newer version only the first bytes are known.
    found = _VERSION.match(data)
    if not found:
        _fail("the version is not a number")
    version = int(found[1])
    if version > text.VERSION:
        raise UnsupportedVersionError(
            f"manifest version {version} is newer than this git-theta reads ({text.VERSION})",
            hint="pip install --upgrade theta-vcs",
        )


class _Reader:
    """Takes one line after another, so that never more than one is held as JSON.

    Each line is written again and compared: that is what "one valid encoding" means. ``identity``
    is the hash that the first line names.
    """

    def __init__(self, data: bytes) -> None:
        self._lines = BytesIO(data)
        self._number = 0
        self._row: dict[str, Any] = {}
        self._line = b""
        self._sizes: dict[str, int] = {}
        self.identity = ""

    def manifest(self) -> Manifest:
        self._next()
        form, size = _typed(self._row, "format", str), _number(self._row.get("size"), "size")
        self.identity = _hash(self._row.get("hash"), "the file")
        self._check(text.header_line, (form, size, self.identity))
        if not self._next():
            _fail("the skeleton is missing")
        skeleton = self._chunks(_typed(self._row, "skeleton", list), "the skeleton")
        self._check(text.skeleton_line, skeleton)
        recipe = self._recipe() if self._next() and "recipe" in self._row else None
        tensors, aliases = tuple(self._tensors()), tuple(self._aliases())
        return Manifest(form, size, skeleton, tensors, aliases, recipe)

    def _next(self) -> bool:
        """Go to the next line; false at the end, where the row is empty."""
        self._number += 1
        self._line, self._row = self._lines.readline(), {}
        if not self._line:
            return False
        if not self._line.endswith(b"\n"):
            _fail("the last line is cut off")
        try:
            row = json.loads(self._line)
        except (ValueError, RecursionError):
            _fail(f"line {self._number} is not JSON")
        if not isinstance(row, dict):
            _fail(f"line {self._number} is not an object")
        self._row = row
        return True

    def _check(self, write: Callable[[Any], bytes], value: object) -> None:
        try:
            same = write(value) == self._line
        except (ValueError, RecursionError):  # in a recipe: not finite, or nested too deeply
            same = False
        if not same:
            _fail(f"line {self._number} is not in its one valid encoding")

    def _recipe(self) -> dict[str, Any]:
        recipe: dict[str, Any] = _typed(self._row, "recipe", dict)
        self._check(text.recipe_line, recipe)
        self._next()
        return recipe

    def _tensors(self) -> Iterator[TensorEntry]:
        while self._row and "of" not in self._row:
            entry = self._tensor(self._row)
            self._check(text.tensor_line, entry)
            yield entry
            self._next()

    def _aliases(self) -> Iterator[Alias]:
        while self._line:
            alias = _alias(self._row)
            self._check(text.alias_line, alias)
            yield alias
            self._next()

    def _tensor(self, row: dict[str, Any]) -> TensorEntry:
        name = _name(row)
        return TensorEntry(
            name=name,
            dtype=_typed(row, "dtype", str),
            shape=_numbers(row.get("shape"), "shape", _number),
            gap=_number(row.get("gap", 0), "gap"),
            chunks=self._chunks(_typed(row, "chunks", list), name),
            offset=_number(row.get("offset", 0), "offset"),
            strides=_strides(row),
        )

    def _chunks(self, rows: Iterable[Any], owner: str) -> tuple[Chunk, ...]:
        return tuple([self._chunk(row, owner) for row in rows])

    def _chunk(self, row: Any, owner: str) -> Chunk:
        if type(row) is not list or not 3 <= len(row) <= 2 + text.MAX_CHAIN:
            _fail(f"a chunk of {owner} is not [length, hash, ref...]")
        length = _number(row[0], "chunk length")
        if not 0 < length <= text.MAX_CHUNK:
            _fail(f"a chunk of {owner} has {length} bytes, the limit is {text.MAX_CHUNK}")
        chain = tuple([self._ref(ref, owner) for ref in row[2:]])
        return Chunk(length, _hash(row[1], owner), chain)

    def _ref(self, row: Any, owner: str) -> Ref:
        if type(row) is not list or len(row) not in (2, 4):
            _fail(f"a ref of {owner} is not [oid, size] or [oid, size, offset, length]")
        for value in row[1:]:
            _number(value, "ref")
        oid, size, offset, length = row if len(row) == 4 else (*row, 0, row[1])
        # Most objects are named many times: a dictionary is quicker than the pattern.
        known = self._sizes.get(oid) if type(oid) is str else None
        if known is None:
            known = self._sizes[_hash(oid, owner)] = size
        if known != size:
            _fail(f"object {short_id(oid)} has two sizes")
        if length == 0 or offset + length > size:
            _fail(f"a ref of {owner} reaches beyond its object")
        return Ref(oid, size, offset, length)


def _typed(row: dict[str, Any], key: str, kind: type) -> Any:
    value = row.get(key)
    if type(value) is not kind:
        _fail(f"{key!r} is not a {kind.__name__}")
    return value


def _name(row: dict[str, Any]) -> str:
    name: str = _typed(row, "name", str)
    if len(name) > text.MAX_NAME:
        _fail(f"a name has more than {text.MAX_NAME:,} characters")
    return name


def _number(value: Any, what: str) -> int:
    if type(value) is not int or not 0 <= value < text.MAX_INT:
        _fail(f"a {what} is not a number from 0 to 2^62")
    return value


def _hash(value: Any, owner: str) -> str:
    if not is_hex256(value):
        _fail(f"a hash of {owner} is not 64 hex digits")
    return str(value)


def _numbers(value: Any, what: str, item: Callable[[Any, str], int]) -> tuple[int, ...]:
    if type(value) is not list or len(value) > text.MAX_DIMENSIONS:
        _fail(f"a {what} is not a list of at most {text.MAX_DIMENSIONS} numbers")
    return tuple([item(number, what) for number in value])


def _stride(value: Any, what: str) -> int:
    if type(value) is not int or abs(value) >= text.MAX_INT:
        _fail(f"a {what} is not a number below 2^62")
    return value


def _strides(row: dict[str, Any]) -> tuple[int, ...] | None:
    return _numbers(row["strides"], "stride", _stride) if "strides" in row else None


def _alias(row: dict[str, Any]) -> Alias:
    return Alias(
        name=_name(row),
        dtype=_typed(row, "dtype", str),
        shape=_numbers(row.get("shape"), "shape", _number),
        of=_typed(row, "of", str),
        offset=_number(row.get("offset", 0), "offset"),
        strides=_strides(row),
    )


def _check_names(manifest: Manifest) -> None:
    owners = {entry.name for entry in manifest.tensors}
    names = owners | {alias.name for alias in manifest.aliases}
    if len(names) != len(manifest.tensors) + len(manifest.aliases):
        _fail("a tensor name stands twice")
    if any(alias.of not in owners for alias in manifest.aliases):
        _fail("an alias names a tensor that is not there")


def _check_sizes(manifest: Manifest) -> None:
    skeleton = sum(chunk.length for chunk in manifest.skeleton)
    if sum(entry.gap for entry in manifest.tensors) > skeleton:
        _fail("the gaps are larger than the skeleton")
    if skeleton + sum(entry.length for entry in manifest.tensors) != manifest.size:
        _fail("the pieces do not add up to the file's size")
