"""PyTorch's checkpoints: what ``torch.save`` has written since 1.6, and TorchScript archives.

A zip file whose records are not compressed, all below one folder: ``data.pkl`` is a pickle of the
saved object in which every storage is a reference to the record ``data/<key>`` with its raw bytes;
``byteorder`` holds ``little`` or ``big``. Storages are the spans; tensors that share one (tied
weights, views) are aliases. Source: "Serialization semantics" in PyTorch's notes
(https://docs.pytorch.org/docs/stable/notes/serialization.html).

A span has the name, shape and dtype of the first tensor in the pickle that views it. Names are
paths: ``{"model": {"w": [t]}}`` gives ``model.w.0``.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from operator import mul

from git_theta.core.dtypes import element_count
from git_theta.core.layout import Alias, Checksum, Layout, Rebuilt, Source, TensorSpan
from git_theta.errors import FormatError
from git_theta.formats import zip_directory
from git_theta.formats.checks import quote
from git_theta.formats.names import Names
from git_theta.formats.pickle_reader import MAX_BYTES, read_pickle
from git_theta.formats.torch_tensors import View, find_views
from git_theta.formats.torch_types import PACKED_FLOAT4, RAW, Element
from git_theta.formats.zip_directory import Record

# The pickled number 0x1950a86a20f9469cfc6c, with which torch.save began before 1.6.
_LEGACY = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19."
_PICKLE = b"data.pkl"
_STORAGES = b"data/"
# A hash that torch.save makes of the checksums of all records.
_SERIALIZATION = b".data/serialization_id"
# TorchScript keeps the tensors of its code apart, under numbers of their own.
_FURTHER = (_STORAGES, b"constants/")

_Numbers = tuple[int, ...]


class _TorchZip:
    name = "torch"
    suffixes = (".pt", ".pth", ".bin", ".ckpt")

    def matches(self, source: Source) -> bool:
        """Return whether it is a zip file with a ``data.pkl``, or what older versions wrote."""
        if _is_legacy(source):
            return True
        first = zip_directory.first_name(source)
        if first is None or b"/" not in first:
            return False
        try:
            # The common case, and a file that is cut off, need no directory.
            return first.endswith(b"/" + _PICKLE) or _root(first) + _PICKLE in (
                zip_directory.read_directory(source)
            )
        except FormatError:
            return False

    def scan(self, source: Source) -> Layout:
        """Return where the storages lie, by directory and pickle. Raises ``FormatError``."""
        return _archive(source).layout()

    def extras(self, source: Source) -> bytes:
        """Return every record but the storages: the pickle above all."""
        return _archive(source).extras()

    def checksums(self, source: Source) -> Sequence[Checksum]:
        """Return the zip file's."""
        return zip_directory.checksums(source)

    def rebuild(self, source: Source, tensors: Sequence[TensorSpan]) -> Rebuilt:
        """Raise ``FormatError``: the pickle names every tensor, and is never written here."""
        raise FormatError(
            "tensors cannot be added to a PyTorch file, removed from it or given another shape",
            hint="save all sides as safetensors, in which they can",
        )


FORMAT = _TorchZip()


def _archive(source: Source) -> _Archive:
    if _is_legacy(source):
        raise FormatError(
            "it has the layout of PyTorch before 1.6, in which tensors cannot be found",
            hint="load it and torch.save it again",
        )
    first = zip_directory.first_name(source)
    if first is None or b"/" not in first:
        raise FormatError("it does not begin with a zip record in a folder")
    return _Archive(source, _root(first))


def _is_legacy(source: Source) -> bool:
    return source.size >= len(_LEGACY) and source.read(0, len(_LEGACY)) == _LEGACY


def _root(name: bytes) -> bytes:
    return name[: name.index(b"/") + 1]


class _Archive:
    """One file while it is being read; ``root`` is its folder, with the slash."""

    def __init__(self, source: Source, root: bytes) -> None:
        self._source = source
        self._root = root
        self._records = zip_directory.read_directory(source)
        self._names = Names()
        self._spans: dict[bytes, TensorSpan] = {}
        self._aliases: list[Alias] = []

    def layout(self) -> Layout:
        """Return everything found."""
        pickled = read_pickle(self._read(_PICKLE, MAX_BYTES))
        is_little = not self._has(b"byteorder") or self._read(b"byteorder", 16) == b"little"
        for view in find_views(pickled, self._names):
            self._add(view, is_little)
        self._add_unnamed()
        spans = sorted(self._spans.values(), key=lambda span: (span.start, span.length))
        return Layout(FORMAT.name, tuple(spans), tuple(self._aliases))

    def extras(self) -> bytes:
        """Return the plain records that hold no storage, ordered by name, with their names."""
        storages = tuple(self._root + folder for folder in _FURTHER)
        names = (
            name.removeprefix(self._root)
            for name, record in self._records.items()
            if record.plain and not name.startswith(storages)
        )
        chosen = sorted(name for name in names if name != _SERIALIZATION)
        parts = [part for name in chosen for part in (name, self._read(name, MAX_BYTES))]
        return b"".join(len(part).to_bytes(8, "little") + part for part in parts)

    def _has(self, name: bytes) -> bool:
        return self._root + name in self._records

    def _record(self, name: bytes) -> Record:
        record = self._records.get(self._root + name)
        if record is None:
            raise FormatError(f"the zip record {zip_directory.shown(name)} is not there")
        if not record.plain:
            raise FormatError(f"the zip record {zip_directory.shown(name)} is compressed")
        return record

    def _read(self, name: bytes, limit: int) -> bytes:
        record = self._record(name)
        if record.length > limit:
            raise FormatError(
                f"{record.length} bytes are too many for the zip record {zip_directory.shown(name)}"
            )
        return self._source.read(zip_directory.place(self._source, record), record.length)

    def _add(self, view: View, is_little: bool) -> None:
        # A pickle's text may hold lone surrogates, which no record's name does.
        record = self._record(_STORAGES + view.storage.key.encode("utf-8", "replace"))
        _check_holds(record, view)
        owner = self._spans.get(record.name)
        element = view.element
        if element is not None and element.size > 1 and not is_little:
            # The bits are kept; as numbers they would be read, and merged, the wrong way round.
            element = None
        if owner is None:
            start = zip_directory.place(self._source, record)
            self._spans[record.name] = _span(view, element, start, record.length)
        elif element is not None:
            dtype, shape, offset, strides = _geometry(view, element)
            self._aliases.append(Alias(view.name, dtype, shape, owner.name, offset, strides))

    def _add_unnamed(self) -> None:
        prefixes = tuple(self._root + folder for folder in _FURTHER)
        for name, record in self._records.items():
            is_named = name in self._spans
            if name.startswith(prefixes) and not is_named and record.plain and record.length:
                start = zip_directory.place(self._source, record)
                path = name[len(self._root) :].decode("utf-8", "surrogateescape")
                self._spans[name] = _raw_span(self._names.unique(path), start, record.length)


def _check_holds(record: Record, view: View) -> None:
    element, count = view.storage.element, view.storage.capacity
    if element is not None and count * element.size > record.length:
        raise FormatError(
            f"the zip record {zip_directory.shown(record.name)} has {record.length} bytes, "
            f"{quote(view.name)} needs {count * element.size}"
        )


def _raw_span(name: str, start: int, length: int) -> TensorSpan:
    return TensorSpan(name, RAW.dtype, (length,), start, length)


def _span(view: View, element: Element | None, start: int, length: int) -> TensorSpan:
    # A storage with a part of an element at its end was made for some other dtype's tensor.
    if element is None or length % element.size:
        return _raw_span(view.name, start, length)
    dtype, shape, offset, strides = _geometry(view, element)
    if strides is None and element_count(view.shape) * element.size != length:
        strides = _contiguous(shape)
    return TensorSpan(view.name, dtype, shape, start, length, offset, strides)


def _geometry(view: View, element: Element) -> tuple[str, _Numbers, int, _Numbers | None]:
    """Dtype, shape, offset and strides; no strides where it is contiguous from the start."""
    dtype, shape, offset, strides = element.dtype, view.shape, view.offset, view.strides
    if element is PACKED_FLOAT4 and strides[-1:] == (1,):
        shape, offset = (*shape[:-1], 2 * shape[-1]), 2 * offset
        strides = (*(2 * stride for stride in strides[:-1]), 1)
    elif element is PACKED_FLOAT4:
        dtype = RAW.dtype
    is_plain = offset == 0 and _is_contiguous(shape, strides)
    return dtype, shape, offset, None if is_plain else strides


def _is_contiguous(shape: _Numbers, strides: _Numbers) -> bool:
    # The stride of a dimension of one element is never used, and torch leaves any value there.
    return len(shape) == len(strides) and all(
        count == 1 or stride == expected
        for count, stride, expected in zip(shape, strides, _contiguous(shape), strict=True)
    )


def _contiguous(shape: _Numbers) -> _Numbers:
    """Return the strides of a C-contiguous tensor.

    Torch counts an empty dimension as one element.
    """
    strides = accumulate((max(1, count) for count in reversed(shape[1:])), mul, initial=1)
    return tuple(strides)[::-1][: len(shape)]
