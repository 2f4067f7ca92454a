"""Resolve a checkpoint that a merge left in conflict."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from git_theta.filters.deferred import checkout_deferred
from git_theta.filters.stored_anew import as_manifests, has_left
from git_theta.git import Repository, conflict, staging, worktree
from git_theta.git.beside import change_of
from git_theta.git.conflict import BASE, OURS, THEIRS, commits, merging, stages
from git_theta.git.operation import under_way
from git_theta.merge import split_adapters
from git_theta.merge.adapter_config import merged as adapter_config
from git_theta.merge.compute.executor import merge_checkpoint
from git_theta.merge.planning.actions import Plan
from git_theta.merge.planning.conflicts import resolving, saying_how, taking, taking_whole
from git_theta.merge.planning.planner import make_plan
from git_theta.merge.planning.policy import ANY, policy_for
from git_theta.merge.planning.shards import (
    check_one_cut,
    note_of,
    with_layers,
    with_other_files,
)
from git_theta.merge.planning.sources import adapter_of, config_path, contributor, version
from git_theta.merge.planning.tokenizer_files import tokenizer_files, with_vocabularies
from git_theta.merge.planning.versions import Versions
from git_theta.merge.rules.request import Request, all_rules, with_team
from git_theta.merge.rules.rules import Rule
from git_theta.workspace import Workspace

Ask = Callable[[Plan, Plan], Sequence[Rule]]


@dataclass(frozen=True, slots=True)
class Resolved:
    """The plan that resolved the conflict, and notes for the user."""

    plan: Plan
    notes: tuple[str, ...]


def resolve(workspace: Workspace, path: str, request: Request, ask: Ask | None = None) -> Resolved:
    """Merge the versions of ``path`` that the index holds, and stage the result.

    ``ask`` returns further rules for a plan that has conflicts left; its second argument is a plan
    in which everything is merged that any strategy can merge. Raises ``MergeError``, leaving
    everything as it is, when there is no conflict at ``path`` or one remains.
    """
    repo = workspace.repo
    request = with_team(request, repo)
    found = stages(repo, path)
    theirs, base = _commits(repo, path, found)
    if not has_left(repo, path, base, theirs):
        texts = as_manifests(workspace, path, list(found.values()))
        found = {stage: text or b"" for stage, text in zip(found, texts, strict=True)}
    versions = with_layers(_versions(repo, path, found, theirs, base), repo, "HEAD")
    if theirs:
        versions = with_vocabularies(versions, repo, (base, "HEAD", theirs), request.rows)
    sides = list(zip(versions.names, ("HEAD", theirs), strict=True)) if theirs else None
    check_one_cut(repo, path, sides, base)
    rules = all_rules(request, repo)
    plan = _plan(workspace, versions, rules, request)
    if plan.conflicts and ask:
        possible = _plan(workspace, versions, ANY, request)
        plan = _plan(workspace, versions, [*ask(plan, possible), *rules], request)
    plan = with_other_files(plan, workspace, sides, base)
    with taking_whole(path, under_way(repo)):
        files = {} if plan.conflicts else _files(workspace, plan)
    merged = merge_checkpoint(plan, workspace)
    _settle(workspace, path, merged.text)
    for name, text in files.items():
        staging.write(repo, name, text)
        worktree.refresh(repo, [name])
    split_adapters.settle(repo, path)
    renewed = (f"{name} is renewed" for name in files)
    return Resolved(plan, (*merged.notes, *note_of(plan), *renewed))


def _files(workspace: Workspace, plan: Plan) -> dict[str, bytes]:
    """Return the files to write beside the checkpoint, unless those in the work tree will do."""
    file = (workspace.repo.work_tree or Path()) / config_path(plan.versions.path)
    try:
        before: bytes | None = file.read_bytes()
    except OSError:
        before = None
    # Of other files, git may have left conflict markers in the work tree.
    tokenizer = tokenizer_files(plan, lambda path: workspace.repo.read_blob(f":{path}"))
    return adapter_config.files(plan, before) | tokenizer


def _plan(
    workspace: Workspace, versions: Versions, rules: Sequence[Rule], request: Request
) -> Plan:
    fixed = policy_for(under_way(workspace.repo), [], versions).rules
    policy = policy_for("merge", [*rules, *fixed], versions, request)
    with saying_how(resolving(versions.path), request.rules, request):
        return make_plan(versions, policy, workspace)


def _commits(
    repo: Repository, path: str, stages: dict[int, bytes]
) -> tuple[str | None, str | None]:
    """Return theirs and the common ancestor: of a replay, what the change was made of."""
    if not merging(repo):
        texts = stages.get(BASE, b""), stages[THEIRS]
        if change := change_of(repo, path, *texts, config_path(path)):
            return change.after, change.before
    return commits(repo)


def _versions(
    repo: Repository,
    path: str,
    stages: dict[int, bytes],
    theirs: str | None,
    base: str | None,
) -> Versions:
    names = conflict.sides(repo)
    ancestor = version(stages.get(BASE), "the common ancestor")
    return Versions(
        (
            contributor(repo, names[0], stages[OURS], path, "HEAD", taking(path, "theirs")),
            contributor(repo, names[1], stages[THEIRS], path, theirs, taking(path, "ours")),
        ),
        ancestor,
        path,
        adapter_of(repo, ancestor, base, path),
    )


def _settle(workspace: Workspace, path: str, text: bytes) -> None:
    """Write the merged version to index and work tree."""
    staging.write(workspace.repo, path, text)
    checkout_deferred(workspace, [path])
