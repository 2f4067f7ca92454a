"""The file that a merge makes: its skeleton, where its tensors lie, and its bytes as a stream."""

from __future__ import annotations

import zlib
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from git_theta.checkpoint.reader import SkeletonSource
from git_theta.core import registry
from git_theta.core.dtypes import DEFLATED
from git_theta.core.layout import Alias, Buffer, Checksum, Layout, Rebuilt, TensorSpan
from git_theta.core.registry import Bytes
from git_theta.errors import FormatError, MergeError
from git_theta.manifest import Manifest, TensorEntry
from git_theta.merge.planning.actions import Plan
from git_theta.merge.planning.versions import BASE, Entry

Signature = tuple[object, ...]

# A tensor waits for the checksum before it, but a file of many tensors does not.
_TOO_EARLY = "its checksums are of more than a tensor each, and a merge cannot renew them"
_DEFLATED = "its arrays are compressed, and a merge would not know their checksums and sizes"
_DEFLATED_HINT = "save all sides with numpy.savez instead of numpy.savez_compressed"
_TIED_HINT = "tie or untie it on all sides"
_TOO_EARLY_HINT = "save all sides as safetensors, or load PyTorch files and torch.save them again"


@dataclass(frozen=True)
class Assembly:
    """``layout`` and ``pieces`` are as in ``Rebuilt``; ``side`` is whose skeleton it is.

    ``verbatim`` is that side's manifest where the file is the result as it is. ``checksums`` are
    those that end with a span, by the number of it. ``notes`` are for the user.
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
        if verbatim:
            return Assembly(side, rebuilt, {}, verbatim, notes)
        checksums = _by_span(rebuilt, version.format.checksums(version.source))
        return Assembly(side, rebuilt, checksums, None, notes)

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
            self._check_tied(rebuilt)
        except FormatError as error:
            if fitting:
                return self._use(fitting[0], (self._note(fitting[0]),))
            raise MergeError(error.message, hint=error.hint) from error
        return Assembly(side, rebuilt, _by_span(rebuilt, rebuilt.checksums), None, notes)

    def _check_tied(self, rebuilt: Rebuilt) -> None:
        """Raise ``FormatError`` unless the names tied to tensors are those of the result."""
        found = {alias.name: alias for alias in rebuilt.layout.aliases}
        kept = (action.entry for action in self._plan.kept)
        wanted = {entry.name: entry for entry in kept if isinstance(entry, Alias)}
        if found != wanted:
            name = min(n for n in found.keys() | wanted if found.get(n) != wanted.get(n))
            raise FormatError(f"{name} is tied to another tensor on one side only", hint=_TIED_HINT)


def _signature(entry: Entry) -> Signature:
    if isinstance(entry, Alias):
        return (entry.of, entry.dtype, entry.shape, entry.offset, entry.strides)
    return (entry.length, entry.dtype, entry.shape, entry.offset, entry.strides)


def _span(entry: TensorEntry, start: int) -> TensorSpan:
    return TensorSpan(
        entry.name, entry.dtype, entry.shape, start, entry.length, entry.offset, entry.strides
    )


def _by_span(rebuilt: Rebuilt, checksums: Sequence[Checksum]) -> dict[int, Checksum]:
    """Return the checksum of each span that has one, which may begin with bytes before the span.

    Raises ``MergeError`` for one of several spans, or that stands before the bytes that precede
    its span, and for spans that are deflated: theirs are of what they inflate to.
    """
    ordered = sorted(checksums, key=lambda each: each.start)
    starts, found, before = [each.start for each in ordered], dict[int, Checksum](), 0
    for number, span in enumerate(rebuilt.layout.spans):
        if span.dtype.startswith(DEFLATED):
            raise MergeError(_DEFLATED, hint=_DEFLATED_HINT)
        each = ordered[at - 1] if (at := bisect_right(starts, span.start)) else None
        stop = span.start + span.length
        if each and span.start < each.start + each.length:
            alone = each.start >= before and each.start + each.length == stop
            if not alone or min(each.places) < before:
                raise MergeError(_TOO_EARLY, hint=_TOO_EARLY_HINT)
            found[number] = each
        before = stop
    return found


def checksum_patches(assembly: Assembly, number: int, data: Bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the places of the checksums of span ``number``, and what they are for its bytes."""
    if found := assembly.checksums.get(number):
        head = _head(assembly, number, found)
        for place in found.places:
            yield place, _crc(zlib.crc32(data.data, zlib.crc32(head)))


def _head(assembly: Assembly, number: int, found: Checksum) -> bytes:
    """Return the bytes before span ``number`` that its checksum is of too."""
    count = assembly.layout.spans[number].start - found.start
    return assembly.rebuilt.pieces[number][-count:] if count else b""


def _crc(checksum: int) -> bytes:
    return checksum.to_bytes(4, "little")


class FileWriter:
    """Puts tensors into their places, and renews the checksums of those that changed.

    ``changed`` are the numbers of the spans whose bytes are not those of the file that the
    skeleton is from.
    """

    def __init__(self, assembly: Assembly, changed: set[int]) -> None:
        self._assembly = assembly
        self._spans = assembly.layout.spans
        self._renewed = {n: each for n, each in assembly.checksums.items() if n in changed}
        self._next = 0
        self._position = 0
        self._checksum = 0
        self._held: list[Bytes] = []
        self._patches: dict[int, bytes] = {}

    def put(self, number: int, buffer: Bytes) -> Iterator[Buffer]:
        """Yield the next bytes of span ``number``, after all bytes before the span.

        Where its checksum stands before it, all of them come with the last.
        """
        if self._is_early(number):
            self._held.append(buffer)
            if sum(held.size for held in self._held) == self._spans[number].length:
                yield from self._release(number)
            return
        yield from self._go_to(number)
        if number in self._renewed:
            self._checksum = zlib.crc32(buffer.data, self._checksum)
        self._position += buffer.size
        yield buffer.data

    def finish(self) -> Iterator[Buffer]:
        """Yield the bytes after the last tensor."""
        yield from self._go_to(len(self._spans))

    def _release(self, number: int) -> Iterator[Buffer]:
        held, self._held = self._held, []
        checksum = zlib.crc32(self._head(number))
        for buffer in held:
            checksum = zlib.crc32(buffer.data, checksum)
        self._renew(number, checksum)
        yield from self._go_to(number)
        for buffer in held:
            self._position += buffer.size
            yield buffer.data

    def _go_to(self, number: int) -> Iterator[bytes]:
        while self._next <= number:
            if self._next - 1 in self._renewed and not self._is_early(self._next - 1):
                self._renew(self._next - 1, self._checksum)
            yield self._piece(self._next)
            self._checksum = zlib.crc32(self._head(self._next))
            self._next += 1

    def _piece(self, number: int) -> bytes:
        piece = bytearray(self._assembly.rebuilt.pieces[number])
        start, stop = self._position, self._position + len(piece)
        for place in [place for place in self._patches if start <= place < stop]:
            piece[place - start : place - start + 4] = self._patches.pop(place)
        self._position = stop
        return bytes(piece)

    def _is_early(self, number: int) -> bool:
        """Return whether a checksum of a span that is renewed stands before it."""
        found = self._renewed.get(number)
        return found is not None and min(found.places) < self._spans[number].start

    def _head(self, number: int) -> bytes:
        found = self._renewed.get(number)
        return _head(self._assembly, number, found) if found else b""

    def _renew(self, number: int, checksum: int) -> None:
        for place in self._renewed[number].places:
            self._patches[place] = _crc(checksum)
