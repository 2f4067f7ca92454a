"""Settle a checkpoint that a merge left in conflict."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from git_theta.core.system import atomic_file
from git_theta.errors import MergeError
from git_theta.filters.deferred import checkout_deferred, stubs
from git_theta.git import Repository, staging, worktree
from git_theta.merge import adapter_config
from git_theta.merge.heads import current_branch
from git_theta.merge.merging import carry_out, make_plan, policy_for
from git_theta.merge.operation import under_way
from git_theta.merge.plan import Plan
from git_theta.merge.prompts import NAME as PROMPT
from git_theta.merge.request import Request, all_rules
from git_theta.merge.rules import Rule
from git_theta.merge.shards import note_of, with_other_files
from git_theta.merge.sources import adapter_of, common_commit, config_path, contributor, version
from git_theta.merge.versions import Versions
from git_theta.workspace import Workspace

Ask = Callable[[Plan, Plan], Sequence[Rule]]

_QUOTED = re.compile(r"'([^']+)'")
# A strategy for whatever any strategy can merge.
_ANY = (Rule("*.lora_*", "svd"), Rule(PROMPT, "concat"), Rule("*", "average"))
_BASE, _OURS, _THEIRS = 1, 2, 3


@dataclass(frozen=True, slots=True)
class Resolved:
    """How the conflict was settled, and what the user should know."""

    plan: Plan
    notes: tuple[str, ...]


def resolve(workspace: Workspace, path: str, request: Request, ask: Ask | None = None) -> Resolved:
    """Merge the versions of ``path`` that the index holds, and stage the result.

    ``ask`` gives further rules for a plan that has conflicts left; its second argument is a plan
    in which everything is merged that any strategy can merge. Raises ``MergeError``, leaving
    everything as it is, when there is no conflict at ``path`` or one remains.
    """
    repo = workspace.repo
    stages = _stages(repo, path)
    versions = _versions(repo, path, stages)
    rules = all_rules(request, repo)
    plan = _plan(workspace, versions, rules, request)
    if plan.conflicts and ask:
        possible = _plan(workspace, versions, _ANY, request)
        plan = _plan(workspace, versions, [*ask(plan, possible), *rules], request)
    theirs, base = _commits(repo)
    sides = list(zip(versions.names, ("HEAD", theirs), strict=True)) if theirs else None
    plan = with_other_files(plan, workspace, sides, base)
    files = {} if plan.conflicts else _files(workspace, plan)
    merged = carry_out(plan, workspace)
    _settle(workspace, path, merged.text)
    for name, text in files.items():
        _write(repo, name, text)
        worktree.refresh(repo, [name])
    renewed = (f"{name} is renewed" for name in files)
    return Resolved(plan, (*merged.notes, *note_of(plan), *renewed))


def _files(workspace: Workspace, plan: Plan) -> dict[str, bytes]:
    """What must be written beside the checkpoint, if what the work tree has there will not do."""
    file = (workspace.repo.work_tree or Path()) / config_path(plan.versions.path)
    try:
        before: bytes | None = file.read_bytes()
    except OSError:
        before = None
    return adapter_config.files(plan, before)


def _plan(
    workspace: Workspace, versions: Versions, rules: Sequence[Rule], request: Request
) -> Plan:
    fixed = policy_for(under_way(workspace.repo), [], versions).rules
    policy = policy_for("merge", [*rules, *fixed], versions, request.every, request.allow_nan)
    return make_plan(versions, policy, workspace)


def _stages(repo: Repository, path: str) -> dict[int, bytes]:
    """The versions in the index, by stage."""
    blobs = {entry.stage: entry.blob for entry in repo.index() if entry.path == path}
    found = {stage: repo.read_blob(blob) or b"" for stage, blob in blobs.items() if stage}
    if not found:
        raise MergeError("is not in conflict", path=path, hint="git status lists what is")
    for stage, verb in ((_OURS, "theirs changed"), (_THEIRS, "ours changed")):
        if stage not in found:
            raise MergeError(
                f"{verb} it, the other side deleted it",
                path=path,
                hint=f"git add {path} keeps it, git rm {path} removes it",
            )
    return found


def _versions(repo: Repository, path: str, stages: dict[int, bytes]) -> Versions:
    theirs, base = _commits(repo)
    names = ("ours", "theirs")
    if merging := _merging(repo):
        names = (current_branch(repo), _merged_name(repo, merging))
    if names[0] == names[1]:
        names = ("ours", "theirs")
    ancestor = version(stages.get(_BASE), "the common ancestor")
    return Versions(
        (
            contributor(repo, names[0], stages[_OURS], path, "HEAD"),
            contributor(repo, names[1], stages[_THEIRS], path, theirs),
        ),
        ancestor,
        path,
        adapter_of(repo, ancestor, base, path),
    )


def _merging(repo: Repository) -> str | None:
    """The commit that is merged; ``None`` where none is, or several are, and it may be any."""
    try:
        heads = (repo.git_dir / "MERGE_HEAD").read_text("utf-8").split()
    except OSError:
        return None
    return heads[0] if len(heads) == 1 else None


def _commits(repo: Repository) -> tuple[str | None, str | None]:
    """Theirs and the common ancestor, as far as git tells."""
    if merging := _merging(repo):
        return merging, common_commit(repo, {"ours": "HEAD", "theirs": merging})
    for name in ("REBASE_HEAD", "CHERRY_PICK_HEAD"):
        if commit := repo.resolve(name):
            return commit, repo.resolve(f"{commit}^")
    if commit := repo.resolve("REVERT_HEAD"):
        return repo.resolve(f"{commit}^"), commit
    return None, None


def _merged_name(repo: Repository, commit: str) -> str:
    """What the user called the commit that is merged, as git's message quotes it."""
    try:
        message = (repo.git_dir / "MERGE_MSG").read_text("utf-8", "replace")
    except OSError:
        return "theirs"
    names = _QUOTED.findall(message.partition("\n")[0])
    return next((name for name in names if repo.resolve(name) == commit), "theirs")


def _settle(workspace: Workspace, path: str, text: bytes) -> None:
    """Make the merged version what index and work tree have."""
    _write(workspace.repo, path, text)
    checkout_deferred(workspace, stubs(workspace, [path]))


def _write(repo: Repository, path: str, text: bytes) -> None:
    """Write a file and stage it, its mode kept."""
    file = (repo.work_tree or Path()) / path
    mode = "100755" if file.is_file() and file.stat().st_mode & 0o100 else "100644"
    with atomic_file(file, mode=int(mode[3:], 8)) as output:
        output.write(text)
    staging.stage(repo, path, text, mode)
