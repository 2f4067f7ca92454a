"""A migration from its request to refs that have moved, or to an error and nothing changed."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace

from git_theta.commands.migrate import moving
from git_theta.commands.migrate.attributes import LFS, PLAIN, THETA
from git_theta.commands.migrate.commits import HistoryRewriter
from git_theta.commands.migrate.exporting import Export
from git_theta.commands.migrate.importing import Import
from git_theta.commands.migrate.journal import Journal
from git_theta.commands.migrate.manifests import to_export
from git_theta.commands.migrate.opening import Opened, opened
from git_theta.commands.migrate.request import Outcome, Request
from git_theta.commands.migrate.trees import TreeRewriter
from git_theta.commands.migrate.versions import fetch_missing, stored_size, to_import
from git_theta.git import entries
from git_theta.workspace import Workspace

Warn = Callable[[str], None]


def run_import(workspace: Workspace, request: Request, warn: Warn) -> Outcome:
    """Rewrite history so that git-theta stores the chosen files.

    Every version is decoded again and compared before any ref moves. What was converted is kept
    when the run ends early, and used by the next one. Raises ``ThetaError`` with nothing changed.
    """
    with ExitStack() as stack:
        begun = opened(stack, workspace, request, THETA.name)
        repo, progress = begun.place.repo, workspace.storage.progress
        versions = to_import(repo, begun.tips, begun.globs)
        remotes = [] if request.dry_run else repo.remotes()
        fetch_missing(workspace.repo, versions.values(), remotes, progress)
        journal = Journal(None if request.dry_run else begun.folder / "import")
        progress.start("Importing", sum(2 * each.size for each in versions.values()))
        conversion = Import(begun.place, begun.writer, versions, journal, progress, warn)
        history = _rewrite(begun, conversion)
        progress.finish()
        texts = entries.disk_sizes(repo.git, set(conversion.done.values()))
        after = sum(conversion.objects.values()) + sum(texts.values())
        before = stored_size(repo, versions.values())
        outcome = _outcome(begun, history, len(versions), before, after)
        if request.dry_run:
            return outcome
        reason = "git theta migrate import"
        return moving.move(workspace, begun.folder, outcome, history.commits, request, reason)


def run_export(workspace: Workspace, request: Request, warn: Warn) -> Outcome:
    """Rewrite history so that Git LFS, or Git itself, stores the chosen files; see ``run_import``.

    With ``dry_run`` nothing is decoded: files take what they are long.
    """
    with ExitStack() as stack:
        begun = opened(stack, workspace, request, (PLAIN if request.plain else LFS).name)
        repo, progress = begun.place.repo, workspace.storage.progress
        found = to_export(begun.place, begun.tips, begun.globs, warn)
        after, before = found.size, sum(found.objects.values())
        before += sum(entries.disk_sizes(repo.git, found.places).values())
        if request.dry_run:
            return Outcome(len(found.places), before, after, 0, {})
        found.fetch(workspace)
        journal = Journal(begun.folder / ("export-plain" if request.plain else "export"))
        progress.start("Exporting", after)
        conversion = Export(
            begun.place, begun.writer, found.places, journal, progress, request.plain
        )
        history = _rewrite(begun, conversion)
        progress.finish()
        after = sum(conversion.objects.values())
        if request.plain:
            after = sum(entries.disk_sizes(repo.git, set(conversion.done.values())).values())
        outcome = _outcome(begun, history, len(found.places), before, after)
        reason = "git theta migrate export"
        return moving.move(workspace, begun.folder, outcome, history.commits, request, reason)


def _rewrite(begun: Opened, conversion: Import | Export) -> HistoryRewriter:
    repo, writer = begun.place.repo, begun.writer
    trees = TreeRewriter(repo, writer, begun.globs, conversion, begun.tracked)
    history = HistoryRewriter(repo, writer, trees, conversion)
    history.rewrite(begun.tips)
    return history


def _outcome(
    begun: Opened, history: HistoryRewriter, versions: int, before: int, after: int
) -> Outcome:
    targets = {name: (old, history.new_target(old)) for name, old in begun.refs.items()}
    moved = {name: (old, new) for name, (old, new) in targets.items() if old != new}
    rewritten = sum(old != new for old, new in history.commits.items())
    outcome = Outcome(versions, before, after, rewritten, moved)
    return replace(outcome, signatures=history.signatures)
