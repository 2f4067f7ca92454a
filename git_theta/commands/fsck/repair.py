"""Get lost objects back: from another copy, from files that hold their content, from remotes.

An object's name is the hash of what the encoder wrote, and the encoder is deterministic: the same
content against the same base gives the same object. So a checkpoint in a work tree restores the
objects of the commits that stored it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from git_theta import manifest, transfer
from git_theta.checkpoint import chunk_decoder, chunk_encoder
from git_theta.checkpoint.chunk_decoder import Base
from git_theta.checkpoint.chunking import geometries, placements
from git_theta.checkpoint.limits import Allowance
from git_theta.commands.fsck.report import Report
from git_theta.core.files import FileSource
from git_theta.core.hashes import Ref, content_hash
from git_theta.core.layout import Buffer, Geometry
from git_theta.errors import ChangedError, ThetaError
from git_theta.git import Repository, reachable, worktree
from git_theta.manifest import Chunk, Manifest
from git_theta.workspace import Workspace


@dataclass(frozen=True, slots=True)
class Repaired:
    """Objects that are whole again, with where they came from; where damaged ones were put."""

    restored: dict[str, str]
    quarantined: tuple[str, ...]


def repair(workspace: Workspace, report: Report, places: Sequence[Path] = ()) -> Repaired:
    """Get the objects back that ``report`` says are damaged or missing.

    ``places`` are other clones, or folders of objects. Objects whose own bytes are right stay as
    they are: another copy would be no better. A damaged one that nothing replaces is moved to
    ``theta/bad``.
    """
    named = {problem.oid: problem.size for problem in report.problems if problem.oid}
    lost = workspace.storage.unsound({oid: size for oid, size in named.items() if size})
    restored = _from_copies(workspace, lost, places)
    restored |= _from_contents(workspace, _less(lost, restored), places)
    rest = _less(lost, restored)
    damaged = [oid for oid in rest if workspace.store.has(oid)]
    moved = tuple(str(workspace.store.quarantine(oid)) for oid in damaged)
    restored |= _from_remotes(workspace, rest)
    workspace.store.sync()
    workspace.storage.index.forget(_less(lost, restored))
    workspace.storage.index.add([], workspace.store.stamps(restored))
    return Repaired(restored, moved)


def _less(lost: Mapping[str, int], restored: Mapping[str, str]) -> dict[str, int]:
    return {oid: size for oid, size in lost.items() if oid not in restored}


# --- other copies --------------------------------------------------------------------------------


def _from_copies(
    workspace: Workspace, lost: Mapping[str, int], places: Sequence[Path]
) -> dict[str, str]:
    folders = [*_lfs_folders(workspace.repo), *(f for place in places for f in _folders(place))]
    restored = {}
    for oid, size in lost.items():
        for file in (file for folder in folders for file in _files(folder, oid)):
            if file.is_file() and _adopt(workspace, oid, size, file):
                restored[oid] = str(file)
                break
    return restored


def _adopt(workspace: Workspace, oid: str, size: int, file: Path) -> bool:
    try:
        workspace.store.adopt(oid, size, file)
    except ThetaError:
        return False  # damaged too
    return True


def _lfs_folders(repo: Repository) -> list[Path]:
    storage = repo.config_value("lfs.storage")
    configured = [repo.common_dir / storage / "objects"] if storage else []
    return [repo.common_dir / "lfs/objects", *configured]


def _folders(place: Path) -> Iterator[Path]:
    """Yield the folders of a clone (of any kind) where objects may lie, or a folder of objects."""
    for top in (place, *_git_dirs(place / ".git")):
        yield from (top / "theta/objects", top / "lfs/objects", top)


def _git_dirs(dot_git: Path) -> Iterator[Path]:
    yield dot_git
    if dot_git.is_file():  # of a linked work tree or a submodule
        git_dir = dot_git.parent / dot_git.read_text("utf-8", "replace")[len("gitdir: ") :].strip()
        yield git_dir
        if (git_dir / "commondir").is_file():
            yield git_dir / (git_dir / "commondir").read_text("utf-8").strip()


def _files(folder: Path, oid: str) -> tuple[Path, Path]:
    return folder / oid[:2] / oid, folder / oid[:2] / oid[2:4] / oid


def _from_remotes(workspace: Workspace, lost: Mapping[str, int]) -> dict[str, str]:
    if not lost or not workspace.repo.remotes():
        return {}
    with suppress(ThetaError):  # what came is here; the next check names what did not
        transfer.fetch(workspace, lost)
    left = workspace.storage.unsound(lost)
    return {oid: "a remote" for oid in lost if oid not in left}


# --- contents ------------------------------------------------------------------------------------


def _from_contents(
    workspace: Workspace, lost: Mapping[str, int], places: Sequence[Path]
) -> dict[str, str]:
    if not lost:
        return {}
    contents = _Contents(workspace, lost, [*worktree.work_trees(workspace.repo), *places])
    contents.scan()
    restored: dict[str, str] = {}
    while True:
        # Those that others are differences to come first, in whatever order that is.
        found = [oid for oid in lost if oid not in restored and contents.restore(oid)]
        restored |= dict.fromkeys(found, "the content of a file")
        if not found:
            return restored


@dataclass(slots=True)
class _Frame:
    """A frame of a lost object, and what it must decode to."""

    chunk: Chunk
    geometries: dict[Geometry, None] = field(default_factory=dict)


@dataclass(slots=True)
class _Place:
    """The place of a content in the file ``path``: (in the file, from, to) of each piece."""

    path: str
    pieces: list[tuple[int, int, int]] = field(default_factory=list)


class _Contents:
    """Encodes the chunks of lost objects again, from files in work trees and from other frames."""

    def __init__(self, workspace: Workspace, lost: Mapping[str, int], roots: list[Path]) -> None:
        self._repo = workspace.repo
        self._store = workspace.store
        self._storage = replace(workspace.storage, allowance=Allowance())
        self._lost = lost
        self._roots = roots
        self._frames: dict[str, dict[int, _Frame]] = {oid: {} for oid in lost}
        self._places: dict[str, list[_Place]] = {}
        self._chunks: dict[str, dict[Chunk, None]] = {}

    def scan(self) -> None:
        """Find out from every manifest what is in the lost objects, and where else that stands."""
        for _, described in self._manifests():
            for chunk, geometry in geometries(described):
                ref = chunk.chain[0]
                if ref.oid in self._frames:
                    frame = self._frames[ref.oid].setdefault(ref.offset, _Frame(chunk))
                    frame.geometries[geometry] = None
        frames = (frame for frames in self._frames.values() for frame in frames.values())
        wanted = {frame.chunk.hash for frame in frames}
        for path, described in self._manifests():
            self._find(path, described, wanted)

    def _manifests(self) -> Iterator[tuple[str, Manifest]]:
        for entry, text in self._repo.manifests(reachable.all_entries(self._repo)):
            try:
                yield entry.path, manifest.parse(text)
            except ThetaError:
                continue  # named by the check

    def _find(self, path: str, described: Manifest, wanted: set[str]) -> None:
        position, found = 0, dict[str, _Place]()
        for placed in placements(described):
            chunk = placed.chunk
            if chunk.hash in wanted:
                self._chunks.setdefault(chunk.hash, {})[chunk] = None
                place = found.setdefault(chunk.hash, _Place(path))
                place.pieces.append((position, placed.start, placed.stop))
            position += placed.stop - placed.start
        for hash_, place in found.items():
            self._places.setdefault(hash_, []).append(place)

    def restore(self, oid: str) -> bool:
        """Make an object again; false where its content, or that of a base, is not at hand."""
        buffers: list[Buffer] = []
        position = 0
        for offset, frame in sorted(self._frames[oid].items()):
            encoded = self._encode(frame) if offset == position else None
            if encoded is None:
                return False
            buffers += encoded
            position += frame.chunk.chain[0].length
        digest = hashlib.sha256()
        for buffer in buffers:
            digest.update(buffer)
        if digest.hexdigest() != oid:
            return False  # written by another version, or in an encoding that was asked for
        self._store.write(buffers)
        return True

    def _encode(self, frame: _Frame) -> list[Buffer] | None:
        top, *below = frame.chunk.chain
        content = self._content(frame.chunk)
        if content is None:
            return None
        try:
            base = self._base(tuple(below))
        except ThetaError:
            return None
        for geometry in frame.geometries:
            for each in _orientations(base, geometry, frame.chunk.length):
                encoded = chunk_encoder.encode(content, frame.chunk.hash, geometry, each)
                is_alike = sum(map(len, encoded.frame)) == top.length
                if is_alike and encoded.base_chain == tuple(below):
                    return encoded.frame
        return None

    def _base(self, chain: tuple[Ref, ...]) -> Base | None:
        return chunk_decoder.decode_bases(self._store, chain)[1] if chain else None

    def _content(self, chunk: Chunk) -> Buffer | None:
        # Other frames of it first; of a damaged object most frames may be right.
        for other in self._chunks.get(chunk.hash, ()):
            try:
                self._storage.charge([other])
                return chunk_decoder.decode(self._store, other).data.data
            except ThetaError:
                continue
        read = (
            self._read(root, place, chunk)
            for place in self._places.get(chunk.hash, ())
            for root in self._roots
        )
        return next((found for found in read if found is not None), None)

    def _read(self, root: Path, place: _Place, chunk: Chunk) -> Buffer | None:
        file = root / place.path
        content = bytearray(chunk.length)
        try:
            if file.is_symlink() or not file.is_file():
                return None
            with FileSource(file) as source:
                for position, start, stop in place.pieces:
                    content[start:stop] = source.read(position, stop - start)
        except (OSError, ChangedError):
            return None
        return content if content_hash(content) == chunk.hash else None


def _orientations(base: Base | None, geometry: Geometry, length: int) -> Iterator[Base | None]:
    """Yield a base as it is, and transposed where a chunk of ``length`` bytes may have used that.

    A damaged frame does not tell.
    """
    yield base
    if base and (other := chunk_decoder.turned(base, geometry, length)):
        yield other
