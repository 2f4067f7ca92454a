"""The file that a merge makes: its skeleton, where its tensors lie, and its bytes as a stream."""

from __future__ import annotations

import zlib
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from git_theta.checkpoint.reader import SkeletonSource
from git_theta.core import registry
from git_theta.core.layout import Alias, Buffer, Checksum, Layout, Rebuilt, TensorSpan
from git_theta.core.registry import Bytes
from git_theta.errors import FormatError, MergeError
from git_theta.manifest import Manifest, TensorEntry
from git_theta.merge.planning.actions import Plan
from git_theta.merge.planning.versions import BASE, Entry

Signature = tuple[object, ...]

# A stream cannot hold a checksum that is written before the bytes that it covers.
_TOO_EARLY = "its checksums stand before the tensors, where a merge cannot renew them"
_TOO_EARLY_HINT = "save all sides as safetensors, or load PyTorch files and torch.save them again"


@dataclass(frozen=True)
class Assembly:
    """``layout`` and ``pieces`` are as in ``Rebuilt``; ``side`` is whose skeleton it is.

    ``verbatim`` is that side's manifest where the file is the result as it is. ``checksums`` are
    those of whole spans, by their start. ``notes`` are for the user.
    """

    side: int
    rebuilt: Rebuilt
    checksums: dict[int, Checksum]
    verbatim: Manifest | None
    notes: tuple[str, ...] = ()

    @property
    def layout(self) -> Layout:
        """Offsets of the tensors in the file."""
        return self.rebuilt.layout


def assemble(plan: Plan, skeleton: Callable[[Manifest], bytes]) -> Assembly:
    """Choose the skeleton of the result; ``skeleton`` returns the bytes of a version's.

    It is that of the side that alone changed the bytes beside the tensors, else ours. Raises
    ``MergeError`` where no side's fits and the format cannot make another.
    """
    return _Choice(plan, skeleton).assembly()


class _Version:
    """One version's file without its tensors."""

    def __init__(self, manifest: Manifest, skeleton: Callable[[Manifest], bytes]) -> None:
        self.manifest = manifest
        self.format = registry.format_named(manifest.format)
        self._skeleton = skeleton

    @cached_property
    def skeleton(self) -> bytes:
        return self._skeleton(self.manifest)

    @cached_property
    def source(self) -> SkeletonSource:
        return SkeletonSource(self.manifest, self.skeleton)

    @cached_property
    def extras(self) -> bytes:
        return self.format.extras(self.source)

    def structure(self) -> dict[str, Signature]:
        entries: list[Entry] = [*self.manifest.tensors, *self.manifest.aliases]
        return {entry.name: _signature(entry) for entry in entries}

    def rebuilt(self) -> Rebuilt:
        """Return the layout and the pieces of this file, unchanged."""
        spans, pieces, position, taken = [], [], 0, 0
        for entry in self.manifest.tensors:
            pieces.append(self.skeleton[taken : taken + entry.gap])
            taken += entry.gap
            spans.append(_span(entry, position + entry.gap))
            position += entry.gap + entry.length
        layout = Layout(self.manifest.format, tuple(spans), self.manifest.aliases)
        return Rebuilt(layout, (*pieces, self.skeleton[taken:]))


class _Choice:
    def __init__(self, plan: Plan, skeleton: Callable[[Manifest], bytes]) -> None:
        self._plan = plan
        versions = plan.versions
        self._sides = [_Version(versions.shell(side), skeleton) for side in versions.sides]
        base = versions.shell(BASE) if versions.base else None
        self._there = [side for side in versions.sides if side not in versions.shells]
        # Extras of another format cannot be compared.
        alike = base is not None and base.format == self._sides[0].manifest.format
        self._base = _Version(base, skeleton) if base and alike else None

    def assembly(self) -> Assembly:
        wanted = {action.name: _signature(action.entry) for action in self._plan.kept}
        fitting = [side for side in self._there if self._sides[side].structure() == wanted]
        preferred, notes = self._preferred()
        usable = [side for side in preferred if side in fitting]
        if not usable:
            return self._make(preferred, fitting, notes)
        # For a side whose tensors are the result's, no checksum has to be renewed.
        equal = [side for side in usable if side in self._plan.equal_sides()]
        return self._use((equal or usable)[0], notes)

    def _preferred(self) -> tuple[list[int], tuple[str, ...]]:
        """Return the sides whose extras the result should have, and notes for the user."""
        extras = [version.extras for version in self._sides]
        before = self._base.extras if self._base else None
        changed = [side for side, found in enumerate(extras) if found != before]
        if not changed:
            return self._there, ()
        winner = changed[0] if len({extras[side] for side in changed}) == 1 else 0
        same = [side for side in self._there if extras[side] == extras[winner]]
        distinct = len({extras[side] for side in changed}) > 1
        return same, (self._note(winner),) if distinct else ()

    def _note(self, side: int) -> str:
        name = self._plan.versions.names[side]
        return f"what the file says beside its tensors differs on the sides; it is as in {name}"

    def _use(self, side: int, notes: tuple[str, ...]) -> Assembly:
        version = self._sides[side]
        verbatim = version.manifest if side in self._plan.equal_sides() else None
        rebuilt = version.rebuilt()
        checksums = {c.start: c for c in version.format.checksums(version.source)}
        if verbatim is None:
            _check_renewable(rebuilt, checksums)
        return Assembly(side, rebuilt, checksums, verbatim, notes)

    def _make(self, preferred: list[int], fitting: list[int], notes: tuple[str, ...]) -> Assembly:
        side = preferred[0]
        version = self._sides[side]
        spans = [
            _span(action.entry, 0)
            for action in self._plan.kept
            if isinstance(action.entry, TensorEntry)
        ]
        try:
            rebuilt = version.format.rebuild(version.source, spans)
        except FormatError as error:
            if fitting:
                return self._use(fitting[0], (self._note(fitting[0]),))
            raise MergeError(error.message, hint=error.hint) from error
        return Assembly(side, rebuilt, {}, None, notes)


def _signature(entry: Entry) -> Signature:
    if isinstance(entry, Alias):
        return (entry.of, entry.dtype, entry.shape, entry.offset, entry.strides)
    return (entry.length, entry.dtype, entry.shape, entry.offset, entry.strides)


def _span(entry: TensorEntry, start: int) -> TensorSpan:
    return TensorSpan(
        entry.name, entry.dtype, entry.shape, start, entry.length, entry.offset, entry.strides
    )


def _check_renewable(rebuilt: Rebuilt, checksums: dict[int, Checksum]) -> None:
    """Raise ``MergeError`` unless every checksum of a span follows it, and covers it alone."""
    starts = sorted(checksums)
    for span in rebuilt.layout.spans:
        found = checksums[starts[at - 1]] if (at := bisect_right(starts, span.start)) else None
        if found is None or span.start >= found.start + found.length:
            continue
        if found.start != span.start or any(place < found.start for place in found.places):
            raise MergeError(_TOO_EARLY, hint=_TOO_EARLY_HINT)


def checksum_patches(assembly: Assembly, number: int, data: Bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the places of the checksums of span ``number``, and what they are for its bytes."""
    span = assembly.layout.spans[number]
    if found := assembly.checksums.get(span.start):
        for place in _places(found, span):
            yield place, _crc(zlib.crc32(data.data))


def _places(found: Checksum, span: TensorSpan) -> Sequence[int]:
    if found.length != span.length:
        raise MergeError(f"the checksum of {span.name} in the file is not of all its bytes")
    return found.places


def _crc(checksum: int) -> bytes:
    return checksum.to_bytes(4, "little")


class FileWriter:
    """Puts tensors into their places, and renews the checksums of those that changed.

    ``changed`` are the numbers of the spans whose bytes are not those of the file that the
    skeleton is from.
    """

    def __init__(self, assembly: Assembly, changed: set[int]) -> None:
        self._pieces = assembly.rebuilt.pieces
        self._spans = assembly.layout.spans
        self._checksums = assembly.checksums
        self._changed = changed
        self._next = 0
        self._position = 0
        self._checksum = 0
        self._patches: dict[int, bytes] = {}

    def put(self, number: int, buffer: Bytes) -> Iterator[Buffer]:
        """Yield the next bytes of span ``number``, after all bytes before the span."""
        yield from self._go_to(number)
        if self._is_renewed(number):
            self._checksum = zlib.crc32(buffer.data, self._checksum)
        self._position += buffer.size
        yield buffer.data

    def finish(self) -> Iterator[Buffer]:
        """Yield the bytes after the last tensor."""
        yield from self._go_to(len(self._spans))

    def _go_to(self, number: int) -> Iterator[bytes]:
        while self._next <= number:
            if self._next and self._is_renewed(self._next - 1):
                self._renew(self._next - 1)
            yield self._piece(self._next)
            self._checksum = 0
            self._next += 1

    def _piece(self, number: int) -> bytes:
        piece = bytearray(self._pieces[number])
        start, stop = self._position, self._position + len(piece)
        for place in [place for place in self._patches if start <= place < stop]:
            piece[place - start : place - start + 4] = self._patches.pop(place)
        self._position = stop
        return bytes(piece)

    def _is_renewed(self, number: int) -> bool:
        return number in self._changed and self._spans[number].start in self._checksums

    def _renew(self, number: int) -> None:
        span = self._spans[number]
        for place in _places(self._checksums[span.start], span):
            self._patches[place] = _crc(self._checksum)
