"""What the pickle of a PyTorch file says beside its tensors."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

from git_theta.formats.pickle_machine import Global, Object, Pairs, Persistent
from git_theta.formats.pickle_reader import read_pickle
from git_theta.formats.torch_tensors import QUANTIZED, STRIDED

_GRADIENT = 4  # of the arguments of a tensor: whether it requires one


def facts(pickled: bytes) -> bytes:
    """Return a digest of what the pickle says beside plain tensors in dicts.

    Equal for state dicts with other tensors and equal everything else.
    """
    if pickled[1:2] != b"\x02":  # later protocols have bytes, of which not all are read
        return pickled
    digest = hashlib.sha256()
    seen: dict[int, int] = {}
    waiting = [read_pickle(pickled)]
    while waiting:
        node = waiting.pop()
        if type(node) in (list, tuple, Pairs, Object) and not _is_tensor(node):
            said = _seen(node, seen, waiting)
        else:
            said = _scalar(node)
        digest.update(said + b"\n")
    return digest.digest()


def _seen(node: Any, seen: dict[int, int], waiting: list[Any]) -> bytes:
    """Return what is said of a container; its parts are said next, unless it was seen before."""
    if id(node) in seen:
        return b"#%d" % seen[id(node)]
    seen[id(node)] = len(seen)
    parts = list(_parts(node))
    waiting += reversed(parts)
    return f"{type(node).__name__} {len(parts)}".encode()


def _parts(node: Any) -> Iterator[Any]:
    if type(node) is Object:
        yield from (node.call, node.args, node.items, node.state)
        node = node.pairs or Pairs()
    if type(node) is not Pairs:
        yield from node
        return
    for key, value in zip(node[::2], node[1::2], strict=True):
        if not _is_tensor(value) or _needs_gradient(value):
            yield from (key, value)


def _is_tensor(node: Any) -> bool:
    """Return whether all that is said of a tensor is in the layout: of quantized ones it is not."""
    is_strided = type(node) is Object and type(node.call) is Global and node.call in STRIDED
    return is_strided and node.call != QUANTIZED


def _needs_gradient(tensor: Object) -> bool:
    return type(tensor.args) is tuple and tensor.args[_GRADIENT:][:1] == (True,)


def _scalar(node: Any) -> bytes:
    if type(node) is Persistent or _is_tensor(node):
        return b"tensor"
    # A decimal of thousands of digits is refused by Python.
    return (hex(node) if type(node) is int else ascii(node)).encode()
