"""Plan the merge of any number of branches at once: a strategy sees all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from git_theta.core.models import INDEX
from git_theta.errors import MergeError, naming
from git_theta.git import Repository
from git_theta.git.merge_heads import Heads
from git_theta.git.merge_tree import MergedTree, merge_trees
from git_theta.manifest import TensorEntry
from git_theta.merge.adapter_config import merged as adapter_config
from git_theta.merge.completion import Prepared, merge_command, one_after_another
from git_theta.merge.contested import (
    contested_paths,
    deleted_on_a_side,
    sides_of,
    split_adapters,
    versions_of,
)
from git_theta.merge.planning.actions import Plan
from git_theta.merge.planning.conflicts import saying_how, typed
from git_theta.merge.planning.cuts import Recut, index_text
from git_theta.merge.planning.cuts import check as check_movable
from git_theta.merge.planning.planner import make_plan
from git_theta.merge.planning.policy import policy_for
from git_theta.merge.planning.shards import recuts, versions_by_file, with_other_files, with_shards
from git_theta.merge.planning.slices import config_files
from git_theta.merge.planning.sources import config_path
from git_theta.merge.planning.tokenizer_files import tokenizer_files
from git_theta.merge.rules.request import Request, all_rules, collecting, typed_options, with_team
from git_theta.merge.rules.rules import Rule, as_behind, without
from git_theta.merge.rules.slices import as_behind as slices_as_behind
from git_theta.workspace import Workspace

if TYPE_CHECKING:
    pass


Deleted = Literal["keep", "remove"]


def prepare(
    workspace: Workspace,
    heads: Heads,
    request: Request,
    deleted: Deleted | None = None,
    merged_tree: MergedTree | None = None,
) -> Prepared:
    """Plan the merge.

    ``deleted`` is what becomes of checkpoints that one head deleted and another changed: without
    it they are in conflict. ``merged_tree`` is what ``merge_trees`` returns, if that is known.
    Raises ``MergeError`` for a rule that cannot be followed, and for several common ancestors where
    git is not to merge.
    """
    request = with_team(request, workspace.repo)
    asking = merge_command(heads, bool(request.include_one_sided))
    asking += f" --deleted {deleted}" if deleted else ""
    with saying_how(asking, request.rules, request):
        return _prepare(workspace, heads, request, deleted, merged_tree)


def _prepare(
    workspace: Workspace,
    heads: Heads,
    request: Request,
    deleted: Deleted | None,
    merged_tree: MergedTree | None,
) -> Prepared:
    repo = workspace.repo
    if heads.is_crossed and (request.include_one_sided or len(heads.others) > 1):
        raise MergeError(
            "these branches merged each other before, so they have several common ancestors",
            hint=one_after_another(heads, _alone(request)),
        )
    merged_tree = merged_tree or merge_trees(repo, heads, collecting)
    recut = [] if heads.is_crossed else recuts(repo, sides_of(heads), heads.base)
    moved = {path for _, each in recut for files in (each.base, *each.sides) for path in files}
    rules = all_rules(request, repo)
    if heads.head not in heads.contributors:
        others = [head.name for head in heads.others]
        rules = [as_behind(rule, heads.head.name, others) for rule in rules]
        request = replace(request, slices=slices_as_behind(request.slices, heads.head.name))
    plans, conflicts = [], list(merged_tree.conflicts)
    for path in contested_paths(repo, heads, merged_tree, request):
        if path in moved:
            continue
        with naming(path):
            versions = versions_of(workspace, heads, path, request.rows)
        if versions.base is None and merged_tree.contested.get(path):
            # Renamed on one branch and changed on another: git's driver can, for two branches.
            conflicts.append(path)
            continue
        everyone = [head.name for head in heads.contributors]
        absent = set(everyone) - set(versions.names)
        policy = policy_for(
            "merge", [without(rule, absent, everyone) for rule in rules], versions, request
        )
        plan = make_plan(versions, policy, workspace)
        plans.append(with_other_files(plan, workspace, sides_of(heads), heads.base))
    missing = deleted_on_a_side(repo, heads, conflicts)
    lost = missing if deleted else {}
    plans = [p for p in plans if deleted == "keep" or p.versions.path not in lost]
    files = files_beside(repo, merged_tree.tree, plans)
    if deleted == "keep":
        planned = {plan.versions.path for plan in plans}
        files |= {path: text for path, text in lost.items() if path not in planned}
    for key, each in recut:
        found = recut_plans(workspace, each, rules, request)
        files |= index_of(repo, heads, key, each, found)
        plans += found
    kept = {path for _, each in recut for path in each.paths}
    gone = moved | {key + INDEX for key, _ in recut}
    settled = files.keys() | gone | lost.keys()
    left = tuple(path for path in conflicts if path not in settled)
    if deleted == "remove":
        gone |= lost.keys()
    unseen = {p.versions.path for p in plans if p.versions.vocabularies or p.policy.slices}
    unseen |= kept | lost.keys() | (split_adapters(repo, heads) - merged_tree.contested.keys())
    return Prepared(
        heads,
        merged_tree.tree,
        tuple(plans),
        left,
        files,
        unseen=tuple(sorted(unseen)),
        removed=tuple(sorted(gone - kept - files.keys())),
        notes=tuple(note for _, each in recut for note in each.notes),
        deleted=tuple(missing),
        typed=tuple(typed_options(request.rules)),
    )


def _alone(request: Request) -> list[str]:
    """Return the options of the request for a merge of each branch on its own, as git can."""
    options = typed(request.rules, request)
    return [*options, "--no-all"] if request.include_one_sided else options


def recut_plans(
    workspace: Workspace, recut: Recut, rules: Sequence[Rule], request: Request
) -> list[Plan]:
    """Return a plan for each file of a model that branches cut differently."""
    check_movable(recut)
    plans, every = [], versions_by_file(recut)
    for versions in every:
        policy = policy_for("merge", rules, versions, request)
        plan = make_plan(versions, policy, workspace)
        plans.append(with_shards(plan, (each for each in every if each is not versions), workspace))
    return plans


def index_of(
    repo: Repository, heads: Heads, key: str, recut: Recut, plans: Sequence[Plan]
) -> dict[str, bytes]:
    """Return the index of the model's files by path, if the side whose cut it is has one."""
    side = heads.contributors[recut.target]
    before = repo.read_blob(f"{side.commit}:{key}{INDEX}")
    places = {
        plan.versions.path: [a.entry for a in plan.kept if isinstance(a.entry, TensorEntry)]
        for plan in plans
    }
    return {key + INDEX: index_text(before, places)} if before else {}


def files_beside(repo: Repository, tree: str, plans: Sequence[Plan]) -> dict[str, bytes]:
    """Return the files to write beside merged adapters, where git may have left a conflict."""
    found: dict[str, bytes] = {}
    for plan in plans:
        if not plan.conflicts:
            before = repo.read_blob(f"{tree}:{config_path(plan.versions.path)}")
            found.update(adapter_config.files(plan, before))
            for made in (tokenizer_files, config_files):
                found.update(made(plan, lambda path: repo.read_blob(f"{tree}:{path}")))
    return found
