from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from git_theta.checkpoint.chunking import (
    SKELETON,
    RawChunk,
    SourceStream,
    cut,
    placements,
    raw_chunks,
)
from git_theta.core.hashes import Ref
from git_theta.core.layout import Layout, TensorSpan
from git_theta.manifest import Chunk, Manifest, TensorEntry
from git_theta.testing.formats import MemorySource

_REF = (Ref("a" * 64, 9, 0, 9),)


def _layout(sizes: list[tuple[int, int]]) -> Layout:
    """Spans of F16 tensors given as (gap before, elements)."""
    spans, position = [], 0
    for number, (gap, elements) in enumerate(sizes):
        position += gap
        spans.append(TensorSpan(f"t{number}", "F16", (elements,), position, 2 * elements))
        position += 2 * elements
    return Layout("test", tuple(spans))


@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 20)), max_size=8),
    st.integers(0, 30),
    st.sampled_from([8, 16, 64]),
)
def test_chunks_and_placements_cover_every_byte_once_and_in_order(sizes, tail, chunk_size):
    layout = _layout(sizes)
    total = sum(gap + 2 * elements for gap, elements in sizes) + tail
    content = bytes(index % 251 for index in range(total))

    chunks = list(raw_chunks(SourceStream(MemorySource(content)), layout, chunk_size))

    assert all(0 < len(chunk.data) <= chunk_size for chunk in chunks)
    assert _rebuilt(layout, chunks, total) == content


def _rebuilt(layout: Layout, chunks: list[RawChunk], size: int) -> bytes:
    data = {f"{index:064x}": chunk.data for index, chunk in enumerate(chunks)}
    owned = {owner: [] for owner in range(SKELETON, len(layout.spans))}
    for index, chunk in enumerate(chunks):
        owned[chunk.owner].append(Chunk(len(chunk.data), f"{index:064x}", _REF))
    entries, position = [], 0
    for owner, span in enumerate(layout.spans):
        gap = span.start - position
        entries.append(TensorEntry(span.name, "F16", span.shape, gap, tuple(owned[owner])))
        position = span.start + span.length
    manifest = Manifest("test", size, tuple(owned[SKELETON]), tuple(entries))
    return b"".join(data[p.chunk.hash][p.start : p.stop] for p in placements(manifest))


@given(st.integers(0, 60), st.integers(0, 9))
def test_a_stream_that_the_layout_does_not_fit_is_covered_too(size, gap):
    layout = _layout([(gap, 5), (3, 7)])
    content = bytes(range(size))
    chunks = list(raw_chunks(SourceStream(MemorySource(content)), layout, 8))
    assert _rebuilt(layout, chunks, size) == content


def test_a_chunk_knows_its_place_in_its_tensor():
    layout = Layout("test", (TensorSpan("w", "F32", (10, 3), 0, 120),))
    chunks = list(raw_chunks(SourceStream(MemorySource(bytes(120))), layout, 48))
    assert [(chunk.number, chunk.geometry.first) for chunk in chunks] == [(0, 0), (1, 12), (2, 24)]


@pytest.mark.parametrize(
    ("length", "shape", "expected"),
    [
        (1000, (1000,), 256),  # a vector is cut anywhere
        (1000, (100, 10), 250),  # whole rows of 10 bytes
        (1000, (4, 250), 256),  # rows too long for whole ones to be worth it
        (1000, (), 256),
        (0, (0, 5), 256),
        (1000, (3, 7), 256),  # a view: the storage is no multiple of its rows
    ],
)
def test_chunks_are_whole_rows_where_rows_are_small(length, shape, expected):
    assert cut(length, shape, 256) == expected
