"""Manifests made to confuse: each is refused with an error that says what is wrong."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from git_theta import manifest
from git_theta.errors import ManifestError, UnsupportedVersionError
from git_theta.manifest.text import ABOUT

A, B, C = "a" * 64, "b" * 64, "c" * 64
# Of `rows()`: gap and number of chunks of each tensor with its chunks' hashes, then the skeleton's.
IDENTITY = "ff3e44c328c0c041469cfdb36177fccf80bbae6849e8b516b117fa1db4a93a88"

ONE = [12, A, [C, 100, 5, 9]]

Rows = list[dict[str, Any]]


def rows() -> Rows:
    """A sound manifest: two tensors, an alias and a recipe."""
    return [
        {"git-theta": 1, "about": ABOUT, "format": "safetensors", "size": 30, "hash": IDENTITY},
        {"skeleton": [[10, B, [C, 100]]]},
        {"recipe": {"strategy": "average"}},
        {
            "name": "one",
            "dtype": "F32",
            "shape": [3],
            "gap": 10,
            "chunks": [[12, A, [C, 100, 5, 9]]],
        },
        {"name": "two", "dtype": "F64", "shape": [], "chunks": [[8, B, [B, 7], [C, 100]]]},
        {"name": "tied", "dtype": "F32", "shape": [1], "of": "one", "offset": 2, "strides": [-1]},
    ]


def text(lines: Rows) -> bytes:
    return b"".join(json.dumps(row, separators=(",", ":")).encode() + b"\n" for row in lines)


def test_the_sound_one() -> None:
    parsed = manifest.parse(text(rows()))
    assert manifest.dump(parsed) == text(rows())
    assert [entry.name for entry in parsed.tensors] == ["one", "two"]


def put(line: int, key: str, value: Any) -> Callable[[Rows], None]:
    def change(lines: Rows) -> None:
        lines[line][key] = value

    return change


def drop(line: int, key: str) -> Callable[[Rows], None]:
    def change(lines: Rows) -> None:
        del lines[line][key]

    return change


def chunk(*row: Any) -> Callable[[Rows], None]:
    """Replace the chunk of tensor "one"."""
    return put(3, "chunks", [list(row)])


def ref(*row: Any) -> Callable[[Rows], None]:
    """Replace the ref of tensor "one"."""
    return chunk(12, A, list(row))


def swap(first: int, second: int) -> Callable[[Rows], None]:
    def change(lines: Rows) -> None:
        lines[first], lines[second] = lines[second], lines[first]

    return change


CHANGES: list[tuple[Callable[[Rows], None], str]] = [
    # types and limits of the header
    (put(0, "size", -1), "size is not a number"),
    (put(0, "size", 30.0), "size is not a number"),
    (put(0, "size", True), "size is not a number"),
    (put(0, "size", 1 << 62), "size is not a number"),
    (put(0, "size", "30"), "size is not a number"),
    (put(0, "hash", A[:-1]), "hash of the file"),
    (put(0, "hash", A.upper()), "hash of the file"),
    (put(0, "hash", "../../../../etc/passwd"), "hash of the file"),
    (put(0, "hash", None), "hash of the file"),
    (put(0, "hash", A), "the hash of the file is not that of its chunks"),
    (put(3, "chunks", [[12, B, [C, 100, 5, 9]]]), "the hash of the file is not that of its chunks"),
    (put(0, "format", 7), "'format' is not a str"),
    (drop(0, "format"), "'format' is not a str"),
    (put(0, "extra", 1), "line 1 is not in its one valid encoding"),
    # structure
    (lambda lines: lines.__delitem__(slice(1, None)), "skeleton is missing"),
    (lambda lines: lines.pop(1), "'skeleton' is not a list"),
    (swap(2, 3), "'name' is not a str"),
    (swap(4, 5), "line 5 is not in its one valid encoding|'of' is not a str"),
    (put(1, "skeleton", {}), "'skeleton' is not a list"),
    (put(2, "recipe", []), "'recipe' is not a dict"),
    (put(2, "recipe", {"b": 1, "a": 2}), "line 3 is not in its one valid encoding"),
    (put(2, "recipe", {"a": float("nan")}), "line 3 is not in its one valid encoding"),
    (put(2, "recipe", {"a": float("inf")}), "line 3 is not in its one valid encoding"),
    (put(3, "of", "two"), "line 4 is not in its one valid encoding"),
    (put(3, "extra", 1), "line 4 is not in its one valid encoding"),
    (lambda lines: lines.append({}), "'name' is not a str"),
    # tensors
    (drop(3, "name"), "'name' is not a str"),
    (put(3, "name", "x" * 65_537), "a name has more than 65,536 characters"),
    (put(3, "name", "two"), "stands twice"),
    (put(3, "name", "tied"), "stands twice"),
    (put(3, "name", "three"), "an alias names a tensor that is not there"),
    (drop(3, "dtype"), "'dtype' is not a str"),
    (drop(3, "shape"), "shape is not a list"),
    (put(3, "shape", [1] * 65), "shape is not a list of at most 64"),
    (put(3, "shape", [-3]), "shape is not a number"),
    (put(3, "shape", [1 << 62]), "shape is not a number"),
    (put(3, "gap", 11), "gaps are larger than the skeleton"),
    (put(3, "gap", -1), "gap is not a number"),
    (put(4, "gap", 0), "line 5 is not in its one valid encoding"),
    (put(4, "offset", 0), "line 5 is not in its one valid encoding"),
    (put(4, "offset", -1), "offset is not a number"),
    (put(4, "strides", None), "stride is not a list"),
    (put(4, "strides", [1.5]), "stride is not a number"),
    (put(5, "strides", [-(1 << 62)]), "stride is not a number"),
    (put(5, "strides", [1] * 65), "stride is not a list of at most 64"),
    (put(5, "of", "tied"), "an alias names a tensor that is not there"),
    (put(5, "of", None), "'of' is not a str"),
    (drop(4, "chunks"), "'chunks' is not a list"),
    # chunks
    (chunk(), "not .length, hash, ref"),
    (chunk(12, A), "not .length, hash, ref"),
    (chunk(12, A, *[[C, 100]] * 65), "not .length, hash, ref"),
    (put(3, "chunks", ["chunk"]), "not .length, hash, ref"),
    (chunk(0, A, [C, 100]), "has 0 bytes"),
    (chunk((1 << 26) + 1, A, [C, 100]), "the limit is"),
    (chunk(13, A, [C, 100]), "do not add up"),
    (chunk(12, "A" * 64, [C, 100]), "hash of one"),
    (chunk(12.0, A, [C, 100]), "chunk length is not a number"),
    # refs
    (ref(), "a ref of one is not"),
    (ref(C, 100, 5), "a ref of one is not"),
    (chunk(12, A, C), "a ref of one is not"),
    (ref(C, 100, 0, 100), "line 4 is not in its one valid encoding"),
    (ref(C, 100, 92, 9), "reaches beyond its object"),
    (ref(C, 100, 5, 0), "reaches beyond its object"),
    (ref("d" * 64, 0), "reaches beyond its object"),
    (ref(C, 100, -1, 9), "ref is not a number"),
    (ref(C, 99), "has two sizes"),
    (ref("../" * 21 + "x", 100), "hash of one"),
    (ref("A" * 64, 100), "hash of one"),
    (ref([C], 100), "hash of one"),
    (ref(None, 100), "hash of one"),
]


@pytest.mark.parametrize(("change", "message"), CHANGES)
def test_refused(change: Callable[[Rows], None], message: str) -> None:
    lines = rows()
    change(lines)
    with pytest.raises(ManifestError, match=message) as caught:
        manifest.parse(text(lines))
    assert not isinstance(caught.value, UnsupportedVersionError)


SOUND = text(rows())


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (SOUND[:-1], "cut off"),
        (SOUND[:200], "cut off"),
        (SOUND + b"\n", "line 7 is not JSON"),
        (SOUND.replace(b"\n", b"\r\n"), "not in its one valid encoding"),
        (SOUND.replace(b"\n", b"\n\n", 1), "line 2 is not JSON"),
        (SOUND.replace(b"\n{", b"\n[", 1), "line 2 is not JSON"),
        (SOUND.replace(b'{"skel', b'["skel').replace(b"]]]}", b"]]]]"), "line 2 is not JSON"),
        (SOUND + b"[]\n", "line 7 is not an object"),
        (SOUND + b"\xff\xfe\n", "line 7 is not JSON"),
        (SOUND.replace(b"one", "öne".encode()), "not in its one valid encoding"),
        (SOUND.replace(b"one", b"o\\u006ee"), "not in its one valid encoding"),
        (SOUND.replace(b'"size":30', b'"size":31,"size":30'), "not in its one valid encoding"),
        (SOUND.replace(b'"size":30', b'"size":3e1'), "size is not a number"),
        (SOUND.replace(b'"average"', b"1e999"), "not in its one valid encoding"),
        (SOUND.replace(b'"average"', b"9" * 5000), "line 3 is not JSON|valid encoding"),
        (SOUND.replace(b'"average"', b"[" * 900 + b"]" * 900), "line 3 is not"),
        (SOUND.replace(b'"average"', b"[" * 10**6 + b"]" * 10**6), "line 3 is not JSON"),
        (b'{"git-theta":1}\n', "'format' is not a str"),
    ],
)
def test_malformed_text(data: bytes, message: str) -> None:
    with pytest.raises(ManifestError, match=message):
        manifest.parse(data)


@pytest.mark.parametrize("version", [b"0", b"-1", b"true", b'"1"', b"1.0", b"01", b"", b"9" * 500])
def test_versions_that_are_none(version: bytes) -> None:
    with pytest.raises(ManifestError, match="version is not a number") as caught:
        manifest.parse(SOUND.replace(b":1,", b":" + version + b",", 1))
    assert not isinstance(caught.value, UnsupportedVersionError)


@pytest.mark.parametrize(
    "data",
    [
        SOUND.replace(b":1,", b":2,", 1),
        b'{"git-theta":2,"what":"ever"}\n\x00\x01 not lines, not JSON, no line feed',
        b'{"git-theta":17}',
    ],
)
def test_a_newer_version_is_named_whatever_follows(data: bytes) -> None:
    assert manifest.is_manifest(data[:16])
    with pytest.raises(UnsupportedVersionError, match="newer than this git-theta") as caught:
        manifest.parse(data)
    assert caught.value.hint == "pip install --upgrade theta-vcs"


def test_larger_than_any_honest_one() -> None:
    with pytest.raises(ManifestError, match="larger than"):
        manifest.parse(manifest.MAGIC + bytes(manifest.MAX_BYTES))


@pytest.mark.parametrize("line", [b"\n", b"{}\n", b"[\n"])
def test_many_short_lines_cost_nothing(line: bytes) -> None:
    """60 MB of lines are refused at the first bad one: nothing is built for the others."""
    header = b"".join(SOUND.splitlines(keepends=True)[:2])
    data = header + line * (60_000_000 // len(line))
    before = time.process_time()
    with pytest.raises(ManifestError):
        manifest.parse(data)
    assert time.process_time() - before < 1
