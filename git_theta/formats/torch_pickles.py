"""Puts other tensors into the pickle of a state dict."""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import count
from typing import Any, NamedTuple

from git_theta.core.dtypes import DTYPES
from git_theta.core.layout import Alias, Layout, TensorSpan
from git_theta.errors import FormatError
from git_theta.formats.checks import quote
from git_theta.formats.names import Names
from git_theta.formats.pickle_edits import Edit, Item, Trace
from git_theta.formats.pickle_machine import Pairs
from git_theta.formats.torch_spans import contiguous
from git_theta.formats.torch_tensors import TRANSPARENT, View, find_views
from git_theta.formats.torch_types import BY_DTYPE, BY_STORAGE, PACKED_FLOAT4

_HINT = "save all sides as safetensors, in which tensors can be added, removed and reshaped"
_GRADIENT = 4  # of the arguments of a tensor: whether it requires one


def with_tensors(pickled: bytes, old: Layout, tensors: Sequence[TensorSpan]) -> bytes:
    """Return the pickle of a file of layout ``old`` with ``tensors`` in place of its own.

    They are added to, removed from and replaced in the dicts that hold tensors; names that are
    tied to one go with it. All else stays byte for byte. Raises ``FormatError`` where this cannot
    be done.
    """
    try:
        return _Edits(Trace(pickled), old, tensors).result()
    except FormatError as error:
        raise refusal(error.message, error.hint) from None


def refusal(reason: str, hint: str | None = None) -> FormatError:
    """Return the error for tensors that cannot be written into a PyTorch file."""
    return FormatError(
        f"tensors cannot be added to this PyTorch file, removed or reshaped: {reason}",
        hint=hint or _HINT,
    )


class _Edits:
    def __init__(self, trace: Trace, old: Layout, tensors: Sequence[TensorSpan]) -> None:
        self._trace = trace
        self._wanted = {span.name: span for span in tensors}
        self._spans = {span.name: span for span in old.spans}
        self._aliases = {alias.name: alias for alias in old.aliases}
        self._views = {view.name: view for view in find_views(trace.root, Names())}
        if self._views.keys() != self._spans.keys() | self._aliases.keys():
            raise FormatError("it has storages of which its pickle does not tell all")
        if any(item.key in TRANSPARENT for item in trace.items if type(item.key) is str):
            raise FormatError("it holds a whole module", hint="save the module's state_dict()")
        uses = Counter(id(item.value) for item in trace.items)
        self._items = {id(i.value): i for i in trace.items if uses[id(i.value)] == 1}
        self._keys: dict[str, bytes] = {}
        taken = {view.storage.key for view in self._views.values()}
        self._free = (str(number) for number in count() if str(number) not in taken)

    def result(self) -> bytes:
        """Return the edited pickle."""
        return self._trace.edited([*self._changes(), *self._additions()])

    def _changes(self) -> Iterator[Edit]:
        for name, view in self._views.items():
            alias = self._aliases.get(name)
            old = self._spans[alias.of if alias else name]
            new = self._wanted.get(old.name)
            if new is None:
                item = self._item(view)
                yield Edit(item.start, item.stop, b"")
            elif (new.length, _geometry(new)) != (old.length, _geometry(old)):
                if alias and _geometry(alias) != _geometry(old):
                    raise FormatError(f"{quote(name)} is a view of {quote(old.name)}")
                data = self._tensor(new, needs_gradient=_needs_gradient(view.node))
                yield Edit(*self._item(view).place, data)

    def _item(self, view: View) -> Item:
        item = self._items.get(id(view.node))
        if item is None:
            raise FormatError(
                f"{quote(view.name)} is not a plain tensor in one place of a dict",
                hint="save a state_dict() of plain tensors",
            )
        return item

    def _additions(self) -> Iterator[Edit]:
        homes = self._homes()
        added: dict[int, bytes] = {}
        for name, span in self._wanted.items():
            if name in self._spans:
                continue
            if name in self._aliases:
                raise FormatError(f"{quote(name)} is tied to another tensor on one side alone")
            holder, key = _home(homes, name)
            item = _text(key) + self._tensor(span, needs_gradient=self._all_need_gradient(holder))
            added[id(holder)] = added.get(id(holder), b"(") + item
        for identity, items in added.items():
            end = self._trace.ends[identity]
            yield Edit(end, end, items + b"u")

    def _all_need_gradient(self, holder: Any) -> bool:
        """Return whether all tensors in a dict do: what is said of a new one is not known here."""
        nodes = {id(view.node): view.node for view in self._views.values()}
        return all(
            _needs_gradient(nodes[identity])
            for identity, item in self._items.items()
            if item.holder is holder and identity in nodes
        )

    def _homes(self) -> dict[str, Any]:
        """Return the dicts that hold tensors, by what the names of these begin with."""
        homes: dict[str, Any] = {}
        for name, view in self._views.items():
            item = self._items.get(id(view.node))
            if item and type(item.key) is str and name.endswith(item.key):
                prefix = name[: len(name) - len(item.key)]
                if homes.setdefault(prefix, item.holder) is not item.holder:
                    raise FormatError(f"two dicts hold tensors called {quote(prefix)}...")
        return homes

    def _tensor(self, span: TensorSpan, *, needs_gradient: bool) -> bytes:
        how = _written().get(span.dtype)
        if how is None:
            raise FormatError(f"{quote(span.name)} has the dtype {quote(span.dtype)}")
        if span.name not in self._keys:
            self._keys[span.name] = next(self._free).encode()
        return _opcodes(span, how, self._keys[span.name], needs_gradient)


def _needs_gradient(node: Any) -> bool:
    return bool(node.args[_GRADIENT:][:1] == (True,))


def _geometry(tensor: TensorSpan | Alias) -> tuple[object, ...]:
    return (tensor.dtype, tensor.shape, tensor.offset, tensor.strides)


def _home(homes: dict[str, Any], name: str) -> tuple[Any, str]:
    """Return the dict that a new tensor goes into, and its key there."""
    prefix = max((p for p in homes if name.startswith(p)), key=len, default=None)
    if prefix is None:
        raise FormatError(f"there is no dict that {quote(name)} belongs into")
    holder, key = homes[prefix], name[len(prefix) :]
    pairs = holder if type(holder) is Pairs else holder.pairs
    parts = key.split(".")
    paths = {".".join(parts[:length]) for length in range(1, len(parts) + 1)}
    if found := next((k for k in pairs[::2] if type(k) is str and k in paths), None):
        raise FormatError(f"{quote(prefix + found)} is something else than {quote(name)} needs")
    return holder, key


# --- opcodes --------------------------------------------------------------------------------------


def _opcodes(span: TensorSpan, how: _Written, key: bytes, needs_gradient: bool) -> bytes:
    """Return a tensor as ``torch.save`` pickles it, without remembering anything."""
    strides = contiguous(span.shape) if span.strides is None else span.strides
    pid = [_text("storage"), how.storage, _text(key.decode()), _text("cpu")]
    storage = b"(" + b"".join(pid) + _int(span.length // how.counted) + b"tQ"
    parts = [storage, _int(span.offset), _ints(span.shape), _ints(strides)]
    hooks = b"ccollections\nOrderedDict\n)R"
    parts += [b"\x88" if needs_gradient else b"\x89", hooks, how.dtype]
    return how.function + b"(" + b"".join(parts) + b"tR"


def _text(text: str) -> bytes:
    data = text.encode("utf-8", "surrogatepass")
    return b"X" + len(data).to_bytes(4, "little") + data


def _int(number: int) -> bytes:
    if 0 <= number < 1 << 8:
        return struct.pack("<cB", b"K", number)
    if 0 <= number < 1 << 16:
        return struct.pack("<cH", b"M", number)
    if -(1 << 31) <= number < 1 << 31:
        return struct.pack("<ci", b"J", number)
    data = number.to_bytes(number.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(data)]) + data


def _ints(numbers: Sequence[int]) -> bytes:
    return b"(" + b"".join(map(_int, numbers)) + b"t"


class _Written(NamedTuple):
    """How tensors of a dtype are pickled: opcodes for the function, storage class and dtype.

    ``counted`` is what the storage counts, in bytes.
    """

    function: bytes
    storage: bytes
    dtype: bytes
    counted: int


@cache
def _written() -> dict[str, _Written]:
    """Return how it is done for the dtypes that git-theta knows, the packed ones apart."""
    untyped = _Written(_global("torch._utils", "_rebuild_tensor_v3"), _UNTYPED, b"", 1)
    found = {
        element.dtype: untyped._replace(dtype=_global("torch", name))
        for name, element in BY_DTYPE.items()
        if element.dtype in DTYPES and element is not PACKED_FLOAT4
    }
    function = _global("torch._utils", "_rebuild_tensor_v2")
    for name, element in BY_STORAGE.items():
        if element.dtype in found and not name.endswith("UntypedStorage"):
            storage = _global("torch", name)
            found[element.dtype] = _Written(function, storage, b"", element.size)
    return found


def _global(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode()


_UNTYPED = _global("torch.storage", "UntypedStorage")
