from __future__ import annotations

import pytest

from git_theta.errors import FormatError
from git_theta.formats import names
from git_theta.formats.names import Names
from git_theta.formats.pickle_reader import read_pickle
from git_theta.formats.torch_tensors import View, find_views
from git_theta.formats.torch_types import Element
from tests.support.formats import (
    call,
    dict_of,
    global_of,
    integer,
    list_of,
    pickled,
    storage,
    tensor,
    text,
    tuple_of,
    vector,
)


def views(body: bytes) -> list[View]:
    return list(find_views(read_pickle(pickled(body)), Names()))


def named(body: bytes) -> dict[str, str]:
    """Names of the tensors found, and the keys of their storages."""
    return {view.name: view.storage.key for view in views(body)}


def test_a_tensor():
    (view,) = views(dict_of({"w": tensor(storage("7", 6), (2, 3), (3, 1), 5)}))
    assert view.name == "w"
    assert (view.storage.key, view.storage.capacity) == ("7", 6)
    assert view.element == Element("F32", 4)
    assert (view.shape, view.offset, view.strides) == ((2, 3), 5, (3, 1))


def test_names_are_paths():
    body = dict_of(
        {
            "model": dict_of({"layer.0": dict_of({"w": vector("0", 1)})}),
            "list": list_of(integer(1), vector("1", 1)),
            "tuple": tuple_of(text("x"), tuple_of(vector("2", 1))),
            "": vector("3", 1),
        }
    )
    assert named(body) == {"model.layer.0.w": "0", "list.1": "1", "tuple.1.0": "2", "": "3"}


@pytest.mark.parametrize(
    ("key", "segment"),
    [
        (integer(-3), "-3"),
        (integer(1 << 70), "0"),
        (b"N", "None"),
        (b"\x88", "True"),
        (b"G?\xf8\x00\x00\x00\x00\x00\x00", "1.5"),
        (tuple_of(integer(1)), "0"),
        (text("x\ud800"), "x\ud800"),
    ],
)
def test_keys_that_are_not_text(key: bytes, segment: str):
    assert list(named(b"}" + key + vector("0", 1) + b"s")) == [segment]


def test_a_lone_tensor_has_a_name():
    assert named(vector("0", 1)) == {"tensor": "0"}


def test_names_that_meet_are_numbered():
    body = dict_of(
        {
            "a.b": vector("0", 1),
            "a": dict_of({"b": vector("1", 1)}),
            "a.b#2": vector("2", 1),
        }
    )
    assert named(body) == {"a.b": "0", "a.b#2": "1", "a.b#2#2": "2"}


def test_a_module_has_the_names_of_its_state_dict():
    layer = dict_of({"_parameters": dict_of({"weight": vector("0", 1)})})
    module = dict_of({"_modules": dict_of({"fc": call("m", "Linear") + layer + b"b"})})
    assert named(call("m", "Net") + module + b"b") == {"fc.weight": "0"}


def test_parameters_and_subclasses_are_looked_into():
    hooks = call("collections", "OrderedDict")
    inner = vector("0", 1)
    state = dict_of({"extra": vector("1", 1)})
    rebuild = global_of("torch._utils", "_rebuild_tensor_v2")
    args = tuple_of(storage("3", 2), integer(0), tuple_of(integer(2)), tuple_of(integer(1)))
    body = dict_of(
        {
            "p": call("torch._utils", "_rebuild_parameter", inner, b"\x88", hooks),
            "s": call(
                "torch._utils",
                "_rebuild_parameter_with_state",
                vector("2", 1),
                b"\x88",
                hooks,
                state,
            ),
            "t": call(
                "torch._tensor", "_rebuild_from_type_v2", rebuild, global_of("m", "T"), args, b"N"
            ),
            "w": call(
                "torch._tensor",
                "_rebuild_from_type_v2",
                global_of("torch._utils", "_rebuild_wrapper_subclass"),
                global_of("m", "T"),
                tuple_of(b"N"),
                dict_of({"scale": vector("4", 1)}),
            ),
        }
    )
    assert named(body) == {"p": "0", "s": "2", "s.extra": "1", "t": "3", "w.scale": "4"}


def test_parameters_within_parameters_are_looked_into_four_deep():
    body = vector("0", 1)
    for _ in range(4):
        body = call("torch._utils", "_rebuild_parameter", body)
    assert named(body) == {"tensor": "0"}
    # Further in it is a tensor like one in any other object.
    assert named(call("torch._utils", "_rebuild_parameter", body)) == {"0": "0"}


def test_objects_with_arguments_items_and_state():
    made = call("m", "C", integer(1), vector("0", 1))
    filled = made + b"(" + vector("1", 1) + b"e(" + text("k") + vector("2", 1) + b"u"
    body = filled + tuple_of(b"N", dict_of({"slot": vector("3", 1)})) + b"b"
    assert named(body) == {"1": "0", "0": "1", "k": "2", "1.slot": "3"}


def test_sparse_tensors_have_named_parts():
    layout = call("torch.serialization", "_get_layout", text("torch.sparse_coo"))
    parts = tuple_of(vector("0", 1, "LongStorage"), vector("1", 1), tuple_of())
    sparse = call("torch._utils", "_rebuild_sparse_tensor", layout, parts)
    assert named(dict_of({"s": sparse})) == {"s.indices": "0", "s.values": "1"}
    unknown = call("torch._utils", "_rebuild_sparse_tensor", b"N", parts)
    assert named(dict_of({"s": unknown})) == {"s.1.0": "0", "s.1.1": "1"}


def test_a_shared_tensor_has_a_name_for_each_path():
    body = b"}(" + text("a") + vector("0", 1) + b"q\x00" + text("b") + b"h\x00" + b"u"
    assert named(body) == {"a": "0", "b": "0"}


def test_a_shared_container_is_entered_once():
    shared = dict_of({"x": vector("0", 1)})
    body = b"}(" + text("a") + shared + b"q\x00" + text("b") + b"h\x00" + b"u"
    assert named(body) == {"a.x": "0"}


def test_a_container_in_itself():
    body = b"}q\x00(" + text("self") + b"h\x00" + text("x") + vector("0", 1) + b"u"
    assert named(body) == {"x": "0"}


def test_storages_without_a_tensor():
    (view,) = views(dict_of({"s": storage("0", 3, "HalfStorage")}))
    assert (view.name, view.element, view.shape) == ("s", Element("F16", 2), (3,))


@pytest.mark.parametrize("kind", ["QUInt4x2Storage", "SomethingStorage"])
def test_unknown_storages_have_no_element(kind: str):
    (view,) = views(vector("0", 3, kind))
    assert view.element is None


@pytest.mark.parametrize(
    ("dtype", "element"),
    [
        (global_of("torch", "uint16"), Element("U16", 2)),
        (global_of("torch", "float999"), None),
        (global_of("numpy", "uint16"), None),
        (integer(3), None),
    ],
)
def test_tensors_that_name_their_dtype(dtype: bytes, element: Element | None):
    sizes = tuple_of(integer(2)), tuple_of(integer(1))
    stored = storage("0", 4, "UntypedStorage")
    args = (stored, integer(0), *sizes, b"\x89", b"N", dtype)
    (view,) = views(call("torch._utils", "_rebuild_tensor_v3", *args))
    assert view.element == element
    assert view.storage.element == Element("U8", 1)


@pytest.mark.parametrize(
    "stored",
    [
        b"N",
        tuple_of() + b"Q",
        b"NQ",
        tuple_of(text("module"), b"N", b"N", b"N", b"N") + b"Q",
        tuple_of(text("storage"), text("F"), text("0"), b"N", integer(1)) + b"Q",
        tuple_of(text("storage"), global_of("torch", "F"), integer(0), b"N", integer(1)) + b"Q",
        tuple_of(text("storage"), global_of("torch", "F"), text("0"), b"N", b"\x88") + b"Q",
    ],
)
def test_what_is_no_storage_is_passed_over(stored: bytes):
    assert named(tensor(stored, (1,), (1,))) == {}
    assert named(stored) == {}


@pytest.mark.parametrize(
    "body",
    [
        call("torch._utils", "_rebuild_tensor_v2"),
        call("torch._utils", "_rebuild_parameter"),
        global_of("torch._utils", "_rebuild_parameter") + b"NR",
        global_of("torch._utils", "_rebuild_tensor_v2") + b"NR",
        b"NNR",
        b"}" + tuple_of() + b"R",
    ],
)
def test_calls_without_arguments_are_passed_over(body: bytes):
    assert named(body) == {}


SIZE = call("torch", "Size", tuple_of(integer(2)))


def test_sizes_may_be_of_a_class_of_their_own():
    args = (storage("0", 2), integer(0), SIZE, tuple_of(integer(1)))
    (view,) = views(call("torch._utils", "_rebuild_tensor", *args))
    assert view.shape == (2,)


@pytest.mark.parametrize(
    ("offset", "shape", "strides"),
    [
        (b"\x88", tuple_of(), tuple_of()),
        (integer(0), integer(1), tuple_of()),
        (integer(0), tuple_of(), b"N"),
        (integer(0), tuple_of(b"\x88"), tuple_of(integer(1))),
        (integer(0), tuple_of(integer(-1)), tuple_of(integer(1))),
        (integer(0), tuple_of(integer(1)), tuple_of(integer(1 << 62))),
        (integer(0), tuple_of(*[integer(1)] * 65), tuple_of(*[integer(1)] * 65)),
    ],
)
def test_sizes_that_are_none_are_refused(offset: bytes, shape: bytes, strides: bytes):
    args = (storage("0", 2), offset, shape, strides)
    with pytest.raises(FormatError, match="the tensor 'tensor' has no valid shape"):
        views(call("torch._utils", "_rebuild_tensor", *args))


def test_depth_is_bounded():
    def nested(depth: int) -> bytes:
        return b"](" * depth + vector("0", 1) + b"e" * depth

    assert len(views(nested(256))) == 1
    assert views(nested(257)) == []


def test_names_are_bounded(monkeypatch: pytest.MonkeyPatch):
    body = dict_of({"abc": vector("0", 1), "def": vector("0", 1)})
    monkeypatch.setattr(names, "MAX_NAMES", 6)
    assert len(views(body)) == 2
    monkeypatch.setattr(names, "MAX_NAMES", 5)
    with pytest.raises(FormatError, match="more tensors"):
        views(body)
    monkeypatch.undo()
    monkeypatch.setattr(names, "MAX_TENSORS", 1)
    with pytest.raises(FormatError, match="more tensors"):
        views(body)
    monkeypatch.undo()
    with pytest.raises(FormatError, match="more than 65536 characters"):
        views(dict_of({"x" * 65536: vector("0", 1)}))
