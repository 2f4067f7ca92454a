"""Arrays of NumPy in what a pickle describes, and whether numbers stay in its bytes.

Source: ``array_reduce`` in
https://github.com/numpy/numpy/blob/main/numpy/_core/src/multiarray/methods.c.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from git_theta.formats.names import ROOT, Trail
from git_theta.formats.pickle_machine import Global, Object, Raw
from git_theta.formats.torch_tensors import QUANTIZED, children

_MODULES = ("numpy", "numpy.core.multiarray", "numpy._core.multiarray", "numpy.core.numeric")
_NUMPY = {*_MODULES, "numpy._core.numeric"}
# Bytes before protocol 3, as text; from how many on they are more than a number or two.
_AS_TEXT, _LONG = Global("_codecs", "encode"), 64
# What a pickle of protocol 2 that keeps numbers says somewhere.
_SIGNS = (b"_reconstruct", b"_codecs", QUANTIZED.name.encode())
_DEEPEST = 256


class PickledArray(NamedTuple):
    """An array as it is pickled. ``raw`` are its bytes if it is ``Raw``, else something else."""

    raw: Any
    kind: Any
    shape: Any
    is_fortran: bool


def array_of(node: Any) -> PickledArray | None:
    """Return the array that an object is, if it is one of NumPy's."""
    call, args, state = node.call, node.args, node.state
    if type(call) is not Global or call.module not in _NUMPY or type(args) is not tuple:
        return None
    if call.name == "_reconstruct" and type(state) is tuple and len(state) == 5:
        return PickledArray(_bytes(state[4]), state[2], state[1], state[3] is True)
    if call.name == "_frombuffer" and len(args) == 4:
        return PickledArray(_bytes(args[0]), args[1], args[2], args[3] == "F")
    return None


def _bytes(raw: Any) -> Any:
    is_wrapped = type(raw) is Object and type(raw.args) is tuple and raw.args
    return raw.args[0] if is_wrapped else raw  # bytearray(b"...")


def is_empty(array: PickledArray) -> bool:
    """Return whether an array has no elements."""
    return type(array.shape) is tuple and 0 in array.shape


def walk(root: Any) -> Iterator[tuple[Any, Trail]]:
    """Yield every object and long bytes below ``root``, with the way there, in the pickle's order.

    Each once. What lies too deep to be looked into is yielded as it is.
    """
    waiting, entered = [(root, ROOT)], set()
    while waiting:
        node, trail = waiting.pop()
        if id(node) in entered:
            continue
        if is_too_deep(trail):
            yield node, trail
            continue
        entered.add(id(node))
        if type(node) in (Object, Raw):
            yield node, trail
        below = [(child, trail.below(segment)) for segment, child in children(node)]
        waiting += reversed(below)


def is_too_deep(trail: Trail) -> bool:
    """Return whether what ``walk`` yielded with ``trail`` was not looked into."""
    return trail.depth > _DEEPEST


def keeps_numbers(pickled: bytes, root: Any) -> bool:
    """Return whether numbers lie in ``pickled``, which was read as ``root``.

    They do in arrays of NumPy, in long bytes, and as the scales of quantized tensors.
    """
    if pickled[1:2] == b"\x02" and not any(sign in pickled for sign in _SIGNS):
        return False  # most of all: nothing has to be looked at
    return any(is_too_deep(trail) or _is_kept(node) for node, trail in walk(root))


def _is_kept(node: Any) -> bool:
    if type(node) is Raw or node.call == QUANTIZED:
        return True
    if node.call == _AS_TEXT and type(node.args) is tuple and node.args:
        return type(node.args[0]) is str and len(node.args[0]) >= _LONG
    array = array_of(node)
    return array is not None and not is_empty(array)
