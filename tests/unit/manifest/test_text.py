"""Manifest text: what is written is read back equal, and nothing else is read."""

from __future__ import annotations

import json
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from git_theta import manifest
from git_theta.core.hashes import Ref
from git_theta.core.layout import Alias
from git_theta.errors import ManifestError
from git_theta.manifest import Chunk, Manifest, TensorEntry

HEX = st.integers(0, 2**256 - 1).map(lambda number: f"{number:064x}")
# Names come from files: control characters, quotes, lone surrogates and all.
NAMES = st.text(st.characters(), max_size=12)
SIZES = st.integers(0, 1 << 40)
SHAPES = st.lists(st.integers(0, 1 << 40), max_size=5).map(tuple)
STRIDES = st.none() | st.lists(st.integers(-(1 << 40), 1 << 40), max_size=5).map(tuple)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | NAMES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=8,
)


@st.composite
def refs(draw: st.DrawFn) -> Ref:
    oid = draw(HEX)
    size = 1 + int(oid[:8], 16)  # an object has one size
    length = draw(st.integers(1, size))
    return Ref(oid, size, draw(st.integers(0, size - length)), length)


CHUNKS = st.builds(
    Chunk,
    length=st.integers(1, 1 << 26),
    hash=HEX,
    chain=st.lists(refs(), min_size=1, max_size=4).map(tuple),
)
CHUNK_LISTS = st.lists(CHUNKS, max_size=3).map(tuple)


@st.composite
def manifests(draw: st.DrawFn) -> Manifest:
    names = draw(st.lists(NAMES, unique=True, max_size=6))
    cut = draw(st.integers(0, len(names)))
    skeleton = draw(CHUNK_LISTS)
    left = sum(chunk.length for chunk in skeleton)
    tensors = []
    for name in names[:cut]:
        gap = draw(st.integers(0, left))
        left -= gap
        chunks, strides = draw(CHUNK_LISTS), draw(STRIDES)
        tensors.append(
            TensorEntry(name, draw(NAMES), draw(SHAPES), gap, chunks, draw(SIZES), strides)
        )
    aliases = [
        Alias(name, draw(NAMES), draw(SHAPES), owner.name, draw(SIZES), draw(STRIDES))
        for name in names[cut:]
        if tensors
        for owner in [draw(st.sampled_from(tensors))]
    ]
    size = sum(c.length for c in skeleton) + sum(t.length for t in tensors)
    recipe = draw(st.none() | st.dictionaries(NAMES, JSON, max_size=3))
    return Manifest(draw(NAMES), size, skeleton, tuple(tensors), tuple(aliases), recipe)


@settings(max_examples=200)
@given(manifests())
def test_round_trip(value: Manifest) -> None:
    text = manifest.dump(value)
    assert manifest.parse(text) == value
    assert manifest.is_manifest(text[:16])
    assert text.startswith(manifest.MAGIC)
    assert text.isascii()


@given(manifests(), st.randoms(use_true_random=False))
def test_one_valid_encoding(value: Manifest, chance: random.Random) -> None:
    """Any other JSON for the same information is refused: spaces, order of keys, escapes."""
    lines = manifest.dump(value).splitlines()
    number = chance.randrange(1, len(lines))
    row = json.loads(lines[number])
    others = [
        json.dumps(row).encode(),
        json.dumps(dict(reversed(row.items())), separators=(",", ":")).encode(),
        lines[number] + b" ",
        lines[number].replace(b'"', b"\\u0022", 1),
    ]
    for other in others:
        if other != lines[number]:
            changed = b"\n".join([*lines[:number], other, *lines[number + 1 :]]) + b"\n"
            with pytest.raises(ManifestError):
                manifest.parse(changed)


@settings(max_examples=300)
@given(manifests(), st.randoms(use_true_random=False))
def test_a_changed_byte_is_refused_or_another_manifest(
    value: Manifest, chance: random.Random
) -> None:
    text = bytearray(manifest.dump(value))
    text[chance.randrange(len(text))] = chance.randrange(256)
    try:
        parsed = manifest.parse(bytes(text))
    except ManifestError:
        return
    assert manifest.dump(parsed) == text


def test_a_line_does_not_depend_on_its_neighbours() -> None:
    """So that inserting a tensor changes one line, which keeps Git's packs and diffs small."""
    chunk = Chunk(4, "b" * 64, (Ref("c" * 64, 9, 0, 9),))
    tensors = [TensorEntry(f"t{n}", "F32", (1,), 0, (chunk,)) for n in range(3)]

    def lines(*entries: TensorEntry) -> set[bytes]:
        described = Manifest("x", 4 * len(entries), (), entries)
        return set(manifest.dump(described).splitlines()[1:])

    assert lines(tensors[0], tensors[2]) < lines(*tensors)


def test_a_recipe_that_is_not_finite_is_not_written() -> None:
    with pytest.raises(ValueError, match="JSON"):
        manifest.dump(Manifest("x", 0, (), (), recipe={"scale": float("nan")}))


@pytest.mark.parametrize("head", [b"", b"PK\x03\x04", b'{"git-theta"', b'{"git_theta":1,'])
def test_what_is_not_a_manifest(head: bytes) -> None:
    assert not manifest.is_manifest(head)
    with pytest.raises(ManifestError, match="not a git-theta manifest"):
        manifest.parse(head)
