"""What ``torch.save`` wrote before PyTorch 1.6, and writes without its zip serialisation.

Five pickles follow one another: a magic number, the version of the protocol, facts about the
machine, the saved object, and the keys of its storages; then the storages in that order, each a
count of elements (8 bytes) and the elements. The object refers to a storage by the persistent id
``("storage", class, key, device, count, view)``. Source: ``_legacy_save`` in
https://github.com/pytorch/pytorch/blob/main/torch/serialization.py. The tar files before PyTorch
0.1.10 begin otherwise, and are not read.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from git_theta.core.layout import MAX_TENSORS, Checksum, Layout, Rebuilt, Source, TensorSpan
from git_theta.errors import FormatError
from git_theta.formats.checks import quote
from git_theta.formats.names import Names
from git_theta.formats.pickle_machine import Pairs
from git_theta.formats.pickle_reader import PickleStream
from git_theta.formats.pickled_arrays import keeps_numbers
from git_theta.formats.torch_spans import StorageSpans
from git_theta.formats.torch_tensors import Storage, find_views

_PROTOCOL = 1001
_COUNT_BYTES = 8
# The key of a storage is its address in the memory of the program that saved it.
_ADDRESS = re.compile(rb"[0-9]{6,20}")


class LegacyFile:
    """One file while it is being read. Raises ``FormatError``."""

    def __init__(self, source: Source) -> None:
        self._source = source
        stream = PickleStream(source)
        stream.next()
        if stream.next() != _PROTOCOL:
            raise FormatError("its protocol is not 1001, the only one that torch has written")
        self._is_little = _is_little(stream.next())
        self._first = stream.position
        self._root = stream.next()
        self._stop = stream.position
        self._keys = _keys(stream.next())
        self._data = stream.position

    def layout(self, name: str) -> Layout:
        """Return where the storages lie."""
        views = list(find_views(self._root, Names()))
        places = self._places({view.storage.key: view.storage for view in views})
        spans = StorageSpans(self._is_little)
        for view in views:
            key = view.storage.key
            spans.add(view, key.encode("utf-8", "replace"), *places[key])
        return replace(spans.layout(name), hides=keeps_numbers(self._pickled(), self._root))

    def extras(self) -> bytes:
        """Return the object's pickle, its storages numbered as they come instead of by address."""
        keys = {key.encode("utf-8", "replace") for key in self._keys}
        numbers: dict[bytes, bytes] = {}

        def number(found: re.Match[bytes]) -> bytes:
            key = found[0]
            return numbers.setdefault(key, b"#%d" % len(numbers)) if key in keys else key

        return _ADDRESS.sub(number, self._pickled())

    def _pickled(self) -> bytes:
        return self._source.read(self._first, self._stop - self._first)

    def rebuild(self, name: str, tensors: Sequence[TensorSpan]) -> Rebuilt:
        """Raise ``FormatError``: such files are not written here."""
        from git_theta.formats.torch_pickles import refusal

        raise refusal(
            "it is as written before PyTorch 1.6", "load it and torch.save it again, on all sides"
        )

    def checksums(self) -> list[Checksum]:
        """Return none: the files have no checksums."""
        return []

    def _places(self, storages: dict[str, Storage]) -> dict[str, tuple[int, int]]:
        """Return where each storage's elements begin, and their length in bytes."""
        places: dict[str, tuple[int, int]] = {}
        position = self._data
        for key in self._keys:
            storage = storages.get(key)
            if storage is None or storage.element is None or key in places:
                raise FormatError(f"its storage {quote(key)} is of no known size")
            if position + _COUNT_BYTES > self._source.size:
                raise FormatError("its storages are cut off")
            count = int.from_bytes(self._source.read(position, _COUNT_BYTES), "little")
            if count != storage.capacity:
                raise FormatError(
                    f"its storage {quote(key)} has {count} elements, "
                    f"where its pickle says {storage.capacity}"
                )
            position += _COUNT_BYTES
            places[key] = (position, count * storage.element.size)
            position += places[key][1]
        if position > self._source.size:
            raise FormatError("its storages are cut off")
        if missing := storages.keys() - places.keys():
            raise FormatError(f"its storage {quote(min(missing))} is missing")
        return places


def _keys(found: Any) -> list[str]:
    if type(found) is not list or any(type(key) is not str for key in found):
        raise FormatError("its list of storages is not a list of strings")
    if len(found) > MAX_TENSORS:
        raise FormatError(f"it has more than {MAX_TENSORS} storages")
    return found


def _is_little(facts: Any) -> bool:
    pairs = facts if type(facts) is Pairs else Pairs()
    found = [pairs[at + 1] for at in range(0, len(pairs), 2) if pairs[at] == "little_endian"]
    return found == [True]
