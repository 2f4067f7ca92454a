"""Carry a plan out: decode, merge and store, one parameter after another.

The result is never in memory or on disk as a whole: it goes as a stream into the store, whose
threads encode while the next parameters are decoded and the current one is merged.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, groupby
from typing import TYPE_CHECKING

from git_theta import manifest, transfer
from git_theta.checkpoint.clean import store
from git_theta.checkpoint.reader import BUDGET, Reader
from git_theta.core.arrays import Bytes
from git_theta.core.layout import Buffer
from git_theta.core.parallel import ahead, batches
from git_theta.errors import naming
from git_theta.filters.incoming import Packets
from git_theta.manifest import Chunk, Manifest, TensorEntry
from git_theta.merge.compute.file_writer import FileWriter
from git_theta.merge.compute.output import Assembly, assemble
from git_theta.merge.planning.actions import Merge, Plan, Take, UnitMember
from git_theta.merge.planning.conflicts import conflict_error, resolving, saying_how
from git_theta.merge.planning.policy import needing_torch
from git_theta.merge.planning.versions import BASE
from git_theta.merge.recipe import recipe_of
from git_theta.workspace import Workspace

if TYPE_CHECKING:
    from git_theta.merge.compute.engine import Engine, Prepasses
    from git_theta.merge.kernels.slices import Inputs

# Small chunks are decoded together: a task costs about 50 us.
_BATCH = 4 << 20


# A merge holds whole tensors, and computes with them as float32.
_COPIES = 4


@dataclass(frozen=True, slots=True)
class Executed:
    """The merged checkpoint, whose objects are stored, and notes for the user.

    The manifest has no recipe yet, or is a side's own. ``device`` is where it was computed, if
    anything was.
    """

    manifest: Manifest
    device: str | None = None
    notes: tuple[str, ...] = ()


def execute(plan: Plan, workspace: Workspace, prepasses: Prepasses | None = None) -> Executed:
    """Merge as planned; ``prepasses`` are those that files of one model share.

    Missing objects are fetched first. Raises ``MergeError`` for tensors that cannot be merged,
    and what decoding and storing raise; nothing refers to objects that were written by then.
    """
    assert not plan.conflicts, "the caller settles them"
    if plan.whole:
        return Executed(plan.versions.manifest(plan.whole.side))
    reader = Reader(workspace.storage)
    assembly = opened(plan, workspace, reader)
    if assembly.verbatim:
        return Executed(assembly.verbatim, None, assembly.notes)
    engine = _engine(plan, workspace, reader, {} if prepasses is None else prepasses)
    merged = _merge(plan, assembly, merged_bytes(plan, assembly, reader, engine), workspace)
    if engine is None:
        return Executed(merged, None, assembly.notes)
    return Executed(merged, engine.device, (*assembly.notes, *engine.notes))


def opened(plan: Plan, workspace: Workspace, reader: Reader) -> Assembly:
    """Return the file that a plan makes, once all that is read for it is here and accounted for."""
    transfer.fetch(workspace, _objects(_skeletons(plan)))
    workspace.storage.charge(_skeletons(plan))
    assembly = assemble(plan, reader.skeleton)
    if not assembly.verbatim:
        transfer.fetch(workspace, _objects(_needed(plan)))
        workspace.storage.charge(_needed(plan), _COPIES)
    return assembly


def _merge(
    plan: Plan, assembly: Assembly, file: Iterator[Buffer], workspace: Workspace
) -> Manifest:
    storage, versions = workspace.storage, plan.versions
    size = sum(map(len, assembly.rebuilt.pieces)) + sum(s.length for s in assembly.layout.spans)
    storage.progress.start(f"merging {versions.path}", size)
    parents = [contributor.manifest for contributor in versions.contributors]
    parents += [versions.base] if versions.base else []
    merged = store(Packets(file), assembly.layout, storage, parents)
    return next((parent for parent in parents if parent.hash == merged.hash), merged)


def merged_bytes(
    plan: Plan, assembly: Assembly, reader: Reader, engine: Engine | None
) -> Iterator[Buffer]:
    """Yield all bytes of the merged file, in order."""
    writer = FileWriter(assembly, _changed(plan, assembly))
    for number, data in _loaded(_works(plan, assembly, reader, engine), reader.workers):
        yield from writer.put(number, data)
        del data  # before the next one is loaded
    yield from writer.finish()


def computed_spans(plan: Plan, assembly: Assembly, reader: Reader, engine: Engine) -> Pieces:
    """Yield the number and the bytes of each span that is computed, in the order of the file."""
    works = (w for w in _works(plan, assembly, reader, engine) if not isinstance(w, _Taken))
    return _loaded(works, reader.workers)


def _engine(
    plan: Plan, workspace: Workspace, reader: Reader, prepasses: Prepasses
) -> Engine | None:
    if not plan.merges and not plan.units:
        return None
    # Imported here: torch costs 3 s, and most merges are decided without it.
    with needing_torch("merging tensors"):
        from git_theta.merge.compute.engine import Engine

    return Engine(plan, workspace.storage, reader, prepasses)


def _skeletons(plan: Plan) -> Iterator[Chunk]:
    versions = plan.versions
    for side in versions.sides:
        yield from versions.shell(side).skeleton
    if versions.base:
        yield from versions.shell(BASE).skeleton


def _needed(plan: Plan) -> Iterator[Chunk]:
    """Yield the chunks of all tensors that are read."""
    taken = (action.entry for action in plan.kept if isinstance(action, Take))
    joined = (entry for unit in plan.units for entry in unit.inputs)
    for entry in chain(taken, joined):
        if isinstance(entry, TensorEntry):
            yield from entry.chunks
    for each in (plan, *plan.shards):
        yield from _merged_by(each)


def _merged_by(plan: Plan) -> Iterator[Chunk]:
    """Yield the chunks that are computed with, statistics included."""
    for action in (*plan.merges, *plan.scanned):
        for entry in (*action.inputs, *action.statistics):
            yield from entry.chunks


def _objects(chunks: Iterable[Chunk]) -> dict[str, int]:
    return {ref.oid: ref.size for chunk in chunks for ref in chunk.chain}


def _changed(plan: Plan, assembly: Assembly) -> set[int]:
    """Return the numbers of the spans that differ from the file that the skeleton is from."""
    if assembly.rebuilt.checksums:
        # They stand in a skeleton that no file had yet: none is right so far.
        return set(range(len(assembly.layout.spans)))
    taken = (action for action in plan.kept if isinstance(action, Take))
    same = {action.name for action in taken if assembly.side in action.holders}
    return {n for n, span in enumerate(assembly.layout.spans) if span.name not in same}


# --- the work, in the order of the file ----------------------------------------------------------

Pieces = Iterable[tuple[int, Bytes]]


@dataclass(frozen=True, slots=True)
class _Taken:
    """Chunks that are taken as they are, each with the number of its span."""

    chunks: Sequence[tuple[int, Chunk]]
    reader: Reader

    @property
    def weight(self) -> int:
        return sum(chunk.length for _, chunk in self.chunks)

    def load(self) -> Pieces:
        contents = self.reader.read([chunk for _, chunk in self.chunks])
        return [(n, data) for (n, _), data in zip(self.chunks, contents, strict=True)]


@dataclass(frozen=True, slots=True)
class _Merged:
    """A parameter that is computed when its bytes are asked for."""

    number: int
    action: Merge
    engine: Engine

    @property
    def weight(self) -> int:
        return self.action.weight

    def load(self) -> Pieces:
        return _merged(self.number, self.action, self.engine, self.engine.load(self.action))


def _merged(number: int, action: Merge, engine: Engine, inputs: Inputs) -> Pieces:
    merged = engine.merge(action, inputs)
    del inputs  # while the result is stored
    yield number, merged


@dataclass(frozen=True, slots=True)
class _Joined:
    """A parameter of a unit, which is computed when the first of its parameters is asked for."""

    number: int
    action: UnitMember
    engine: Engine

    @property
    def weight(self) -> int:
        return self.action.unit.weight

    def load(self) -> Pieces:
        return [(self.number, self.engine.member(self.action))]


_Work = _Taken | _Merged | _Joined


def _works(
    plan: Plan, assembly: Assembly, reader: Reader, engine: Engine | None
) -> Iterator[_Work]:
    actions = {action.name: action for action in plan.kept}
    order = [(number, actions[span.name]) for number, span in enumerate(assembly.layout.spans)]
    for is_taken, group in groupby(order, lambda pair: isinstance(pair[1], Take)):
        if is_taken:
            chunks = ((n, chunk) for n, action in group for chunk in _chunks(action))
            for batch in batches(chunks, lambda pair: pair[1].length, _BATCH):
                yield _Taken(batch, reader)
        else:
            yield from (_computed(number, action, engine) for number, action in group)


def _computed(
    number: int, action: Take | Merge | UnitMember, engine: Engine | None
) -> _Merged | _Joined:
    assert engine is not None, "there is one where anything is computed"
    if isinstance(action, UnitMember):
        return _Joined(number, action, engine)
    assert isinstance(action, Merge)
    return _Merged(number, action, engine)


def _chunks(action: Take | Merge | UnitMember) -> Sequence[Chunk]:
    return action.entry.chunks if isinstance(action.entry, TensorEntry) else ()


def _loaded(works: Iterable[_Work], threads: int) -> Pieces:
    """Yield what each piece of work makes; the next ones are loaded meanwhile."""
    loaded = ahead(lambda work: work.load(), works, lambda work: work.weight, BUDGET, threads)
    for pieces in loaded:
        yield from pieces
        del pieces


@dataclass(frozen=True, slots=True)
class Merged:
    """The text of the merged manifest, and notes for the user."""

    text: bytes
    notes: tuple[str, ...] = ()


def merge_checkpoint(
    plan: Plan,
    workspace: Workspace,
    prepasses: Prepasses | None = None,
    command: str | None = None,
) -> Merged:
    """Merge as planned; ``prepasses`` are those that files of one model share.

    ``command`` is what the user may type again, with more options; by default what resolves a
    conflict.

    Raises ``ConflictError``, which lists the conflicts, where there are any.
    """
    if plan.conflicts:
        raise conflict_error(plan)
    path, policy = plan.versions.path, plan.policy
    with naming(path), saying_how(command or resolving(path), policy.typed, policy):
        done = execute(plan, workspace, prepasses)
    return Merged(manifest.dump(_with_recipe(done, plan)), (*plan.notes, *done.notes))


def _with_recipe(done: Executed, plan: Plan) -> Manifest:
    sides = [contributor.manifest for contributor in plan.versions.contributors]
    if any(done.manifest is side for side in [*sides, plan.versions.base]):
        return done.manifest
    return replace(done.manifest, recipe=recipe_of(plan, done.device))
