"""Settle a checkpoint that a merge left in conflict."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from git_theta.errors import MergeError
from git_theta.git import Repository, staging
from git_theta.materialise import materialise, stubs
from git_theta.merge.heads import current_branch
from git_theta.merge.merging import (
    carry_out,
    contributor,
    make_plan,
    policy_for,
    version,
)
from git_theta.merge.operation import under_way
from git_theta.merge.plan import Plan
from git_theta.merge.request import Request, all_rules
from git_theta.merge.rules import Rule
from git_theta.merge.versions import Versions
from git_theta.system import atomic_file
from git_theta.workspace import Workspace

Ask = Callable[[Plan, Plan], Sequence[Rule]]

_QUOTED = re.compile(r"'([^']+)'")
_ANY = Rule("*", "average")
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
        possible = _plan(workspace, versions, [*rules, _ANY], request)
        plan = _plan(workspace, versions, [*ask(plan, possible), *rules], request)
    merged = carry_out(plan, workspace)
    _settle(workspace, path, merged.text)
    return Resolved(plan, merged.notes)


def _plan(
    workspace: Workspace, versions: Versions, rules: Sequence[Rule], request: Request
) -> Plan:
    fixed = policy_for(under_way(workspace.repo), [], versions).rules
    policy = policy_for("merge", [*rules, *fixed], versions, request.every)
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
    merging = repo.resolve("MERGE_HEAD")
    theirs = _merged_name(repo, merging) if merging else "theirs"
    ours = current_branch(repo) if merging else "ours"
    if ours == theirs:
        ours, theirs = "ours", "theirs"
    return Versions(
        (
            contributor(repo, ours, stages[_OURS], path, "HEAD"),
            contributor(repo, theirs, stages[_THEIRS], path, merging),
        ),
        version(stages.get(_BASE), "the common ancestor"),
        path,
    )


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
    repo = workspace.repo
    file = (repo.work_tree or Path()) / path
    mode = "100755" if file.is_file() and file.stat().st_mode & 0o100 else "100644"
    with atomic_file(file, mode=int(mode[3:], 8)) as output:
        output.write(text)
    staging.stage(repo, path, text, mode)
    materialise(workspace, stubs(workspace, [path]))
