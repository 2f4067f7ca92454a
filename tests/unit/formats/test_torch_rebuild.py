"""State dicts with other tensors: PyTorch loads them, and all else that they say is kept."""

from __future__ import annotations

import io
import pickle
import zlib
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch

from git_theta.core.dtypes import DTYPES
from git_theta.core.layout import Rebuilt, TensorSpan
from git_theta.errors import FormatError
from git_theta.formats.torch_files import FORMAT
from git_theta.testing.formats import MemorySource
from tests.support.formats import (
    Record,
    dict_of,
    global_of,
    text,
    torch_file,
    torch_records,
    tuple_of,
    vector,
    zip_file,
)

NEW = TensorSpan("new", "F32", (2,), 0, 8)


def saved(value: Any, **options: Any) -> bytes:
    file = io.BytesIO()
    torch.save(value, file, **options)
    return file.getvalue()


def spans_of(data: bytes) -> dict[str, TensorSpan]:
    return {span.name: span for span in FORMAT.scan(MemorySource(data)).spans}


def rebuilt(data: bytes, tensors: Sequence[TensorSpan]) -> Rebuilt:
    return FORMAT.rebuild(MemorySource(data), [replace(span, start=7) for span in tensors])


def filled(data: bytes, made: Rebuilt) -> bytes:
    """Return the file, with the tensors of ``data`` where they have its lengths, else ones."""
    old, file = spans_of(data), bytearray(made.pieces[0])
    for span, piece in zip(made.layout.spans, made.pieces[1:], strict=True):
        before = old.get(span.name)
        same = before is not None and before.length == span.length
        file += data[before.start : before.start + span.length] if same else b"\1" * span.length
        file += piece
    for each in made.checksums:
        checksum = zlib.crc32(file[each.start : each.start + each.length])
        for place in each.places:
            file[place : place + 4] = checksum.to_bytes(4, "little")
    assert FORMAT.scan(MemorySource(bytes(file))) == made.layout
    return bytes(file)


def loaded(data: bytes) -> Any:
    return torch.load(io.BytesIO(data), weights_only=True)


def state() -> dict[str, Any]:
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.LayerNorm(4))
    weight = torch.arange(6.0).reshape(2, 3)
    return {
        "state_dict": model.state_dict(),
        "tied": {"in": weight, "out": weight[:]},
        "half": torch.ones(3, dtype=torch.float16),
        "empty": torch.zeros(0),
        "best": [torch.zeros(2)],
        "epoch": 3,
        "args": {"lr": 1e-3, "names": ("a", "half")},
    }


DATA = saved(state())
SPANS = spans_of(DATA)


@pytest.mark.parametrize(
    "value",
    [
        state(),
        {"one": torch.ones(3)},
        {str(number): torch.full((number % 3,), 1.0) for number in range(2500)},
    ],
    ids=["nested", "one", "many"],
)
def test_the_same_tensors_give_the_same_bytes(value: Any) -> None:
    data = saved(value)
    assert filled(data, rebuilt(data, list(spans_of(data).values()))) == data


def test_tensors_are_added_removed_and_reshaped() -> None:
    gone = {"state_dict.0.weight", "half"}  # the first has what all others ask the pickle for
    kept = [span for name, span in SPANS.items() if name not in gone]
    kept = [replace(s, shape=(5, 3), length=60) if s.name == "tied.in" else s for s in kept]
    added = [
        TensorSpan("state_dict.2.weight", "F64", (2, 2), 0, 32),
        TensorSpan("second", "BF16", (3,), 0, 6),
    ]
    data = filled(DATA, rebuilt(DATA, [*added, *kept]))
    found, old = loaded(data), loaded(DATA)
    assert found["epoch"] == 3
    assert found["args"] == old["args"]
    assert isinstance(found["state_dict"], OrderedDict)
    assert found["state_dict"]._metadata == old["state_dict"]._metadata
    names = ["0.bias", "1.weight", "1.bias", "2.weight"]
    assert list(found["state_dict"]) == names
    for name in names[:3]:
        assert torch.equal(found["state_dict"][name], old["state_dict"][name])
    assert found["state_dict"]["2.weight"].shape == (2, 2)
    assert found["second"].dtype == torch.bfloat16
    assert list(found) == [*(key for key in old if key != "half"), "second"]
    assert found["tied"]["in"].shape == found["tied"]["out"].shape == (5, 3)
    assert found["tied"]["in"].data_ptr() == found["tied"]["out"].data_ptr()
    assert torch.equal(found["best"][0], old["best"][0])


def test_all_tensors_are_replaced() -> None:
    data = saved({"a": torch.zeros(2), "b": torch.zeros(3, requires_grad=True)})
    spans = spans_of(data).values()
    wide = [replace(span, shape=(300, 70_000, 0, 1), length=0) for span in spans][:1]
    made = rebuilt(data, [*wide, replace(spans_of(data)["b"], shape=(0, 4), length=0)])
    found = loaded(filled(data, made))
    assert found["a"].shape == (300, 70_000, 0, 1)
    assert found["b"].shape == (0, 4)
    assert (found["a"].requires_grad, found["b"].requires_grad) == (False, True)


@pytest.mark.parametrize("others", [(True, True), (True, False), (False, False)])
def test_a_new_tensor_needs_a_gradient_where_all_others_do(others: tuple[bool, bool]) -> None:
    tensors = {n: torch.zeros(2, requires_grad=r) for n, r in zip("ab", others, strict=True)}
    data = saved({"model": tensors, "epoch": 1})
    new = replace(NEW, name="model.c")
    found = loaded(filled(data, rebuilt(data, [*spans_of(data).values(), new])))
    assert found["model"]["c"].requires_grad == all(others)


def test_every_dtype_and_stride_is_written() -> None:
    names = [d.name for d in DTYPES.values() if d.bits >= 8]
    wanted = [
        TensorSpan(name, name, (2, 3), 0, 6 * DTYPES[name].bits // 8, strides=(1, 2))
        for name in names
    ]
    wanted.append(TensorSpan("part", "F32", (2,), 0, 40, offset=3, strides=(1,)))
    data = saved({"old": torch.zeros(2)})
    again = saved(loaded(filled(data, rebuilt(data, wanted))))
    assert [replace(s, start=0) for s in spans_of(again).values()] == wanted


def test_storages_of_gigabytes_are_read_by_torch(tmp_path) -> None:
    wide = [TensorSpan(name, "U8", (5 << 30,), 0, 5 << 30) for name in ("a", "b")]
    data = saved({"a": torch.zeros(2), "c": torch.zeros(2)})
    made = rebuilt(data, [*wide, spans_of(data)["c"]])
    path = tmp_path / "large.pt"
    with path.open("wb") as file:
        for number, piece in enumerate(made.pieces):
            file.write(piece)
            if number < len(made.layout.spans):
                file.seek(made.layout.spans[number].length, 1)
    if path.stat().st_blocks > 1 << 16:
        pytest.skip("files are not sparse here")
    found = torch.load(path, mmap=True, weights_only=True)
    assert {name: tuple(t.shape) for name, t in found.items()} == {
        "a": (5 << 30,),
        "b": (5 << 30,),
        "c": (2,),
    }
    assert not found["b"][-10:].any()


class Pickled:
    """What ``torch.save`` is to be told no dict of plain tensors."""

    def __init__(self) -> None:
        self.weight = torch.zeros(2)


def refused(data: bytes, tensors: Sequence[TensorSpan]) -> str:
    with pytest.raises(FormatError) as caught:
        rebuilt(data, tensors)
    assert caught.value.hint
    prefix = "tensors cannot be added to this PyTorch file, removed or reshaped: "
    assert caught.value.message.startswith(prefix)
    return caught.value.message.removeprefix(prefix)


BODY = dict_of({"w": vector("0", 4), "b": vector("1", 1)})
STORAGES = {"0": bytes(16), "1": b"1234"}
SHARED = torch.zeros(2)
OVERLAPPING = [Record(f"archive/x{n}", b"", size=1000, header=0) for n in range(90)]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (saved([torch.zeros(2)]), "there is no dict that 'new' belongs into"),
        (saved({"a": {"b": torch.zeros(2)}}), "there is no dict that 'new' belongs into"),
        (saved({"a": torch.zeros(2), "new": 3}), "'new' is something else than 'new' needs"),
        (saved(torch.nn.BatchNorm1d(2)), "it holds a whole module"),
        (saved({"a": torch.zeros(2)}, pickle_protocol=4), "its pickle is not of protocol 2"),
        (saved({"a": torch.zeros(2)}, _use_new_zipfile_serialization=False), "before PyTorch 1.6"),
        (2 * DATA, "it is one of torch.distributed.checkpoint"),
        (torch_file(BODY, STORAGES | {"2": b"12"}), "storages of which its pickle does not tell"),
        (torch_file(BODY, STORAGES, byteorder="big"), "its numbers are big-endian"),
        (
            zip_file([*torch_records(BODY, STORAGES), Record("archive/constants.pkl", b"")]),
            "it holds a program of TorchScript",
        ),
        (
            zip_file([*torch_records(BODY, STORAGES), Record("archive/x", b"1", method=8)]),
            "its records are compressed",
        ),
        (zip_file([*torch_records(BODY, STORAGES), *OVERLAPPING]), "its records overlap"),
    ],
)
def test_files_without_a_place_for_a_tensor(data: bytes, reason: str) -> None:
    assert reason in refused(data, [*spans_of(data).values(), NEW])


@pytest.mark.parametrize(
    ("value", "name", "reason"),
    [
        ({"a": [torch.zeros(2)]}, "a.0", "'a.0' is not a plain tensor in one place of a dict"),
        ({"a": torch.nn.Parameter(torch.zeros(2))}, "a", "'a' is not a plain tensor"),
        ({"a": SHARED, "b": {"c": SHARED}}, "a", "'a' is not a plain tensor in one place"),
        ({"a": torch.arange(9), "b": SHARED, "c": SHARED[:1]}, "b", "'c' is a view of 'b'"),
    ],
)
def test_tensors_that_cannot_be_reshaped(value: Any, name: str, reason: str) -> None:
    data = saved(value)
    spans = spans_of(data)
    other = replace(spans[name], shape=(7,), length=28)
    assert reason in refused(data, [other, *(s for s in spans.values() if s.name != name)])


def test_a_tied_tensor_is_not_untied() -> None:
    spans = [*SPANS.values(), replace(SPANS["tied.in"], name="tied.out")]
    assert "'tied.out' is tied to another tensor on one side alone" in refused(DATA, spans)


def test_a_new_tensor_goes_into_the_dict_that_its_name_says() -> None:
    data = saved({"w": torch.zeros(2), "of": {"a": {"w": torch.zeros(2)}}})
    spans = list(spans_of(data).values())
    made = rebuilt(data, [*spans, replace(NEW, name="of.a.b.c")])
    assert list(loaded(filled(data, made))["of"]["a"]) == ["w", "b.c"]
    # There is a dict called "of", in which it would be, and which holds no tensor of its own.
    assert "'of' is something else" in refused(data, [*spans, replace(NEW, name="of.x")])


def test_dtypes_that_torch_lacks_are_refused() -> None:
    for dtype in ("F4", "XYZ", "C64_LAZY"):
        wanted = replace(NEW, dtype=dtype, shape=(16,))
        assert f"'new' has the dtype '{dtype}'" in refused(DATA, [*SPANS.values(), wanted])


def hostile(body: bytes) -> bytes:
    return torch_file(body, STORAGES)


def test_pickles_that_say_a_thing_in_one_place_and_mean_another() -> None:
    twice = dict_of({"w": vector("0", 4) + b"q\1", "b": vector("1", 1) + b"q\1"})
    assert "remembers two things in one place" in refused(hostile(twice), [NEW])
    # A list that is remembered in an item which goes, and asked for in one that stays.
    hooks = vector("0", 4).replace(b"ccollections\nOrderedDict\n(tR", b"]q\1")
    shared = dict_of({"w": hooks, "list": b"h\1", "b": vector("1", 1)})
    kept = [span for span in spans_of(hostile(shared)).values() if span.name == "b"]
    assert "shares objects with what does not" in refused(hostile(shared), kept)


def test_what_it_says_beside_its_tensors() -> None:
    def facts(value: Any) -> bytes:
        return FORMAT.extras(MemorySource(saved(value)))

    plain = facts({"a": torch.zeros(2), "epoch": 1})
    assert facts({"b": torch.ones(3, 3), "epoch": 1, "c": torch.zeros(1)}) == plain
    others = [
        {"a": torch.zeros(2), "epoch": 2},
        {"a": torch.zeros(2), "epoch": 1, "note": "x"},
        {"a": torch.zeros(2, requires_grad=True), "epoch": 1},
        {"a": [torch.zeros(2)], "epoch": 1},
        {"a": torch.zeros(2), "epoch": True},
        {"a": torch.zeros(2), "epoch": 1.0},
        {"a": torch.zeros(2), "epoch": -(10**6000)},
        {"a": torch.zeros(2), "epoch": [1]},
        OrderedDict(a=torch.zeros(2), epoch=1),
    ]
    assert len({plain, *map(facts, others)}) == 1 + len(others)
    body = b"}" + text("a") + b"}" + b"q\1" + b"s"
    recursive = body + b"h\1" + text("a") + b"h\1" + b"s" + b"0" + b"."
    assert FORMAT.extras(MemorySource(torch_file(recursive[:-1], {})))


def test_nothing_of_the_pickle_is_run() -> None:
    evil = global_of("os", "system") + tuple_of(text("false")) + b"R"
    data = hostile(dict_of({"w": vector("0", 4), "evil": evil, "b": vector("1", 1)}))
    made = filled(data, rebuilt(data, [spans_of(data)["b"], NEW]))
    assert evil in made
    with pytest.raises(pickle.UnpicklingError):
        loaded(made)
