from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from git_theta.encodings.streams import NARROW, PLAIN, open_reader, open_writer, parts_of
from git_theta.errors import CorruptObjectError


def differences(largest: int, count: int, word: str = "<u2") -> np.ndarray:
    return np.random.default_rng(count).integers(0, largest + 1, count).astype(word)


def cut(words: np.ndarray, sizes: list[int]) -> list[np.ndarray]:
    return np.split(words, np.cumsum(sizes)[:-1])


@st.composite
def sizes(draw: st.DrawFn) -> list[int]:
    return draw(st.lists(st.integers(0, 9), min_size=1, max_size=12))


@given(sizes(), st.data(), st.sampled_from([7, 20, 5000]))
def test_pieces_of_any_size_are_written_and_read(written, data, largest):
    words = differences(largest, sum(written))
    writer = open_writer(differences(largest, 100), words.size)
    for piece in cut(words, written):
        writer.add(piece)
    params, parts = writer.finish()
    read = data.draw(st.permutations(written))
    reader = open_reader(params, parts, words.dtype)
    for piece, size in zip(cut(words, read), read, strict=True):
        np.testing.assert_array_equal(reader.take(size), piece)
    reader.finish()


@pytest.mark.parametrize(("largest", "params"), [(7, NARROW), (5000, PLAIN)])
def test_the_pieces_do_not_show_in_what_is_stored(largest, params):
    words = differences(largest, 1001)
    stored = []
    for pieces in ([words], cut(words, [1, 334, 1, 665])):
        writer = open_writer(words, words.size)
        for piece in pieces:
            writer.add(piece)
        found, parts = writer.finish()
        assert found[:1] == params
        assert len(parts) == parts_of(found)
        stored.append([bytes(part.data) for part in parts])
    assert stored[0] == stored[1]


@pytest.mark.parametrize(
    ("largest", "read"),
    # Codes come in pairs: with an odd number, one is left over in any case.
    [(7, [998]), (7, [1001]), (7, [500, 600]), (5000, [999]), (5000, [1001]), (5000, [500, 600])],
)
def test_another_number_than_was_written_is_refused(largest, read):
    words = differences(largest, 1000)
    writer = open_writer(words, words.size)
    writer.add(words)
    params, parts = writer.finish()
    with pytest.raises(CorruptObjectError, match="delta frame"):
        take_all(open_reader(params, parts, words.dtype), read)


def take_all(reader, counts):
    for count in counts:
        reader.take(count)
    reader.finish()


def test_escapes_that_are_left_over_are_refused():
    writer = open_writer(differences(7, 100), 10)
    writer.add(np.full(10, 500, "<u2"))
    params, (pairs, escapes) = writer.finish()
    reader = open_reader(params, (pairs, escapes), np.dtype("<u2"))
    with pytest.raises(CorruptObjectError, match="nothing refers to"):
        take_all(reader, [9])
