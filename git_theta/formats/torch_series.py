"""The files of ``torch.distributed.checkpoint``: zip files of ``torch.save``, end to end.

Each holds one item: a tensor, a shard of one, or a pickled object. Their names stand in the file
``.metadata`` beside it, so an item is called by its number here. Source: ``_write_item`` in
https://github.com/pytorch/pytorch/blob/main/torch/distributed/checkpoint/filesystem.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

from git_theta.core.layout import Alias, Checksum, Layout, Rebuilt, Source, TensorSpan
from git_theta.formats.parts import Window
from git_theta.formats.torch_zip import Archive


class ArchiveSeries:
    """One file while it is being read. Raises ``FormatError``."""

    def __init__(self, source: Source, starts: list[int]) -> None:
        ends = pairwise([*starts, source.size])
        self._windows = [Window(source, start, stop - start) for start, stop in ends]

    def layout(self, name: str) -> Layout:
        """Return where the storages of all items lie."""
        spans: list[TensorSpan] = []
        aliases: list[Alias] = []
        hides = False
        for number, window in enumerate(self._windows):
            found = Archive(window).layout(name)
            hides |= found.hides
            spans += (
                replace(span, name=_name(number, span.name), start=window.start + span.start)
                for span in found.spans
            )
            aliases += (
                replace(alias, name=_name(number, alias.name), of=_name(number, alias.of))
                for alias in found.aliases
            )
        return Layout(name, tuple(spans), tuple(aliases), hides=hides)

    def rebuild(self, name: str, tensors: Sequence[TensorSpan]) -> Rebuilt:
        """Raise ``FormatError``: such files are not written here."""
        from git_theta.formats.torch_pickles import refusal

        raise refusal("it is one of torch.distributed.checkpoint")

    def checksums(self) -> list[Checksum]:
        """Return those of all items."""
        return [
            Checksum(
                window.start + found.start,
                found.length,
                tuple(window.start + place for place in found.places),
            )
            for window in self._windows
            for found in Archive(window).checksums()
        ]

    def extras(self) -> bytes:
        """Return those of all items, in turn."""
        parts = [Archive(window).extras() for window in self._windows]
        return b"".join(len(part).to_bytes(8, "little") + part for part in parts)


def _name(number: int, name: str) -> str:
    return str(number) if name == "tensor" else f"{number}.{name}"
