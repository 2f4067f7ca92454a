"""Trees of old commits, rewritten: the chosen files, and the attributes that say how they are kept.

A tree that occurs again is rewritten once. Trees are taken and given byte for byte, so submodules,
links, modes and odd names stay as they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Protocol

from git_theta.commands.migrate import attributes
from git_theta.commands.migrate.attributes import Storage
from git_theta.errors import UsageError
from git_theta.git import Repository
from git_theta.git.command import decode, encode
from git_theta.git.object_writer import ObjectWriter
from git_theta.git.path_globs import PathGlobs
from git_theta.git.raw_objects import TreeEntry, parse_tree, tree_content, tree_order
from git_theta.git.tracked import ATTRIBUTES, State, TrackedPaths

_NAME = encode(ATTRIBUTES)


class Conversion(Protocol):
    """From one way of storing files to another."""

    source: Storage
    target: Storage
    only_tracked: bool
    """Whether a file counts only where its attributes say ``source``."""

    def convert(self, path: str, blob: str) -> str:
        """Return the blob that stands for the same file in the other way; it is stored."""
        ...


class AddedLine(NamedTuple):
    """A line that an attributes file lacks, in the order of the globs, and a path that needs it."""

    rank: tuple[int, int]
    text: str


class _States(NamedTuple):
    """The attributes files above a folder, as they were and as they will be."""

    old: State
    new: State


Needs = dict[AddedLine, str]
"""AddedLine that are needed, and for each the first path that needs it."""


class TreeRewriter:
    """Rewrites the trees of one history."""

    def __init__(
        self,
        repo: Repository,
        writer: ObjectWriter,
        globs: PathGlobs,
        conversion: Conversion,
        tracked: TrackedPaths,
    ) -> None:
        self._repo = repo
        self._writer = writer
        self._globs = globs
        self._conversion = conversion
        self._tracked = tracked
        self._needs: dict[tuple[str, str, _States], Needs] = {}
        self._made: dict[tuple[str, str, _States, frozenset[AddedLine]], str] = {}
        self._texts: dict[tuple[str | None, str, frozenset[AddedLine]], str | None] = {}

    def rewrite(self, tree: str, carried: frozenset[AddedLine]) -> tuple[str, frozenset[AddedLine]]:
        """Return the new root tree, and the lines that its attributes file got.

        ``carried`` are those of the commit's parents: what is tracked stays tracked. Raises
        ``UsageError`` where attributes files in folders decide otherwise.
        """
        top, lines = _States((), ()), carried
        while needs := self._lacking(tree, "", top, lines):
            if needs.keys() <= lines:
                raise _overridden(next(iter(needs.values())))
            lines = lines.union(needs)
        return self._rewrite(tree, "", top, lines), lines

    # --- attributes ------------------------------------------------------------------------------

    def _enter(
        self, entries: list[TreeEntry], folder: str, states: _States, lines: frozenset[AddedLine]
    ) -> tuple[_States, str | None]:
        """Return the attributes that count in ``folder``, and the blob of its own new file."""
        own = next((entry for entry in entries if entry.name == _NAME), None)
        old = own.id if own and own.is_file else None
        if own and not own.is_file and lines and not folder:
            raise UsageError(
                "it is not a regular file, and lines are needed in it", path=ATTRIBUTES
            )
        new = self._edited(old, folder, frozenset() if folder else lines)
        name = f"{folder}/{ATTRIBUTES}" if folder else ATTRIBUTES
        return _States(
            (*states.old, (name, old)) if old else states.old,
            (*states.new, (name, new)) if new else states.new,
        ), new

    def _edited(self, old: str | None, folder: str, lines: frozenset[AddedLine]) -> str | None:
        key = (old, folder, lines)
        if key not in self._texts:
            self._texts[key] = self._edit(old, folder, lines)
        return self._texts[key]

    def _edit(self, old: str | None, folder: str, lines: frozenset[AddedLine]) -> str | None:
        before = decode(self._repo.load(old)[1]) if old else ""
        way = self._conversion
        text = attributes.converted(before, folder, self._globs.include, way.source, way.target)
        text = attributes.appended(text, (line.text for line in sorted(lines)))
        if text == before:
            return old
        return self._writer.write("blob", encode(text)) if text else None

    # --- what the attributes must say ------------------------------------------------------------

    def _lacking(
        self, tree: str, folder: str, states: _States, lines: frozenset[AddedLine] = frozenset()
    ) -> Needs:
        """Return the lines without which a file of ``tree`` would be stored in a wrong way."""
        entries = self._entries(tree)
        states, _ = self._enter(entries, folder, states, lines)
        key = (tree, folder, states)
        if key not in self._needs:
            self._needs[key] = {}
            for entry, path in _children(entries, folder):
                if entry.is_tree:
                    for line, example in self._lacking(entry.id, path, states).items():
                        self._needs[key].setdefault(line, example)
                elif entry.is_file and (needed := self._needed_line(path, states)):
                    self._needs[key].setdefault(needed, path)
        return self._needs[key]

    def _needed_line(self, path: str, states: _States) -> AddedLine | None:
        before = self._tracked.filter_in(states.old, path)
        after = self._tracked.filter_in(states.new, path)
        source, target, globs = self._conversion.source, self._conversion.target, self._globs
        if glob := self._selecting(path, before):
            if target.has(after):
                return None
            return AddedLine((0, globs.include.index(glob)), target.line(glob))
        if after == before:
            return None
        glob = globs.excluded(path)
        if glob is None:
            raise _overridden(path)
        kept = source if source.has(before) else attributes.PLAIN
        return AddedLine((1, globs.exclude.index(glob)), kept.line(glob))

    def _selecting(self, path: str, before: str) -> str | None:
        """Return the glob that chooses a file which had the filter ``before``."""
        if self._conversion.only_tracked and not self._conversion.source.has(before):
            return None
        return self._globs.included(path)

    # --- the trees themselves --------------------------------------------------------------------

    def _rewrite(self, tree: str, folder: str, states: _States, lines: frozenset[AddedLine]) -> str:
        key = (tree, folder, states, lines if not folder else frozenset())
        if key not in self._made:
            self._made[key] = self._make(tree, folder, states, lines)
        return self._made[key]

    def _make(self, tree: str, folder: str, above: _States, lines: frozenset[AddedLine]) -> str:
        entries = self._entries(tree)
        states, own = self._enter(entries, folder, above, lines)
        made = [
            entry if new == entry.id else TreeEntry(entry.mode, entry.name, new)
            for entry, path in _children(entries, folder)
            if (new := self._converted(entry, path, states, own)) is not None
        ]
        if own and all(entry.name != _NAME for entry in entries):
            made.append(TreeEntry(b"100644", _NAME, own))
            made.sort(key=tree_order)
        return tree if made == entries else self._writer.write("tree", tree_content(made))

    def _converted(
        self, entry: TreeEntry, path: str, states: _States, own: str | None
    ) -> str | None:
        """Return what stands in the place of an entry; ``None``: it goes away."""
        if entry.is_tree:
            new = self._rewrite(entry.id, path, states, frozenset())
            is_emptied = new != entry.id and not self._entries(new)
            return None if is_emptied else new
        if not entry.is_file:
            return entry.id
        if entry.name == _NAME:
            return own
        before = self._tracked.filter_in(states.old, path)
        return (
            self._conversion.convert(path, entry.id) if self._selecting(path, before) else entry.id
        )

    def _entries(self, tree: str) -> list[TreeEntry]:
        return parse_tree(self._repo.load(tree)[1], len(tree))


def _children(entries: list[TreeEntry], folder: str) -> Iterator[tuple[TreeEntry, str]]:
    for entry in entries:
        name = decode(entry.name)
        yield entry, f"{folder}/{name}" if folder else name


def _overridden(path: str) -> UsageError:
    return UsageError(
        "attributes files in its folders, or .git/info/attributes, say otherwise of this path than "
        "the globs; nothing was changed",
        path=path,
        hint="choose globs that take all or none of what those lines match: --include, --exclude",
    )
