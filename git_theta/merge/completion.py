"""A merge that is planned is carried out: checked, computed, and committed or written to files.

Plans are made, tensors merged and the commit made in one process: in `git merge`, each checkpoint
has a driver of its own, which plans again and imports torch again (3 s).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from git_theta import manifest, transfer
from git_theta.checkpoint.smudge import smudge_to
from git_theta.core.files import atomic_file
from git_theta.core.messages import as_typed
from git_theta.errors import ConflictError, MergeError, UsageError, naming
from git_theta.git.merge_commit import (
    begin_merge,
    check_out,
    check_ready,
    commit_merge,
    held,
    tree_with,
)
from git_theta.git.merge_heads import Heads, merge_message
from git_theta.merge.compute.executor import merge_checkpoint
from git_theta.merge.planning.actions import Plan
from git_theta.merge.planning.conflicts import conflict_error
from git_theta.workspace import Workspace

if TYPE_CHECKING:
    from git_theta.merge.compute.engine import Prepasses


@dataclass(frozen=True, slots=True)
class Prepared:
    """Everything decided, nothing done: the tree that git merged, and a plan per checkpoint.

    ``conflicts`` are other files that git could not merge. ``files`` are configurations of merged
    adapters, by path. ``unseen`` are checkpoints that git would merge without asking our driver,
    and wrongly; ``removed`` are files of a model that is cut into others. ``deleted`` are those of
    the conflicts that a head deleted, ``typed`` options of strategies. ``command`` are the words
    after `git theta merge` that ask for the same, and ``message`` is the commit's, where they are
    not made of the branches.
    """

    heads: Heads
    tree: str
    plans: tuple[Plan, ...]
    conflicts: tuple[str, ...]
    files: dict[str, bytes]
    unseen: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    deleted: tuple[str, ...] = ()
    typed: tuple[str, ...] = ()
    command: str | None = None
    message: str | None = None

    @property
    def may_be_for_git(self) -> bool:
        """Return whether `git merge` would make the same of the branches."""
        return not self.unseen and self.heads.given_base is None

    @property
    def is_for_git(self) -> bool:
        """Return whether only `git merge` can make this merge of one branch.

        It leaves conflicts to be resolved, merges several ancestors to one, and needs no driver
        where no checkpoint changed on both sides: a fast-forward is such a merge.
        """
        if not self.may_be_for_git:
            return False
        is_left = bool(self.conflicts) or any(plan.conflicts for plan in self.plans)
        return is_left or self.heads.is_crossed or not self.plans


def complete(
    workspace: Workspace, prepared: Prepared, message: str | None, commit: bool
) -> list[str]:
    """Merge the checkpoints, then bring index and work tree to the result, and commit it.

    Return notes for the user. Until all tensors are merged nothing is changed; a work tree that
    could not be brought to the result is put back as it was. Raises ``MergeError`` where a branch
    moved, or another operation began, while tensors were merged.
    """
    texts, notes = _merged(workspace, prepared)
    repo = workspace.repo
    tree = tree_with(repo, prepared.tree, texts, prepared.removed)
    heads = prepared.heads
    with held(repo, heads.head):
        check_ready(repo)
        check_out(repo, heads.head.commit, tree)
        begin_merge(repo, heads, message or prepared.message or merge_message(repo, heads))
    if commit:
        commit_merge(repo)
    return notes


def _merged(workspace: Workspace, prepared: Prepared) -> tuple[dict[str, bytes], list[str]]:
    """Return the text of each merged file by path, and notes for the user."""
    check_mergeable(prepared)
    texts, notes = dict(prepared.files), list(prepared.notes)
    prepasses: Prepasses = {}
    for plan in prepared.plans:
        merged = merge_checkpoint(plan, workspace, prepasses, _command(prepared, plan))
        texts[plan.versions.path] = merged.text
        notes += [f"{plan.versions.path}: {note}" for note in merged.notes]
    return texts, notes


def write_output(workspace: Workspace, prepared: Prepared, target: Path) -> list[str]:
    """Write what the merge makes to ``target``, and change nothing else; return notes.

    One checkpoint to a file of that name, what are several files below that folder. Each appears
    whole or not at all. Raises ``UsageError`` where nothing was merged.
    """
    texts, notes = _merged(workspace, prepared)
    if not prepared.plans:
        raise UsageError(
            "there is nothing to write: no checkpoint changed on several branches",
            hint="--all also merges what only one branch changed",
        )
    is_one = len(texts) == 1 and not target.is_dir()
    for path, text in texts.items():
        file = target if is_one else _below(target, path)
        file.parent.mkdir(parents=True, exist_ok=True)
        with naming(path):
            _write(workspace, path, text, file)
        notes.append(f"{file} is written")
    return notes


def _below(folder: Path, path: str) -> Path:
    file = folder / path
    if not file.resolve().is_relative_to(folder.resolve()):
        raise MergeError("this path leads out of the folder", path=path)
    return file


def _write(workspace: Workspace, path: str, text: bytes, file: Path) -> None:
    with atomic_file(file) as output:
        if not manifest.is_manifest(text):
            output.write(text)
            return
        described = manifest.parse(text)
        transfer.fetch(workspace, described.objects())
        smudge_to(described, workspace.storage, output, path)


def check_mergeable(prepared: Prepared) -> None:
    """Raise ``ConflictError`` where anything is in conflict, before any tensor is loaded."""
    for plan in prepared.plans:
        if plan.conflicts:
            # First: the configuration of an adapter may be in conflict until it is merged.
            raise conflict_error(plan, "nothing was changed", _command(prepared, plan))
    if prepared.conflicts:
        listed = ", ".join(prepared.conflicts)
        raise ConflictError(
            f"git cannot merge these files of the branches: {listed}; nothing was changed",
            hint=_for_files(prepared),
        )


def _for_files(prepared: Prepared) -> str:
    """Return the commands that settle conflicts of other files."""
    heads, again = prepared.heads, " ".join([_command(prepared), *prepared.typed])
    if set(prepared.conflicts) <= set(prepared.deleted):
        return f"{again} --deleted keep (or --deleted remove)"
    if len(heads.others) > 1 and heads.given_base is None:
        return one_after_another(heads, prepared.typed)
    # Git would leave them in conflict; here theirs are committed before the merge.
    words = " ".join(map(as_typed, prepared.conflicts))
    other = as_typed(heads.others[0].name)
    return f"git checkout {other} -- {words} && git commit -m 'Take files of a branch' && {again}"


def _command(prepared: Prepared, plan: Plan | None = None) -> str:
    """Return the command that asks for the same merge, without the options of strategies."""
    if prepared.command:
        return f"git theta merge {prepared.command}"
    return merge_command(prepared.heads, bool(plan and plan.policy.include_one_sided))


def one_after_another(heads: Heads, options: Sequence[str]) -> str:
    """Return the commands that merge each branch on its own, as git can."""
    each = (merge_command(replace(heads, others=(head,)), False) for head in heads.others)
    return " && ".join(" ".join([command, *options]) for command in each)


def merge_command(heads: Heads, include_one_sided: bool) -> str:
    """Return the command that merges the heads, without the options of strategies."""
    words = [as_typed(head.name) for head in heads.others]
    words += ["--all"] if include_one_sided else []
    words += ["--base", as_typed(heads.given_base)] if heads.given_base else []
    return f"git theta merge {' '.join(words)}"
