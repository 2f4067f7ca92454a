"""Everything that a report shows, measured: two commits, checkpoint by checkpoint."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from git_theta.checkpoint.reader import Reader
from git_theta.commands.blame import Author, authors_of
from git_theta.commands.comparison import contents
from git_theta.commands.diff import Kind, Row, in_repository, rows_of
from git_theta.commands.diff.rows import Measured, measured
from git_theta.commands.diff.versions import Pair
from git_theta.commands.readable import Tell, refuse
from git_theta.commands.report.agreement import Agreement, agreements
from git_theta.commands.report.lineage import Node, lineage
from git_theta.commands.report.spectra import Spectrum, largest, spectra
from git_theta.commands.similar.checkpoints import Checkpoint, fetch
from git_theta.core.layout import natural_order
from git_theta.core.models import in_one_file
from git_theta.errors import UsageError
from git_theta.git import revisions
from git_theta.git.merge_heads import merge_bases
from git_theta.workspace import Workspace

Fate = Literal["first", "second", "alike", "both"]
"""Which branch changed a tensor: one of them, both to the same bytes, or both to others."""


@dataclass(slots=True)
class Model:
    """A checkpoint, or the files of one that is cut: what changed in it.

    ``agreements`` are those of tensors that two branches changed since their common ancestor,
    ``fates`` how many tensors which of them changed.
    """

    path: str
    files: int = 0
    changes: list[Measured] = field(default_factory=list)
    spectra: list[Spectrum] = field(default_factory=list)
    agreements: dict[str, Agreement] = field(default_factory=dict)
    fates: Counter[Fate] = field(default_factory=Counter)

    @property
    def rows(self) -> list[Row]:
        """What changed, by groups of tensors: the largest relative change first."""
        return rows_of(self.changes, by_tensor=False, order="change")

    @property
    def counts(self) -> Counter[Kind]:
        """Number of tensors by what happened to them."""
        found: Counter[Kind] = Counter()
        for each in self.changes:
            found[each.change.kind] += each.tensors
        return found


@dataclass(frozen=True, slots=True)
class Report:
    """Two commits as they were typed, and what changed from the first to the second.

    ``base`` is their common ancestor where both have commits of their own: they are branches.
    """

    names: tuple[str, str]
    commits: tuple[Author, Author]
    base: str | None
    models: tuple[Model, ...]
    lineage: tuple[Node, ...]


def report(
    workspace: Workspace,
    names: tuple[str, str],
    paths: Sequence[str] = (),
    tell: Tell = refuse,
) -> Report:
    """Compare two commits; ``paths`` are pathspecs in the user's folder that limit it.

    Objects of tensors that changed are fetched. ``tell`` gets the error of a version that cannot
    be read. Raises ``UsageError`` for what is no commit, and where no checkpoint differs.
    """
    repo = workspace.repo
    first, second = (revisions.commit_of(repo, name) for name in names)
    bases = merge_bases(repo, [first, second])
    base = bases[0] if bases and bases[0] not in (first, second) else None
    models: dict[str, Model] = {}
    with in_repository(workspace, [first, second], paths, tell=tell) as pairs:
        for pair in pairs:
            path = in_one_file(pair.path)
            model = models.setdefault(path, Model(path))
            _measure(workspace, model, pair)
            if base and pair.path == pair.before:
                _compare(workspace, model, pair.path, (base, first, second))
    if not models:
        raise UsageError(
            f"no checkpoint differs between {names[0]} and {names[1]}", hint="git theta log --all"
        )
    wanted = {path: largest(model.changes) for path, model in models.items()}
    with in_repository(workspace, [first, second], paths, tell=lambda _: None) as pairs:
        for pair in pairs:
            path = in_one_file(pair.path)
            models[path].spectra += spectra(pair, wanted[path])
    authors = authors_of(repo, {first, second})
    return Report(
        names=names,
        commits=(authors[first], authors[second]),
        base=base,
        models=tuple(models[path] for path in sorted(models, key=natural_order)),
        lineage=lineage(repo, dict(zip(names, (first, second), strict=True)), paths),
    )


def _measure(workspace: Workspace, model: Model, pair: Pair) -> None:
    model.files += 1
    model.changes += measured(pair, workspace.storage.settings.workers, workspace)


def _compare(workspace: Workspace, model: Model, path: str, commits: tuple[str, str, str]) -> None:
    """Compare what two branches changed in a checkpoint since their common ancestor."""
    base, *ends = commits
    checkpoint = Checkpoint(workspace.repo, path, base)
    keys = [checkpoint.key(commit) for commit in (base, *ends)]
    tensors = [contents(checkpoint.version(key).manifest) for key in keys]
    model.fates += _fates(*tensors)
    one, other = (checkpoint.changes(key) for key in keys[1:])
    fetch(workspace, [one, other])
    workers = workspace.storage.settings.workers
    model.agreements |= agreements(one, other, Reader(workspace.storage), workers)


def _fates(
    base: dict[str, tuple[object, ...]],
    first: dict[str, tuple[object, ...]],
    second: dict[str, tuple[object, ...]],
) -> Counter[Fate]:
    found: Counter[Fate] = Counter()
    for name in base.keys() | first.keys() | second.keys():
        was, one, other = (version.get(name) for version in (base, first, second))
        if one == other:
            found["alike"] += one != was
        elif other == was:
            found["first"] += 1
        else:
            found["second" if one == was else "both"] += 1
    return found
