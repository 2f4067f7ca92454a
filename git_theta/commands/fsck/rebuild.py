"""Rebuild the index from nothing but the objects that are here."""

from __future__ import annotations

from dataclasses import dataclass, replace

from git_theta.checkpoint import chunk_decoder
from git_theta.checkpoint.limits import Allowance
from git_theta.codec import Header, iter_headers
from git_theta.core.files import FileSource
from git_theta.core.hashes import Ref
from git_theta.core.parallel import batches, in_order
from git_theta.errors import LimitError, ThetaError
from git_theta.manifest import Chunk
from git_theta.store import Location
from git_theta.workspace import Workspace

_BATCH = 4 << 20
_LONGEST_CHAIN = 64  # what a manifest can hold


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """The number of frames that the index knows now, and why others do not count: object to reason.

    ``baseless`` frames have a base that is not here; they are right, but cannot be verified.
    """

    frames: int
    baseless: int
    rejected: dict[str, str]


@dataclass(frozen=True, slots=True)
class _Frame:
    ref: Ref
    header: Header

    def chunk(self, below: tuple[Ref, ...]) -> Chunk:
        return Chunk(self.header.raw_length, self.header.content, (self.ref, *below))


def rebuild_index(workspace: Workspace) -> Rebuilt:
    """Fill the index again, from frames that were decoded and found to be what they claim.

    An object's hash only says that it arrived as it was sent: one made with ill intent may hold
    a frame that claims the content hash of something else. Each chain is decoded from its bottom
    for each of its links, which costs time (their number) and no memory.
    """
    rebuilder = _Rebuilder(workspace)
    rebuilder.read_objects()
    rebuilder.verify_frames()
    workspace.storage.index.rebuild(rebuilder.locations)
    workspace.storage.progress.finish()
    return Rebuilt(len(rebuilder.locations), len(rebuilder.waiting), rebuilder.rejected)


class _Rebuilder:
    def __init__(self, workspace: Workspace) -> None:
        self._store = workspace.store
        self._storage = replace(workspace.storage, allowance=Allowance())
        self._workers = workspace.storage.settings.workers
        self._progress = workspace.storage.progress
        self._chains: dict[str, tuple[Ref, ...]] = {}
        self.waiting: list[_Frame] = []
        self.locations: list[Location] = []
        self.rejected: dict[str, str] = {}

    def read_objects(self) -> None:
        """List the frames of every object that is what its name says."""
        sizes = {oid: self._store.size(oid) or 0 for oid in self._store.oids()}
        self._progress.start("reading objects", sum(sizes.values()))
        for oid, frames in in_order(self._frames_of, sizes, self._workers, small_results=True):
            self._progress.advance(sizes[oid])
            if isinstance(frames, ThetaError):
                self.rejected[oid] = frames.message
            else:
                self.waiting += frames

    def _frames_of(self, oid: str) -> tuple[str, list[_Frame] | ThetaError]:
        try:
            self._store.verify(oid)
            with FileSource(self._store.path(oid)) as source:
                headers = iter_headers(source.read, source.size)
                return oid, [
                    _Frame(Ref(oid, source.size, offset, header.length), header)
                    for offset, header in headers
                ]
        except ThetaError as error:
            return oid, error

    def verify_frames(self) -> None:
        """Decode what needs no base, then what needs one of these, and so on."""
        self._progress.start(
            "verifying frames", sum(frame.header.raw_length for frame in self.waiting)
        )
        for _ in range(_LONGEST_CHAIN):
            level = [frame for frame in self.waiting if self._below(frame) is not None]
            if not level:
                break
            self.waiting = [frame for frame in self.waiting if self._below(frame) is None]
            groups = batches(
                filter(self._is_paid, level), lambda frame: frame.header.raw_length, _BATCH
            )
            found: dict[str, tuple[Ref, ...]] = {}
            for results in in_order(self._decode, groups, self._workers, small_results=True):
                for frame, location in results:
                    self._take(frame, location, found)
            self._chains = found | self._chains

    def _is_paid(self, frame: _Frame) -> bool:
        try:
            self._storage.charge([frame.chunk(self._below(frame) or ())])
        except LimitError as error:
            self.rejected[frame.ref.oid] = error.message
            return False
        return True

    def _below(self, frame: _Frame) -> tuple[Ref, ...] | None:
        """Return the chain that a frame stands on, if it is verified."""
        return self._chains.get(frame.header.base) if frame.header.base else ()

    def _decode(self, group: list[_Frame]) -> list[tuple[_Frame, Location | ThetaError]]:
        return [(frame, self._decode_one(frame)) for frame in group]

    def _decode_one(self, frame: _Frame) -> Location | ThetaError:
        try:
            chunk = frame.chunk(self._below(frame) or ())
            return chunk_decoder.decode(self._store, chunk).locations[-1]
        except ThetaError as error:
            return error

    def _take(
        self, frame: _Frame, location: Location | ThetaError, found: dict[str, tuple[Ref, ...]]
    ) -> None:
        self._progress.advance(frame.header.raw_length)
        if isinstance(location, ThetaError):
            self.rejected[frame.ref.oid] = location.message
        else:
            self.locations.append(location)
            found.setdefault(location.hash, (frame.ref, *(self._below(frame) or ())))
