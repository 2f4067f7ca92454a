"""Files as ``torch.save`` wrote before 1.6: see also ``test_torch_save``, which reads real ones."""

from __future__ import annotations

import argparse
import io
import re

import pytest
import torch

from git_theta.core.layout import Layout
from git_theta.errors import FormatError
from git_theta.formats import scan
from git_theta.formats.torch_files import FORMAT
from git_theta.testing.formats import MemorySource
from tests.support.formats import (
    dict_of,
    global_of,
    integer,
    legacy_file,
    tensor,
    text,
    tuple_of,
    vector,
)


def saved(value: object, **options: int) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, _use_new_zipfile_serialization=False, **options)
    return buffer.getvalue()


def layout_of(data: bytes) -> Layout:
    layout, warning = scan(MemorySource(data), "pytorch_model.bin")
    assert (layout.format, warning) == ("torch", None)
    return layout


def reason_of(data: bytes) -> str:
    with pytest.raises(FormatError) as caught:
        FORMAT.scan(MemorySource(data))
    return caught.value.message


def test_training_arguments_hold_no_tensors_and_give_no_warning():
    data = saved(argparse.Namespace(lr=0.1, steps=[1, 2], name="run"))
    assert layout_of(data) == Layout("torch")


def test_a_pickle_that_is_longer_than_what_is_read_first():
    value = {f"layer.{number}.weight": torch.full((2,), number) for number in range(3000)}
    data = saved(value)
    layout = layout_of(data)
    assert {span.name for span in layout.spans} == set(value)
    for span in layout.spans:
        number = int(span.name.split(".")[1])
        assert data[span.start : span.start + 16] == number.to_bytes(8, "little") * 2


def test_what_differs_by_the_addresses_of_storages_alone():
    def state(**more: int) -> dict[str, object]:
        return {"w": torch.ones(3), "b": torch.zeros(2), "epoch": 1, **more}

    first, second = state(), state()  # both live: their storages have other addresses
    data = [saved(first), saved(second), saved(state(epoch=1234567))]
    assert data[0] != data[1]
    extras = [FORMAT.extras(MemorySource(it)) for it in data]
    assert extras[0] == extras[1] != extras[2]


def test_a_machine_that_is_big_endian():
    (span,) = layout_of(legacy_file(vector("0", 2), [("0", 2, bytes(8))], b"\x89")).spans
    assert (span.name, span.dtype, span.shape) == ("tensor", "U8", (8,))


def test_a_view_of_another_storage_is_not_taken_for_it():
    pid = (text("storage"), global_of("torch", "FloatStorage"), text("0"), text("cpu"))
    view = tuple_of(text("1"), integer(1), integer(2))
    viewed = tensor(tuple_of(*pid, integer(4), view) + b"Q", (2,), (1,))
    storages = [("0", 4, bytes(16))]
    both = legacy_file(dict_of({"a": vector("0", 4), "b": viewed}), storages)
    assert [span.name for span in layout_of(both).spans] == ["a"]
    assert "of no known size" in reason_of(legacy_file(dict_of({"b": viewed}), storages))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (legacy_file(vector("0", 2), [("0", 3, bytes(12))]), "3 elements, where its pickle says 2"),
        (legacy_file(vector("0", 2), [("0", 2, bytes(7))]), "its storages are cut off"),
        (legacy_file(vector("0", 2), [("0", 2, bytes(8))])[:-9], "its storages are cut off"),
        (legacy_file(vector("0", 2), []), "its storage '0' is missing"),
        (legacy_file(vector("0", 2), [("1", 2, bytes(8))]), "its storage '1' is of no known size"),
        (legacy_file(b"N", [], protocol=1002), "its protocol is not 1001"),
        (legacy_file(b"N", [], keys=b"N"), "not a list of strings"),
        (legacy_file(b"a", []), "cut off or takes what it never put"),
    ],
)
def test_what_is_wrong_is_named(data: bytes, reason: str):
    assert re.search(reason, reason_of(data))
