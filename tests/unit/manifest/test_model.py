"""The manifest as values."""

from __future__ import annotations

from git_theta.core.hashes import Ref
from git_theta.core.layout import Alias
from git_theta.manifest import Chunk, Manifest, TensorEntry

REFS = [Ref(f"{n:064x}", 100 + n, 0, 10) for n in range(4)]
SKELETON = Chunk(8, "a" * 64, (REFS[0],))
FIRST = TensorEntry("first", "F32", (3,), 8, (Chunk(12, "b" * 64, (REFS[1], REFS[0])),))
SECOND = TensorEntry(
    "second", "U8", (5,), 0, (Chunk(4, "c" * 64, (REFS[2],)), Chunk(1, "d" * 64, (REFS[3],)))
)
TIED = Alias("tied", "F32", (3,), "first")
MANIFEST = Manifest("safetensors", 25, (SKELETON,), (FIRST, SECOND), (TIED,))


def test_chunks_the_skeleton_first() -> None:
    assert list(MANIFEST.chunks()) == [SKELETON, *FIRST.chunks, *SECOND.chunks]


def test_refs_with_their_bases() -> None:
    assert list(MANIFEST.refs()) == [REFS[0], REFS[1], REFS[0], REFS[2], REFS[3]]


def test_objects_are_named_once_with_their_size() -> None:
    assert MANIFEST.objects() == {ref.oid: ref.size for ref in REFS}


def test_length_is_the_sum_of_the_chunks() -> None:
    assert SECOND.length == 5
    assert TensorEntry("empty", "F32", (0,), 0, ()).length == 0
