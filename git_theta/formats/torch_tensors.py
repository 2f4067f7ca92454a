"""Finds the tensors in what a PyTorch pickle describes, and names them by their path.

A tensor is pickled as a call of one of the ``_rebuild_*`` functions of ``torch._utils``, whose
arguments begin with its storage, offset, size and stride; the storage is the persistent id
``("storage", class, key, device, count)``. Source: "Serialization semantics" in PyTorch's notes
(https://docs.pytorch.org/docs/stable/notes/serialization.html), and what ``torch.save`` writes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from git_theta.errors import FormatError
from git_theta.formats.checks import MAX_DIMENSIONS, MAX_INT, quote
from git_theta.formats.names import ROOT, Names, Trail
from git_theta.formats.pickle_machine import Global, Object, Pairs, Persistent
from git_theta.formats.torch_types import Element, dtype_named, storage_named

_MAX_DEPTH = 256
# What a whole module pickles around its tensors: left out, its names are those of its state dict.
TRANSPARENT = {"_parameters", "_buffers", "_modules"}
# Of (tensor, requires_grad, hooks, state)
_PARAMETERS = {
    Global("torch._utils", "_rebuild_parameter"),
    Global("torch._utils", "_rebuild_parameter_with_state"),
}
# Of (function, class, its arguments, state)
_TYPED = {
    Global("torch._tensor", "_rebuild_from_type"),
    Global("torch._tensor", "_rebuild_from_type_v2"),
}
# Of the same as strided ones, where scales and zero points follow.
QUANTIZED = Global("torch._utils", "_rebuild_qtensor")
# Of (storage, offset, size, stride, ...)
STRIDED = {
    Global("torch._utils", "_rebuild_tensor"),
    Global("torch._utils", "_rebuild_tensor_v2"),
    Global("torch._utils", "_rebuild_tensor_v3"),
    QUANTIZED,
}
_V3 = Global("torch._utils", "_rebuild_tensor_v3")
# Where they say what more there is to a tensor: that it is conjugated or negated when it is used.
_METADATA = {Global("torch._utils", "_rebuild_tensor_v2"): 6, _V3: 7}
_SPARSE = Global("torch._utils", "_rebuild_sparse_tensor")
_SPARSE_PARTS = {
    "torch.sparse_coo": ("indices", "values"),
    "torch.sparse_csr": ("crow_indices", "col_indices", "values"),
    "torch.sparse_csc": ("ccol_indices", "row_indices", "values"),
    "torch.sparse_bsr": ("crow_indices", "col_indices", "values"),
    "torch.sparse_bsc": ("ccol_indices", "row_indices", "values"),
}


class Storage(NamedTuple):
    """The record ``key``, said to hold ``capacity`` elements."""

    key: str
    element: Element | None
    capacity: int


class View(NamedTuple):
    """A tensor called ``name`` in a storage; ``offset`` and ``strides`` are in elements.

    ``element`` is ``None`` for a dtype that is unknown or not whole bytes. ``node`` is what the
    pickle has of it.
    """

    name: str
    storage: Storage
    element: Element | None
    shape: tuple[int, ...]
    offset: int
    strides: tuple[int, ...]
    node: Any


_Step = tuple[Any, Trail]
_INNER = (list, Pairs, tuple, Object, Persistent)


def find_views(root: Any, names: Names) -> Iterator[View]:
    """Yield every tensor below ``root``, in the pickle's order, each path at most once.

    A container that is reached by several paths is entered by the first only: shared and
    recursive structures cost no more than their size. A tensor is named by each path to it.
    """
    entered: set[int] = set()
    waiting: list[Iterator[_Step]] = [iter([(root, ROOT)])]
    while waiting:
        step = next(waiting[-1], None)
        if step is None:
            waiting.pop()
            continue
        node, trail = step
        tensor, states = _unwrap(node)
        view = _view(tensor, trail, names)
        if view is not None:
            yield view
        if id(node) not in entered and trail.depth < _MAX_DEPTH:
            entered.add(id(node))
            waiting.append(_inside(tensor if view is None else None, states, trail))


def _inside(node: Any, states: list[Any], trail: Trail) -> Iterator[_Step]:
    for state in states:
        yield state, trail.below(None)
    for segment, child in children(node):
        yield child, trail.below(segment)


def _unwrap(node: Any) -> tuple[Any, list[Any]]:
    """Return the tensor inside parameters and subclasses, and the states that come with it."""
    states: list[Any] = []
    # Bounded, because a hostile parameter can contain itself; an honest one is two deep at most.
    for _ in range(4):
        wrapped = _wrapped(node)
        if wrapped is None:
            break
        node = wrapped[0]
        states += wrapped[1]
    return node, states


def _wrapped(node: Any) -> tuple[Any, tuple[Any, ...]] | None:
    """Return what a parameter or subclass is made of: its tensor, and its state if it has one."""
    if type(node) is not Object or type(node.call) is not Global or type(node.args) is not tuple:
        return None
    if node.call in _PARAMETERS and node.args:
        return node.args[0], node.args[3:4]
    if node.call in _TYPED and len(node.args) > 2:
        return Object(node.args[0], node.args[2]), node.args[3:4]
    return None


def children(node: Any) -> Iterator[tuple[str | None, Any]]:
    """Yield what a container or object holds, each with the step to it."""
    if type(node) is Pairs:
        yield from _values(node)
    elif isinstance(node, (list, tuple)):
        yield from _numbered(node)
    elif type(node) is Object:
        yield from _object_children(node)


def _object_children(node: Object) -> Iterator[tuple[str | None, Any]]:
    if type(node.args) is tuple:
        parts = _sparse_parts(node)
        yield from zip(parts, node.args[1], strict=False) if parts else _numbered(node.args)
    if node.items is not None:
        yield from _numbered(node.items)
    if node.pairs is not None:
        yield from _values(node.pairs)
    if isinstance(node.state, _INNER):
        yield None, node.state


def _sparse_parts(node: Object) -> tuple[str, ...]:
    if node.call != _SPARSE or len(node.args) != 2 or type(node.args[1]) is not tuple:
        return ()
    layout = node.args[0]
    name = layout.args[0] if type(layout) is Object and layout.args else None
    return _SPARSE_PARTS.get(name, ()) if type(name) is str else ()


def _numbered(items: list[Any] | tuple[Any, ...]) -> Iterator[tuple[str | None, Any]]:
    return ((str(at), item) for at, item in enumerate(items) if isinstance(item, _INNER))


def _values(pairs: Pairs) -> Iterator[tuple[str | None, Any]]:
    for at in range(0, len(pairs), 2):
        key, value = pairs[at], pairs[at + 1]
        if isinstance(value, _INNER):
            yield _segment(key, at // 2), value


def _segment(key: Any, position: int) -> str | None:
    if type(key) is str:
        return None if key in TRANSPARENT else key
    if key is None or type(key) in (bool, float) or (type(key) is int and abs(key) < 1 << 64):
        return str(key)
    return str(position)


def _view(node: Any, trail: Trail, names: Names) -> View | None:
    if type(node) is Persistent:
        storage = _storage(node)
        if storage is None:
            return None
        name = names.unique(trail.name())
        return View(name, storage, storage.element, (storage.capacity,), 0, (1,), node)
    if type(node) is not Object or type(node.call) is not Global or node.call not in STRIDED:
        return None
    args = node.args
    if type(args) is not tuple or len(args) < 4 or (storage := _storage(args[0])) is None:
        return None
    name = names.unique(trail.name())
    shape, strides = _integers(args[2]), _integers(args[3])
    if type(args[1]) is not int or shape is None or strides is None:
        raise FormatError(f"the tensor {quote(name)} has no valid shape")
    element = _element(node.call, args, storage)
    return View(name, storage, element, shape, args[1], strides, node)


def _storage(node: Any) -> Storage | None:
    pid = node.pid if type(node) is Persistent else None
    if type(pid) is not tuple or len(pid) < 5 or pid[0] != "storage":
        return None
    if pid[5:] not in ((), (None,)):
        return None  # a view of another storage, from before PyTorch 0.4
    kind, key, count = pid[1], pid[2], pid[4]
    if type(kind) is not Global or type(key) is not str or type(count) is not int:
        return None
    return Storage(key, storage_named(kind.name), count)


def _element(call: Global, args: tuple[Any, ...], storage: Storage) -> Element | None:
    element = storage.element
    if call == _V3:
        named = len(args) > 6 and type(args[6]) is Global and args[6].module == "torch"
        element = dtype_named(args[6].name) if named else None
    if element is not None and any(args[_METADATA.get(call, len(args)) :][:1]):
        # A dtype of its own: its bytes are not its values, and nothing can compute with them.
        return element._replace(dtype=f"{element.dtype}_LAZY")
    return element


def _integers(node: Any) -> tuple[int, ...] | None:
    if type(node) is Object and type(node.args) is tuple and len(node.args) == 1:
        node = node.args[0]  # torch.Size((2, 3))
    # Checked here and not with the layout only: the products of a hostile shape have no end.
    if type(node) is not tuple or len(node) > MAX_DIMENSIONS:
        return None
    if any(type(number) is not int or not 0 <= number < MAX_INT for number in node):
        return None
    return node
