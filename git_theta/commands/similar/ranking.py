"""Revisions ranked by how much alike their task vectors are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from git_theta.checkpoint.reader import Reader
from git_theta.commands.similar.cache import SketchCache
from git_theta.commands.similar.checkpoints import Checkpoint, Key, fetch
from git_theta.commands.similar.refs import Revision
from git_theta.commands.similar.sketches import SIZE
from git_theta.commands.similar.task2vec import distances
from git_theta.commands.similar.vectors import Changes, inner_products, sketch
from git_theta.core.parallel import in_order
from git_theta.errors import UsageError
from git_theta.git import Repository, revisions
from git_theta.git.merge_heads import merge_bases
from git_theta.workspace import Workspace

Doubles = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Similarities:
    """Cosines of the task vectors of revisions since the commit ``base``, and their L2 norms.

    ``products`` (n, n) are the inner products; a cosine is ``None`` where a revision changed
    nothing. ``distances`` (n, n) are Task2Vec's where they were asked for, NaN if not known.
    """

    base: str | None
    paths: tuple[str, ...]
    revisions: tuple[Revision, ...]
    products: Doubles
    is_exact: bool
    distances: Doubles | None = None

    def norm(self, at: int) -> float | None:
        """Return the L2 norm of a task vector; ``None`` where it is too long for a number."""
        norm = float(np.sqrt(max(0.0, self.products[at, at])))
        return norm if math.isfinite(norm) else None

    def cosine(self, one: int, other: int) -> float | None:
        """Return the cosine of two task vectors; ``None`` where either has no length."""
        lengths = (self.norm(one) or 0.0) * (self.norm(other) or 0.0)
        if not lengths or not math.isfinite(lengths):
            return None
        return max(-1.0, min(1.0, float(self.products[one, other]) / lengths))

    def distance(self, one: int, other: int) -> float | None:
        """Return the Task2Vec distance of two revisions; ``None`` where it is not known."""
        if self.distances is None or math.isnan(self.distances[one, other]):
            return None
        return float(self.distances[one, other])

    def ranked(self) -> list[int]:
        """Return the numbers of all revisions but the first, the most similar to it first.

        By distance, where those were asked for, else by cosine; unknown ones come last.
        """

        def order(at: int) -> tuple[bool, float]:
            if self.distances is not None:
                distance = self.distance(0, at)
                return distance is None, distance or 0.0
            cosine = self.cosine(0, at)
            return cosine is None, -(cosine or 0.0)

        return sorted(range(1, len(self.revisions)), key=order)


def similar(
    workspace: Workspace,
    found: Sequence[Revision],
    paths: Sequence[str] = (),
    base: str | None = None,
    exact: bool = False,
    task2vec: Literal["no", "first", "all"] = "no",
) -> Similarities:
    """Compare the task vectors of revisions, over the checkpoints that the first one has.

    ``paths`` are Git's, folders or globs, and limit it to checkpoints; ``base`` is the commit that
    they are differences to, by default the best common ancestor of all. ``task2vec`` adds the
    distances to the first one, or those of all pairs. Objects that are needed are fetched. Refs
    without any of the checkpoints are left out. Raises ``UsageError`` where the first has none, and
    where there is nothing to compare it with.
    """
    repo = workspace.repo
    chosen = _paths(repo, found[0].commit, paths)
    found = [each for each in found if each.is_typed or _has_any(repo, each.commit, chosen)]
    if len(found) < 2:
        raise UsageError("there is no other revision to compare", hint="git branch -a")
    commits = [each.commit for each in found]
    bases = [revisions.commit_of(repo, base)] if base else merge_bases(repo, commits)
    start = bases[0] if bases else None
    checkpoints = [Checkpoint(repo, path, start) for path in chosen]
    if exact:
        products = _exact(workspace, checkpoints, commits)
    else:
        sketches = _sketches(workspace, checkpoints, commits)
        products = sketches @ sketches.T
    apart = None if task2vec == "no" else distances(workspace, commits, chosen, task2vec == "all")
    return Similarities(start, tuple(chosen), tuple(found), products, exact, apart)


def _paths(repo: Repository, commit: str, wanted: Sequence[str]) -> list[str]:
    there = [entry.path for entry, _ in repo.manifests(repo.tree(commit))]
    chosen = [path for path in there if not wanted or any(_covers(each, path) for each in wanted)]
    if not chosen:
        raise UsageError(
            f"{commit[:12]} has no checkpoint{' there' if wanted else ''}",
            hint=f"git theta ls-files {commit[:12]}",
        )
    return chosen


def _has_any(repo: Repository, commit: str, paths: Sequence[str]) -> bool:
    return any(repo.identify(f"{commit}:{path}") for path in paths)


def _covers(wanted: str, path: str) -> bool:
    return wanted in (path, ".") or path.startswith(f"{wanted}/") or fnmatchcase(path, wanted)


def _exact(
    workspace: Workspace, checkpoints: Sequence[Checkpoint], commits: Sequence[str]
) -> Doubles:
    total = np.zeros((len(commits), len(commits)))
    for checkpoint in checkpoints:
        changes = [checkpoint.changes(checkpoint.key(commit)) for commit in commits]
        fetch(workspace, changes)
        total += inner_products(changes, Reader(workspace.storage))
    return total


def _sketches(
    workspace: Workspace, checkpoints: Sequence[Checkpoint], commits: Sequence[str]
) -> Doubles:
    """Return a row for each revision; those that were never computed are kept then."""
    cache = SketchCache(workspace.repo.theta_dir)
    total = np.zeros((len(commits), SIZE))
    for checkpoint in checkpoints:
        keys = [checkpoint.key(commit) for commit in commits]
        wanted = {key for key in keys if not checkpoint.is_base(key)}
        known = {key: cache.read(*checkpoint.content(key)) for key in wanted}
        missing = {key: checkpoint.changes(key) for key, row in known.items() if row is None}
        fetch(workspace, list(missing.values()))
        content = Reader(workspace.storage)
        work = partial(_computed, checkpoint.path, content)
        rows = in_order(work, missing.items(), workspace.storage.settings.workers)
        for key, row in rows:
            known[key] = cache.write(row, *checkpoint.content(key))
        for at, key in enumerate(keys):
            sketch_of = known.get(key)
            if sketch_of is not None:
                total[at] += sketch_of
        if missing:
            cache.tidy()
    return total


def _computed(path: str, content: Reader, item: tuple[Key, Changes]) -> tuple[Key, Doubles]:
    key, changes = item
    return key, sketch(path, changes, content)
