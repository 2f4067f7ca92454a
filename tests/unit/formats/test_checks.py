from __future__ import annotations

from dataclasses import replace

import pytest

from git_theta.core.layout import MAX_TENSORS, Alias, Layout, TensorSpan
from git_theta.errors import FormatError
from git_theta.formats import checks
from git_theta.formats.checks import check_layout, quote
from git_theta.manifest import text

A = TensorSpan("a", "F32", (2,), 0, 8)
B = TensorSpan("b", "I8", (4,), 8, 4)
TIED = Alias("tied", "F32", (2,), "a")


def layout(*spans: TensorSpan, aliases: tuple[Alias, ...] = ()) -> Layout:
    return Layout("test", spans, aliases)


def test_limits_are_those_of_a_manifest():
    assert text.MAX_DIMENSIONS == checks.MAX_DIMENSIONS
    assert text.MAX_INT == checks.MAX_INT
    assert text.MAX_NAME == checks.MAX_NAME
    # 250 bytes a line, and six bytes for a character that JSON escapes.
    assert 250 * MAX_TENSORS + 6 * checks.MAX_NAMES < text.MAX_BYTES


@pytest.mark.parametrize(
    "good",
    [
        layout(),
        layout(A, B),
        layout(A, replace(B, start=12)),
        layout(A, aliases=(TIED, replace(TIED, name="x", dtype="U8", shape=(8,)))),
        layout(replace(A, shape=(), offset=1)),
        layout(replace(A, shape=(2,), strides=(-1,), offset=1)),
        layout(replace(A, shape=(1 << 40,), strides=(0,))),
        layout(replace(A, shape=(9, 0), strides=(99, 1))),
        layout(replace(A, dtype="Q4_K", shape=(32,))),
        layout(replace(A, dtype="F4", shape=(4, 4))),
        layout(TensorSpan("e", "F32", (0,), 0, 0), A),
        layout(replace(A, name="\ud800 lone")),
    ],
)
def test_layouts_that_can_be(good: Layout):
    check_layout(good, 16)


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (layout(A, A), "two tensors are called 'a'"),
        (layout(A, aliases=(replace(TIED, name="a"),)), "two tensors are called 'a'"),
        (layout(A, aliases=(replace(TIED, of="c"),)), "'tied' views 'c', which does not exist"),
        (layout(replace(A, name=3)), "no manifest can hold"),
        (layout(replace(A, name="x" * 65537)), "no manifest can hold"),
        (layout(replace(A, name="\ud83d\ude00")), "no manifest can hold"),
        (layout(B, A), "'a' overlaps 'b'"),
        (layout(A, replace(B, start=7)), "'b' overlaps 'a'"),
        (layout(replace(B, start=13)), "ends at byte 17, beyond the file's 16 bytes"),
        (layout(replace(A, start=-1)), "no valid place"),
        (layout(replace(A, length=-8)), "no valid place"),
        (layout(replace(A, start=0.0)), "no valid place"),
        (layout(replace(A, start=1 << 62)), "no valid place"),
        (layout(replace(A, dtype=None)), "no valid dtype"),
        (layout(replace(A, dtype="")), "no valid dtype"),
        (layout(replace(A, dtype="F 32")), "no valid dtype"),
        (layout(replace(A, shape=(-2,))), "no valid shape"),
        (layout(replace(A, shape=(True,))), "no valid shape"),
        (layout(replace(A, offset=-1)), "no valid shape"),
        (layout(replace(A, strides=(1.0,))), "no valid shape"),
        (layout(replace(A, strides=(-(1 << 62),))), "no valid shape"),
        (layout(replace(A, shape=(1,) * 65)), "number of dimensions"),
        (layout(replace(A, strides=())), "number of dimensions"),
        (layout(replace(A, offset=1)), "reaches beyond its 8 bytes"),
        (layout(replace(A, strides=(2,))), "reaches beyond its 8 bytes"),
        (layout(replace(A, strides=(-1,))), "reaches beyond its 8 bytes"),
        (layout(A, aliases=(replace(TIED, offset=1),)), "'tied' reaches beyond its 8 bytes"),
        (layout(A, aliases=(replace(TIED, dtype="F64"),)), "'tied' reaches beyond its 8 bytes"),
        (layout(replace(A, shape=(1,))), "has 8 bytes, but F32 [1] needs 4 bytes"),
        (layout(replace(A, dtype="F4", shape=(15,))), "but F4 [15] needs 60 bits"),
        (layout(replace(A, length=7, shape=(1,), strides=(1,))), "not a whole number of F32"),
    ],
)
def test_layouts_that_cannot_be(bad: Layout, reason: str):
    with pytest.raises(FormatError) as caught:
        check_layout(bad, 16)
    assert reason in caught.value.message


def test_the_number_of_tensors_and_the_length_of_their_names_are_bounded(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(checks, "MAX_TENSORS", 1)
    check_layout(layout(A), 16)
    with pytest.raises(FormatError, match="more than 1 tensors"):
        check_layout(layout(A, aliases=(TIED,)), 16)
    monkeypatch.undo()
    monkeypatch.setattr(checks, "MAX_NAMES", 6)
    check_layout(layout(A, aliases=(TIED,)), 16)
    with pytest.raises(FormatError, match="more than 6 characters"):
        check_layout(layout(A, B, aliases=(TIED,)), 16)


def test_quoted_text_is_short_and_printable():
    assert quote("plain") == "'plain'"
    assert quote("\ud800\n\x1b") == "'\\ud800\\n\\x1b'"
    assert len(quote("\n" * 1000)) == 80
