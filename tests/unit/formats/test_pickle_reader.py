from __future__ import annotations

import collections
import pickle
import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from git_theta.errors import FormatError
from git_theta.formats import pickle_reader
from git_theta.formats.pickle_machine import Global, Object, Pairs, Persistent, Raw
from git_theta.formats.pickle_reader import read_pickle
from tests.support.formats import call, integer, list_of, pickled, text, tuple_of

PROTOCOLS = range(2, pickle.HIGHEST_PROTOCOL + 1)


def plain(value: Any) -> Any:
    """What the reader gives for a value that needs no class."""
    if isinstance(value, dict):
        return [plain(item) for pair in value.items() for item in pair]
    if isinstance(value, (list, tuple)):
        return type(value)(plain(item) for item in value)
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    return b"" if isinstance(value, (bytes, bytearray)) else value


SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(1 << 40), 1 << 40)
    | st.floats(allow_nan=False)
    | st.text(st.characters())
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@settings(max_examples=200)
@given(VALUES, st.sampled_from(PROTOCOLS))
def test_plain_values_are_read(value: Any, protocol: int):
    assert read_pickle(pickle.dumps(value, protocol)) == plain(value)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    "value",
    [
        [0, 255, 256, 65535, 65536, -1, 2**31 - 1, -(2**31), 2**31, 2**2100, -(2**2100)],
        "x" * 300,
        "x" * 70_000,
        "\ud800 lone",
        list(range(3000)),
        dict.fromkeys(range(3000)),
        tuple(range(10)),
    ],
    ids=lambda value: str(value)[:10],
)
def test_every_width(value: Any, protocol: int):
    assert read_pickle(pickle.dumps(value, protocol)) == plain(value)


@pytest.mark.parametrize("protocol", [4, 5])
def test_what_only_later_protocols_write(protocol: int):
    value = [b"x" * 9, {1, 2}, frozenset((3, 4)), "end"]
    assert read_pickle(pickle.dumps(value, protocol)) == plain(value)
    data = pickle.dumps([b"y" * 300, bytes(range(256)) * 300], protocol)
    for raw, content in zip(read_pickle(data), (b"y" * 300, bytes(range(256)) * 300), strict=True):
        assert type(raw) is Raw
        assert data[raw.start : raw.start + raw.length] == content
    assert read_pickle(pickle.dumps(bytearray(9), 5)) == b""
    # Lengths of 8 bytes are for texts of 4 GiB; the opcodes take any length.
    assert read_pickle(pickled(b"\x8d" + struct.pack("<Q", 2) + b"hi")) == "hi"
    assert read_pickle(pickled(b"\x8e" + struct.pack("<Q", 2) + b"hi")) == b""


class Slots:
    __slots__ = ("value",)


class KeywordOnly:
    def __new__(cls, *, value=0):
        return super().__new__(cls)

    def __getnewargs_ex__(self):
        return (), {"value": 1}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_classes_become_inert(protocol: int):
    made = collections.OrderedDict(a=1)
    made.note = 2
    found = read_pickle(pickle.dumps(made, protocol))
    assert type(found) is Object
    assert found.call == Global("collections", "OrderedDict")
    assert (found.args, found.pairs, found.state) == ((), ["a", 1], ["note", 2])
    queue = read_pickle(pickle.dumps(collections.deque([1, 2]), protocol))
    assert (queue.call, queue.items) == (Global("collections", "deque"), [1, 2])
    slots = Slots()
    slots.value = 7
    found = read_pickle(pickle.dumps(slots, protocol))
    assert (found.call.name, found.state) == ("Slots", (None, ["value", 7]))


def test_keyword_arguments():
    found = read_pickle(pickle.dumps(KeywordOnly(), 4))
    assert (found.call.name, found.args) == ("KeywordOnly", ((), ["value", 1]))


class _Outside(pickle.Pickler):
    def persistent_id(self, obj: Any) -> Any:
        return ("storage", 3) if isinstance(obj, Slots) else None


def test_persistent_ids(tmp_path):
    path = tmp_path / "p"
    with path.open("wb") as file:
        _Outside(file, 2).dump([Slots()])
    (found,) = read_pickle(path.read_bytes())
    assert type(found) is Persistent
    assert found.pid == ("storage", 3)


def test_shared_and_recursive_containers_stay_one():
    shared: list[Any] = [1]
    recursive: dict[str, Any] = {"one": shared, "two": shared}
    recursive["self"] = recursive
    found = read_pickle(pickle.dumps(recursive, 2))
    assert type(found) is Pairs
    assert found[1] is found[3]
    assert found[5] is found


def test_a_tuple_in_itself():
    # Written with POP_MARK: the tuple is found in the memo after its parts were pushed.
    inner: list[Any] = []
    outer = (inner, 1, 2, 3)
    inner.append(outer)
    found = read_pickle(pickle.dumps(outer, 2))
    assert found[0][0] is found


def test_stack_opcodes():
    assert read_pickle(pickled(integer(1) + b"2\x86")) == (1, 1)
    assert read_pickle(pickled(integer(1) + integer(2) + b"0")) == 1
    assert read_pickle(pickled(b"(" + text("k") + text("v") + b"1" + b"N")) is None
    assert read_pickle(pickled(b"]Nr\x05\x00\x00\x000j\x05\x00\x00\x00a")) == [None]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "no protocol header"),
        (b"I1\n.", "no protocol header"),
        (b"\x80\x06N.", "protocol 6"),
        (b"\x80\x02I1\n.", "opcode 0x49 at byte 2"),
        (b"\x80\x02\x97.", "opcode 0x97"),
        (b"\x80\x02N", "cut off"),
        (b"\x80\x02.", "cut off"),
        (b"\x80", "cut off"),
        (pickled(b"t"), "cut off"),
        (pickled(b"R"), "cut off"),
        (pickled(b"N\x86"), "cut off"),
        (pickled(b"h\x00"), "takes what it never put"),
        (pickled(b"Nq\x05h\x04"), "takes what it never put"),
        (pickled(b"X\xff\xff\xff\xff"), "cut off"),
        (pickled(b"X\x01\x00\x00"), "cut off"),
        (pickled(b"B\xff\xff\xff\xff"), "cut off"),
        (pickled(b"cmodule"), "cut off"),
        (pickled(b"X\x01\x00\x00\x00\xff"), "not UTF-8"),
        (pickled(b"c\xff\n\n"), "not UTF-8"),
        (pickled(b"NNa"), "appends to something that is not a list"),
        (pickled(b"N(e"), "appends to something that is not a list"),
        (pickled(b"NNNs"), "item of something that is not a dict"),
        (pickled(b"}(Nu"), "a key without a value"),
        (pickled(b"NNb"), "state of something that is not an object"),
        (pickled(b"NN\x93"), "global by something that is not text"),
        (pickled(b"Nr\xff\xff\xff\xff"), "remembers more"),
    ],
    ids=lambda value: repr(value[:12]),
)
def test_what_is_wrong_is_named(data: bytes, reason: str):
    with pytest.raises(FormatError) as caught:
        read_pickle(data)
    assert reason in caught.value.message


@pytest.mark.parametrize(("opcode", "allowed"), [(b"N", 100), (b"}", 25), (b"Gxxxxxxxx", 50)])
def test_the_work_is_bounded(opcode: bytes, allowed: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(pickle_reader, "_MAX_COST", 101)  # the protocol costs 1
    read_pickle(pickled(opcode * allowed))
    with pytest.raises(FormatError, match="more parts than any checkpoint needs"):
        read_pickle(pickled(opcode * (allowed + 1)))


def test_the_size_is_bounded(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(pickle_reader, "MAX_BYTES", 3)
    with pytest.raises(FormatError, match="too large"):
        read_pickle(pickled(b"N"))


def test_nothing_is_called():
    found = read_pickle(pickled(list_of(call("os", "system", text("exit 1")), tuple_of())))
    assert (found[0].call, found[0].args) == (Global("os", "system"), ("exit 1",))
