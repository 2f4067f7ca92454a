"""Verify what checkpoints need: every object, every frame, and if asked every whole file.

One pass over the manifests, the newest first, at constant memory but for the names of what has
been verified. What damage concerns is collected on the way: an object is looked at before the
first manifest that needs it is left, so no later step has to come back.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import pairwise

from git_theta import manifest
from git_theta.checkpoint import chunk_decoder
from git_theta.checkpoint.limits import Allowance, excess
from git_theta.checkpoint.smudge import smudge
from git_theta.commands.fsck.report import REPAIR, SKELETON, Kind, Problem, Report, Use
from git_theta.commands.fsck.scope import Found, Scope
from git_theta.core.hashes import Ref
from git_theta.core.messages import as_typed, plural, short_id
from git_theta.core.parallel import batches, in_order
from git_theta.errors import (
    CorruptObjectError,
    LimitError,
    ManifestError,
    MissingObjectError,
    ThetaError,
    UnsupportedVersionError,
)
from git_theta.manifest import Chunk, Manifest
from git_theta.store import Location, ObjectStore
from git_theta.workspace import Workspace

_BATCH = 4 << 20


def check(
    workspace: Workspace,
    revs: Sequence[str] = (),
    *,
    full: bool = False,
    everything: bool = False,
) -> Report:
    """Verify the checkpoints of ``revs``, or all that the repository holds on to.

    Every object must hash to its name, every frame decode to the content that it claims, and with
    ``full`` every file be rebuilt with its hash. With ``everything`` objects must be here that a
    remote has, too. ``UsageError`` for a revision that is not there.
    """
    checker = _Checker(workspace, Scope(workspace.repo, revs, everything), full)
    checker.run()
    return checker.report()


@dataclass(slots=True)
class _Case:
    """A problem whose uses are still being collected (in order, each once)."""

    problem: Problem
    uses: dict[Use, None] = field(default_factory=dict)
    required: bool = False


class _Checker:
    def __init__(self, workspace: Workspace, scope: Scope, full: bool) -> None:
        # Each pass over what is here may cost as much.
        self._workshop = replace(workspace.storage, allowance=Allowance())
        self._store = workspace.store
        self._scope = scope
        self._full = full
        self._checkpoints = 0
        self._sizes: dict[str, int] = {}
        self._frames: dict[Ref, Location] = {}
        self._contents: set[str] = set()
        self._bad_objects: dict[str, _Case] = {}
        self._bad_chunks: dict[Chunk, _Case] = {}
        self._bad_manifests: list[_Case] = []
        self._costly: list[LimitError] = []

    def report(self) -> Report:
        cases = [*self._bad_objects.values(), *self._bad_chunks.values(), *self._bad_manifests]
        serious = [case for case in cases if case.problem.kind != "missing" or case.required]
        return Report(
            checkpoints=self._checkpoints,
            objects=len(self._sizes),
            chunks=len(self._contents),
            stored=sum(self._sizes.values()),
            absent=len(cases) - len(serious),
            problems=tuple(replace(case.problem, uses=tuple(case.uses)) for case in serious),
            skipped=(*self._scope.skipped, *self._left_out()),
        )

    def run(self) -> None:
        for found in self._scope.manifests():
            self._checkpoints += 1
            try:
                described = manifest.parse(found.text)
            except ThetaError as error:
                self._blame_manifest(found, error)
                continue
            self._workshop.progress.start(f"checking {found.path}", described.size)
            self._one(found, described)
        # What was verified once and has rotted since: adding its content again must mend it.
        self._workshop.index.forget(self._bad_objects)
        self._workshop.progress.finish()

    def _one(self, found: Found, described: Manifest) -> None:
        try:
            self._objects(described)
        except ManifestError as error:
            self._blame_manifest(found, error)
            return
        try:
            if not (self._full and self._rebuild(found, described)):
                self._chunks(described)
        except LimitError as error:
            self._refuse(found, described, error)
        self._contents.update(chunk.hash for chunk in described.chunks())
        self._concern(found, described)

    # --- objects ---------------------------------------------------------------------------------

    def _objects(self, described: Manifest) -> None:
        new = (
            item
            for item in described.objects().items()
            if self._sizes.get(item[0]) != item[1] and item[0] not in self._bad_objects
        )
        workers = self._workshop.settings.workers
        for (oid, size), error in in_order(self._verify, new, workers, small_results=True):
            if error is None:
                self._sizes[oid] = size
            elif isinstance(error, ManifestError):
                raise error
            else:
                kind: Kind = "missing" if isinstance(error, MissingObjectError) else "corrupt"
                detail = f"{oid}: {error.message}"
                self._bad_objects[oid] = _Case(Problem(kind, oid, detail, (), REPAIR, size))

    def _verify(self, item: tuple[str, int]) -> tuple[tuple[str, int], ThetaError | None]:
        oid, size = item
        try:
            self._store.verify(oid)
        except ThetaError as error:
            return item, error
        if (actual := self._store.size(oid)) != size:
            return item, ManifestError(
                f"it names {size} bytes of object {short_id(oid)}, which has {actual}"
            )
        return item, None

    # --- frames ----------------------------------------------------------------------------------

    def _chunks(self, described: Manifest) -> None:
        distinct = dict.fromkeys(described.chunks())
        new = [chunk for chunk in distinct if not self._is_settled(chunk)]
        self._workshop.charge(new)
        groups = batches(new, lambda chunk: chunk.length, _BATCH)
        workers = self._workshop.settings.workers
        for results in in_order(self._decode, groups, workers, small_results=True):
            for chunk, locations, problem in results:
                self._frames.update((location.ref, location) for location in locations)
                self._workshop.charge_bases(chunk, sum(row.raw_length for row in locations))
                if problem is not None:
                    self._bad_chunks[chunk] = _Case(problem)
                self._workshop.progress.advance(chunk.length)

    def _is_settled(self, chunk: Chunk) -> bool:
        """Return whether the chunk is known to be right, or to be wrong, or cannot be fetched."""
        if chunk in self._bad_chunks or any(ref.oid in self._bad_objects for ref in chunk.chain):
            return True
        links = [self._frames.get(ref) for ref in chunk.chain]
        top = links[0]
        return (
            top is not None
            and (top.hash, top.raw_length) == (chunk.hash, chunk.length)
            and all(a and b and a.base == b.hash for a, b in pairwise(links))
            and (bottom := links[-1]) is not None
            and bottom.base is None
        )

    def _decode(
        self, group: list[Chunk]
    ) -> list[tuple[Chunk, tuple[Location, ...], Problem | None]]:
        return [self._decode_one(chunk) for chunk in group]

    def _decode_one(self, chunk: Chunk) -> tuple[Chunk, tuple[Location, ...], Problem | None]:
        try:
            return chunk, chunk_decoder.decode(self._store, chunk).locations, None
        except ThetaError as error:
            ref = _culprit(self._store, chunk)
            newer = isinstance(error, UnsupportedVersionError)
            kind: Kind = "unsupported" if newer else "corrupt"
            fix = error.hint if newer and error.hint else REPAIR
            return chunk, (), Problem(kind, ref.oid, error.message, (), fix, ref.size)

    # --- whole files -----------------------------------------------------------------------------

    def _rebuild(self, found: Found, described: Manifest) -> bool:
        """Rebuild the file; false when a chunk is at fault, which is then to be found."""
        try:
            for _ in smudge(described, self._workshop, found.path):
                pass
        except CorruptObjectError as error:
            self._chunks(described)
            if not any(self._damaged(described)):
                self._blame_manifest(found, error)
        except LimitError:
            raise
        except ThetaError:
            return False
        return True

    # --- what is concerned -----------------------------------------------------------------------

    def _concern(self, found: Found, described: Manifest) -> None:
        if not self._bad_objects and not self._bad_chunks:
            return
        names: list[str] = []
        for case, tensor in self._damaged(described):
            names = names or self._scope.names(found)
            case.required |= found.required
            case.uses.update(dict.fromkeys(Use(name, tensor) for name in names))

    def _damaged(self, described: Manifest) -> Iterator[tuple[_Case, str]]:
        owners: Iterable[tuple[str, tuple[Chunk, ...]]] = (
            (SKELETON, described.skeleton),
            *((entry.name, entry.chunks) for entry in described.tensors),
        )
        for name, owned in owners:
            for chunk in owned:
                bad = dict.fromkeys(ref.oid for ref in chunk.chain if ref.oid in self._bad_objects)
                yield from ((self._bad_objects[oid], name) for oid in bad)
                if chunk in self._bad_chunks:
                    yield self._bad_chunks[chunk], name

    def _refuse(self, found: Found, described: Manifest, error: LimitError) -> None:
        """Blame a checkpoint that nobody could check out; others cost too much all together."""
        if excess(described) > self._workshop.settings.expand_limit:
            self._blame_manifest(found, error)
        else:
            self._costly.append(error)

    def _left_out(self) -> list[str]:
        if not self._costly:
            return []
        count, last = len(self._costly), self._costly[-1]
        what = f"chunks of {plural(count, 'checkpoint')}"
        return [f"{what}: {last.message}; {last.hint}"]

    def _blame_manifest(self, found: Found, error: ThetaError) -> None:
        uses = {Use(name, None): None for name in self._scope.names(found)}
        sound = f"git log -- {as_typed(found.path)} shows the commits that may have a sound one"
        fix = error.hint or sound
        problem = Problem("manifest", None, error.message, (), fix)
        self._bad_manifests.append(_Case(problem, uses, True))


def _culprit(store: ObjectStore, chunk: Chunk) -> Ref:
    """Return the deepest link of a chain that does not decode."""
    sound = 0
    with suppress(ThetaError):
        for _ in chunk_decoder.decode_links(store, chunk.chain):
            sound += 1
    return chunk.chain[max(0, len(chunk.chain) - 1 - sound)]
