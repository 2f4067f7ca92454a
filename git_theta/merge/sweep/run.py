"""Go from point to point: merge into a scratch work tree, run the user's command, keep scores."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from git_theta.errors import MergeError, naming
from git_theta.git.merge_commit import tree_with
from git_theta.git.scratch_tree import scratch_tree
from git_theta.merge.completion import Prepared, check_mergeable
from git_theta.merge.compute.executor import merge_checkpoint
from git_theta.merge.planning.actions import Plan
from git_theta.merge.planning.policy import needing_torch
from git_theta.merge.sweep.evaluation import Evaluation
from git_theta.merge.sweep.space import Values
from git_theta.merge.sweep.table import Point, Table
from git_theta.workspace import Workspace

if TYPE_CHECKING:
    from git_theta.merge.compute.points import PointFile

Prepare = Callable[[Values], Prepared]
"""Plans the merge of a point."""


def sweep(
    workspace: Workspace,
    prepare: Prepare,
    evaluation: Evaluation,
    wanted: Sequence[Values],
    table: Table,
) -> Iterator[Point]:
    """Score the ``wanted`` points that ``table`` has no scores of; yield each when it is kept.

    A point that cannot be merged or scored is kept with the reason;
    where it is the first of all, that is raised: the command is probably wrong.
    """
    missing = [values for values in wanted if not table.scored(values)]
    with ExitStack() as stack:
        stack.callback(evaluation.close)
        tree: _Tree | None = None
        for values in missing:
            prepared = prepare(values)
            check_mergeable(prepared)
            if tree is None:
                tree = _Tree.opened(workspace, prepared, stack)
            point = _scored(tree, prepared, values, evaluation, table)
            if point.error and not any(each.scores for each in table.points(wanted)):
                raise MergeError(f"{_words(values)}: {point.error}")
            table.add(point)
            yield point


def _words(values: Values) -> str:
    return ", ".join(f"{name}={value}" for name, value in values)


def _scored(
    tree: _Tree, prepared: Prepared, values: Values, evaluation: Evaluation, table: Table
) -> Point:
    begin = middle = time.perf_counter()
    hashes: Mapping[str, str] = {}
    try:
        hashes = tree.merge(prepared)
        middle = time.perf_counter()
        scores = evaluation.score(tree.model, tree.folder)
        _check_alike(scores, table)
    except MergeError as error:
        return Point(values, error=error.message, seconds=_times(begin, middle))
    return Point(values, scores, hashes=hashes, seconds=_times(begin, middle))


def _times(begin: float, middle: float) -> tuple[float, float]:
    return middle - begin, time.perf_counter() - middle


def _check_alike(scores: Mapping[str, float], table: Table) -> None:
    known = table.objectives
    if known and set(known) != set(scores):
        raise MergeError(
            f"the evaluation printed {', '.join(scores)}; for other points {', '.join(known)}"
        )


@dataclass
class _Tree:
    """A scratch work tree in which the merged checkpoints are written anew for each point."""

    workspace: Workspace
    folder: Path
    scratch: Path
    files: dict[str, PointFile] = field(default_factory=dict)

    @classmethod
    def opened(cls, workspace: Workspace, prepared: Prepared, stack: ExitStack) -> _Tree:
        """Check out what is the same at all points."""
        computed = [plan.versions.path for plan in _computed(prepared)]
        if not computed:
            raise MergeError(
                "nothing to sweep: no tensor is merged by a strategy",
                hint="--all also merges what only one branch changed",
            )
        texts = {
            plan.versions.path: merge_checkpoint(plan, workspace).text
            for plan in prepared.plans
            if plan.versions.path not in computed
        }
        tree = tree_with(workspace.repo, prepared.tree, texts | prepared.files, prepared.removed)
        left_out = [*computed, *_elsewhere(workspace, tree, computed)]
        tree = tree_with(workspace.repo, tree, {}, left_out)
        folder = stack.enter_context(scratch_tree(workspace.repo, tree))
        return cls(workspace, folder, folder.parent)

    def merge(self, prepared: Prepared) -> dict[str, str]:
        """Bring the checkpoints to a point; return their BLAKE3 hashes by path."""
        with needing_torch("merging tensors"):
            from git_theta.merge.compute.points import PointFile
        hashes = {}
        for plan in _computed(prepared):
            path = plan.versions.path
            file = self.files.setdefault(
                path, PointFile(self.workspace, self.folder / path, self.scratch)
            )
            with naming(path):
                hashes[path] = file.write(plan)
        for path, text in prepared.files.items():
            (self.folder / path).write_bytes(text)
        return hashes

    @property
    def model(self) -> Path | None:
        """The merged checkpoint, if there is only one."""
        paths = [self.folder / path for path in self.files]
        return paths[0] if len(paths) == 1 else None


def _computed(prepared: Prepared) -> list[Plan]:
    return [plan for plan in prepared.plans if plan.merges or plan.units]


def _elsewhere(workspace: Workspace, tree: str, computed: Sequence[str]) -> list[str]:
    """Return the checkpoints of other folders, which would take time and disk for nothing."""
    folders = {PurePosixPath(path).parent for path in computed}
    found = (entry for entry, _ in workspace.repo.manifests(workspace.repo.tree(tree)))
    return [entry.path for entry in found if PurePosixPath(entry.path).parent not in folders]


def with_table(prepared: Prepared, summary: Mapping[str, object]) -> Prepared:
    """Return the merge with the table of a sweep in the recipes of its checkpoints."""
    plans = (
        replace(plan, policy=replace(plan.policy, sweep=summary))
        if plan.merges or plan.units
        else plan
        for plan in prepared.plans
    )
    return replace(prepared, plans=tuple(plans))
