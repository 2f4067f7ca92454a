"""The file that a merge makes: its skeleton, and where its tensors lie."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

from git_theta.checkpoint.reader import SkeletonSource
from git_theta.core import registry
from git_theta.core.dtypes import DEFLATED
from git_theta.core.layout import Alias, Checksum, Layout, Rebuilt, TensorSpan
from git_theta.errors import FormatError, MergeError
from git_theta.manifest import Manifest, TensorEntry
from git_theta.merge.planning.actions import Plan
from git_theta.merge.planning.conflicts import taking
from git_theta.merge.planning.versions import BASE, Entry

Signature = tuple[object, ...]

# A tensor waits for the checksum before it, but a file of many tensors does not.
_TOO_EARLY = "its checksums are of more than a tensor each, and a merge cannot renew them"
_DEFLATED = "its arrays are compressed, and a merge cannot renew their checksums and sizes"
_HIDDEN = "several sides changed it, and parts of it are in a form that no merge can read"
_HIDDEN_HINT = "(or --ours), after git merge; or save all sides as safetensors"
_DEFLATED_HINT = "save all sides with numpy.savez, or as safetensors"
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

    @property
    def hides(self) -> bool:
        """Whether tensors lie in what is kept as it is."""
        try:
            return self.format.scan(self.source).hides
        except FormatError:  # of a format that reads more than what is here
            return False

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
        if not equal and any(_is_deflated(action.entry) for action in self._plan.kept):
            # The sizes of what their streams inflate to stand in the file.
            return self._make(usable, [], notes)
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
        """Return what is lost for the user; ``MergeError`` where tensors would be."""
        if any(version.hides for version in self._sides):
            command = taking(self._plan.versions.path, "theirs")
            raise MergeError(_HIDDEN, hint=f"{command} {_HIDDEN_HINT}")
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


def _is_deflated(entry: Entry | TensorSpan) -> bool:
    return entry.dtype.startswith(DEFLATED)


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
    its span, and for spans that are deflated where it is not of what they inflate to.
    """
    ordered = sorted(checksums, key=lambda each: each.start)
    starts, found, before = [each.start for each in ordered], dict[int, Checksum](), 0
    for number, span in enumerate(rebuilt.layout.spans):
        each = ordered[at - 1] if (at := bisect_right(starts, span.start)) else None
        if _is_deflated(span) and not (each and each.start == span.start and each.sizes):
            raise MergeError(_DEFLATED, hint=_DEFLATED_HINT)
        stop = span.start + span.length
        if each and span.start < each.start + each.length:
            alone = each.start >= before and each.start + each.length == stop
            if not alone or min(each.places) < before:
                raise MergeError(_TOO_EARLY, hint=_TOO_EARLY_HINT)
            found[number] = each
        before = stop
    return found
