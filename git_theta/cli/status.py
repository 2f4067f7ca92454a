"""``git theta status``."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

import click

from git_theta.cli import whole_files
from git_theta.cli.exit_handling import end_with
from git_theta.cli.text import flat, print_json, printable, tensor_changes
from git_theta.commands.status import Change, Conflict, ModelChange, changes
from git_theta.commands.whole_files import in_index
from git_theta.core.messages import as_typed, plural
from git_theta.errors import ConflictError, ManifestError
from git_theta.git import Repository

_WORK_TREE = {
    "modified": "the file differs from the index: git add {path}",
    "missing": "the file is gone: git checkout -- {path}, or git rm {path}",
    "manifest": "the file is still a manifest: git theta checkout {path}",
}


@click.command("status")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, unchanged checkpoints too.")
def command(as_json: bool) -> None:
    """Show changed checkpoints: tensors and bytes stored.

    Staged changes are compared with HEAD, a model in several files as one. Exits with 36 while
    checkpoints are in conflict.

    \b
    Examples:
      git theta status
      git theta status --json
    """
    with Repository.discover() as repo:
        unread = list[ManifestError]()
        rows, models = changes(repo, unread.append)
        prefix = os.path.relpath(repo.folder, repo.top)
        found = in_index(repo)
        whole = whole_files.lines(repo, found, prefix)
        documents = whole_files.documents(repo, found) if as_json else []
    for line in whole:
        click.echo(printable(line), err=True)
    if as_json:
        files, whole_models = [flat(row) for row in rows], [flat(row) for row in models]
        print_json({"checkpoints": files, "models": whole_models, "whole_files": documents})
    else:
        for line in [*_text(rows, models, prefix)] or [_nothing(rows, models)]:
            click.echo(line)
    if any(row.conflict for row in rows):
        raise SystemExit(ConflictError.exit_code)
    end_with(unread)


def _text(rows: Sequence[Change], models: Sequence[ModelChange], prefix: str) -> Iterator[str]:
    """Yield what changed: of a model in several files what is staged, of each file the rest."""
    parts = {path for model in models for path in model.files}
    for model in models:
        if model.staged != "unchanged":
            name = printable(os.path.relpath(model.path, prefix))
            counts = tensor_changes(model.staged, model.difference)
            yield f"{model.staged}: {name} in {plural(len(model.files), 'file')}: {counts}"
    for row in rows:
        yield from _lines(row, prefix, of_model=row.path in parts)


def _nothing(rows: Sequence[Change], models: Sequence[ModelChange]) -> str:
    parts = sum(len(model.files) for model in models)
    return f"{plural(len(rows) - parts + len(models), 'checkpoint')}, nothing changed"


def _lines(row: Change, prefix: str, *, of_model: bool) -> list[str]:
    """Return what there is to say of a checkpoint, with paths as they are typed in the folder."""
    path = os.path.relpath(row.path, prefix)
    name, typed = printable(path), printable(as_typed(path))
    lines = [f"{name}: {_conflict(row.conflict, typed)}"] if row.conflict else []
    if row.staged not in ("unchanged", "conflict") and not of_model:
        named = f"{printable(os.path.relpath(row.before, prefix))} -> {name}"
        shown = named if row.staged == "renamed" else name
        lines.append(f"{row.staged}: {shown}: {tensor_changes(row.staged, row.difference)}")
    if row.work_tree in _WORK_TREE:
        lines.append(f"{name}: {_WORK_TREE[row.work_tree].format(path=typed)}")
    if row.missing:
        lines.append(f"{name}: {plural(row.missing, 'object')} not here: git theta fetch")
    return lines


def _conflict(conflict: Conflict, typed: str) -> str:
    if conflict.only_in:
        alone = f"in conflict: only in {printable(conflict.only_in)}"
        return f"{alone}: git add {typed} keeps it, git rm {typed} removes it"
    sides = printable(f"{conflict.ours}, {conflict.theirs}")
    # None where an adapter's tensors and its configuration are of different sides.
    tensors = f": {plural(conflict.tensors, 'tensor')}" if conflict.tensors else ""
    return f"in conflict{tensors} ({sides}): git theta resolve {typed} --strategy NAME"
