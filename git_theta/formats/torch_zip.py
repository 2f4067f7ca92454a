"""What ``torch.save`` has written since PyTorch 1.6, and TorchScript archives.

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
from dataclasses import replace

from git_theta.core.layout import Checksum, Layout, Rebuilt, Source, TensorSpan
from git_theta.errors import FormatError
from git_theta.formats import zip_directory
from git_theta.formats.names import Names
from git_theta.formats.pickle_reader import MAX_BYTES, read_pickle
from git_theta.formats.pickled_arrays import keeps_numbers
from git_theta.formats.skeleton import range_digest
from git_theta.formats.torch_probes import PICKLE, root
from git_theta.formats.torch_spans import StorageSpans
from git_theta.formats.torch_tensors import find_views
from git_theta.formats.zip_directory import Record, place

_OVERLAP = "its records overlap"
_STORAGES = b"data/"
# A hash that torch.save makes of the checksums of all records.
_SERIALIZATION = b".data/serialization_id"
_DEBUG = b".debug_pkl"
_ALIGNMENT = b".storage_alignment"
# TorchScript keeps the tensors of its code apart, under numbers of their own.
_FURTHER = (_STORAGES, b"constants/")


class Archive:
    """One file while it is being read. Raises ``FormatError``."""

    def __init__(self, source: Source) -> None:
        first = zip_directory.first_name(source)
        if first is None or b"/" not in first:
            raise FormatError("it does not begin with a zip record in a folder")
        self._source = source
        self._root = root(first)
        self._records = zip_directory.read_directory(source)

    def layout(self, name: str) -> Layout:
        """Return where the storages lie."""
        pickled = self._read(PICKLE, MAX_BYTES)
        root = read_pickle(pickled)
        is_little = not self._has(b"byteorder") or self._read(b"byteorder", 16) == b"little"
        names, spans = Names(), StorageSpans(is_little)
        for view in find_views(root, names):
            # A pickle's text may hold lone surrogates, which no record's name does.
            record = self._record(_STORAGES + view.storage.key.encode("utf-8", "replace"))
            spans.add(view, record.name, place(self._source, record), record.length)
        self._add_unnamed(spans, names)
        # Code is compressed where there is more than a little of it.
        hides = keeps_numbers(pickled, root) or not all(each.plain for each in self._beside())
        return replace(spans.layout(name), hides=hides)

    def checksums(self) -> list[Checksum]:
        """Return the zip file's."""
        return zip_directory.checksums(self._source)

    def extras(self) -> bytes:
        """Return the records that hold no storage, ordered by name, with their names.

        Of the pickle, what it says beside its tensors.
        """
        if self._overlaps():
            raise FormatError(_OVERLAP, hint="load it and torch.save it again")
        said = sorted(self._beside(), key=lambda record: record.name)
        parts = [part for record in said for part in (record.name, self._extra(record))]
        return b"".join(len(part).to_bytes(8, "little") + part for part in parts)

    def _overlaps(self) -> bool:
        """Return whether records overlap: read in turn, they could have no end."""
        return sum(record.length for record in self._records.values()) > self._source.size

    def _beside(self) -> list[Record]:
        """Return the records that say something beside the storages.

        Neither the identity of the file nor where the lines of TorchScript's code came from do.
        """
        storages = tuple(self._root + folder for folder in _FURTHER)
        identity = self._root + _SERIALIZATION
        return [
            record
            for name, record in self._records.items()
            if name != identity and not name.startswith(storages) and not name.endswith(_DEBUG)
        ]

    def rebuild(self, name: str, tensors: Sequence[TensorSpan]) -> Rebuilt:
        """Return the file with these tensors, laid out as ``torch.save`` does.

        The identity that ``torch.save`` gave it (``.data/serialization_id``) stays.
        """
        # Imported here: merges alone write files.
        from git_theta.formats.torch_pickles import refusal, with_tensors
        from git_theta.formats.torch_writer import TorchWriter

        if reason := self._unwritable():
            raise refusal(reason)
        pickled = with_tensors(self._read(PICKLE, MAX_BYTES), self.layout(name), tensors)
        writer, spans = TorchWriter(self._alignment()), StorageSpans(is_little=True)
        before, behind = self._others()
        for each in before:
            writer.add(self._root + each, pickled if each == PICKLE else self._content(each))
        lengths = {span.name: span.length for span in tensors}
        places: dict[bytes, tuple[int, int]] = {}
        for view in find_views(read_pickle(pickled), Names()):
            record = self._root + _STORAGES + view.storage.key.encode("utf-8", "replace")
            if record not in places:
                length = lengths.get(view.name, 0)
                places[record] = (writer.add_storage(record, length), length)
            spans.add(view, record, *places[record])
        for each in behind:
            writer.add(self._root + each, self._content(each))
        layout = spans.layout(name)
        if {replace(span, start=0) for span in layout.spans} != {
            replace(span, start=0) for span in tensors
        }:
            raise refusal("they would share storages, or not, otherwise than here")
        return writer.finish(layout)

    def _unwritable(self) -> str | None:
        """Return why no new file can be made of this one, ``None`` if one can."""
        records = self._records.values()
        if not all(record.plain for record in records):
            return "its records are compressed"
        if self._overlaps():
            return _OVERLAP
        if self._has(b"constants.pkl") or not all(r.name.startswith(self._root) for r in records):
            return "it holds a program of TorchScript"
        if self._has(b"byteorder") and self._content(b"byteorder") != b"little":
            return "its numbers are big-endian"
        return None

    def _alignment(self) -> int:
        """Return what the places of contents are multiples of, in bytes."""
        text = self._content(_ALIGNMENT) if self._has(_ALIGNMENT) else b""
        return (int(text) if text.isdigit() and len(text) < 5 else 0) or 64

    def _others(self) -> tuple[list[bytes], list[bytes]]:
        """Return the names of the records that hold no storage: before these, and behind them."""
        ordered = sorted(self._records.values(), key=lambda record: record.header)
        names = [record.name[len(self._root) :] for record in ordered]
        are = [name.startswith(_STORAGES) for name in names]
        first = are.index(True) if True in are else len(names)
        return names[:first], [name for name in names[first:] if not name.startswith(_STORAGES)]

    def _content(self, name: bytes) -> bytes:
        return self._read(name, MAX_BYTES)

    def _extra(self, record: Record) -> bytes:
        from git_theta.formats.torch_facts import facts

        if record.plain and record.name == self._root + PICKLE:
            return facts(self._content(PICKLE))
        start = place(self._source, record)
        return range_digest(self._source, start, start + record.length)

    def _has(self, name: bytes) -> bool:
        return self._root + name in self._records

    def _record(self, name: bytes) -> Record:
        record = self._records.get(self._root + name)
        if record is None:
            raise FormatError(f"the zip record {zip_directory.shown(name)} is missing")
        if not record.plain:
            raise FormatError(f"the zip record {zip_directory.shown(name)} is compressed")
        return record

    def _read(self, name: bytes, limit: int) -> bytes:
        record = self._record(name)
        if record.length > limit:
            raise FormatError(
                f"{record.length} bytes are too many for the zip record {zip_directory.shown(name)}"
            )
        return self._source.read(place(self._source, record), record.length)

    def _add_unnamed(self, spans: StorageSpans, names: Names) -> None:
        prefixes = tuple(self._root + folder for folder in _FURTHER)
        for name, record in self._records.items():
            if name.startswith(prefixes) and name not in spans and record.plain and record.length:
                start = place(self._source, record)
                path = name[len(self._root) :].decode("utf-8", "surrogateescape")
                spans.add_raw(names.unique(path), name, start, record.length)
