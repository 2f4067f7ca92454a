"""Adapters whose tensors Git took from one side, and the scales of their updates from another.

Git asks a merge driver only about a file that both sides changed. Where one side trained the
factors and the other changed `lora_alpha`, it merges the two files without a word: a hook looks at
what is about to be committed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from git_theta.adapters import CONFIG_FILE, Fields, beyond_factors, config_of, parse_fields
from git_theta.core.files import atomic_file
from git_theta.core.messages import as_typed
from git_theta.errors import FormatError, MergeError, ThetaError
from git_theta.git import Repository, conflict
from git_theta.git.merge_heads import Head, Heads, merge_bases, parents_of
from git_theta.git.operation import drop_rescheduled, squashed, under_way
from git_theta.git.staging import unmerge, was_in_conflict
from git_theta.manifest import Manifest, is_manifest, parse
from git_theta.merge.adapter_config import merged as adapter_config
from git_theta.merge.adapter_config.fields import joined, say_the_same
from git_theta.merge.contested import split_adapters, versions_of
from git_theta.merge.planning.actions import Plan
from git_theta.merge.planning.conflicts import conflict_error, resolving
from git_theta.merge.planning.low_rank_names import DOWN, place_of
from git_theta.merge.planning.planner import make_plan
from git_theta.merge.planning.policy import policy_for
from git_theta.merge.planning.sources import config_path
from git_theta.merge.rules.request import Request, all_rules, with_team
from git_theta.workspace import Workspace

_SEEN = "theta-split"
_REVERTS = re.compile(r"^This reverts commit ([0-9a-f]{7,64})\b", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Split:
    """An adapter of the index that no side has, and the error that says so."""

    path: str
    key: str
    heads: Heads
    error: ThetaError


def refuse_split(workspace: Workspace, message: str) -> list[ThetaError]:
    """Return an error for each split adapter that is about to be committed with a ``message``.

    Each is left in conflict in the index, so that `git theta resolve` can write both files. What
    the user adds to the index as it is after that is not refused again.
    """
    repo = workspace.repo
    seen = _seen(repo)
    found = [each for each in _splits(workspace, message) if not _is_kept(repo, each, seen)]
    for each in found:
        if len(each.heads.contributors) == 2:
            commits = [each.heads.base, *(head.commit for head in each.heads.contributors)]
            unmerge(repo, each.path, [repo.identify(f"{rev}:{each.path}") for rev in commits])
            seen.append(each.key)
    if found:
        with atomic_file(repo.git_dir / _SEEN) as file:
            file.write("\n".join(seen).encode())
    return [each.error for each in found]


def settle(repo: Repository, path: str) -> None:
    """Let `git rebase` go on behind a commit that was refused, now that ``path`` is resolved."""
    head = repo.resolve("HEAD") or ""
    if any(key.startswith(f"{head} ") and key.endswith(f" {path}") for key in _seen(repo)):
        drop_rescheduled(repo)


def _is_kept(repo: Repository, split: Split, seen: Sequence[str]) -> bool:
    """Return whether the user added to the index what was refused and left in conflict there.

    Who aborts and tries again adds nothing: the index that git makes knows of no conflict.
    """
    return split.key in seen and was_in_conflict(repo, split.path)


def _seen(repo: Repository) -> list[str]:
    try:
        return (repo.git_dir / _SEEN).read_text("utf-8", "replace").splitlines()
    except OSError:
        return []


def _splits(workspace: Workspace, message: str) -> list[Split]:
    found: dict[str, Split] = {}
    for number, heads in enumerate(_joined(workspace.repo, message)):
        paths = split_adapters(workspace.repo, heads)
        here = {path: _split(workspace, heads, path) for path in sorted(paths)}
        # A merge may be replayed against any of its parents: it is right if it is for one.
        found = {
            path: split for path, split in here.items() if split and (number == 0 or path in found)
        }
    return list(found.values())


def _joined(repo: Repository, message: str) -> list[Heads]:
    """Return what is joined in the commit to be: a merge's heads, or a change and its parents."""
    head = repo.resolve("HEAD")
    names = conflict.sides(repo)
    if not head:
        return []
    if merged := conflict.merge_heads(repo):
        bases = merge_bases(repo, [head, *merged])
        called = [names[1]] if len(merged) == 1 else [commit[:12] for commit in merged]
        return [_heads(names[0], head, called, merged, base) for base in bases]
    reverts = _REVERTS.search(message)
    reverted = repo.resolve("REVERT_HEAD") or (repo.resolve(reverts[1]) if reverts else None)
    picked = repo.resolve("CHERRY_PICK_HEAD") or squashed(repo)
    if commit := picked or reverted:
        pairs = [(commit, parent) for parent in parents_of(repo, commit)]
        pairs = pairs if picked else [pair[::-1] for pair in pairs]
        return [_heads(names[0], head, names[1:], [theirs], base) for theirs, base in pairs]
    return []


def _heads(name: str, head: str, names: Sequence[str], commits: Sequence[str], base: str) -> Heads:
    own = Head(name, head)
    others = tuple(Head(*each) for each in zip(names, commits, strict=True))
    return Heads(own, others, (own, *others), base, is_crossed=False)


def _split(workspace: Workspace, heads: Heads, path: str) -> Split | None:
    """Return the adapter in the index if its tensors are a side's and its scales are not."""
    repo, config = workspace.repo, config_path(path)
    tensors, fields = repo.identify(f":{path}"), _fields(repo.read_blob(f":{config}"))
    holders = [
        h.commit for h in heads.contributors if repo.identify(f"{h.commit}:{path}") == tensors
    ]
    if not (tensors and fields and holders):
        return None  # in conflict, or merged by the driver, which saw to it
    text = repo.read_blob(f":{path}")
    if not (text and is_manifest(text)):
        return None
    own = [_fields(repo.read_blob(f"{commit}:{config}")) for commit in holders]
    if any(each is None or _mean_the_same(parse(text), each, fields) for each in own):
        return None
    try:
        error = _error(workspace, heads, path, fields)
    except ThetaError as failure:  # refused once, as others are: no option of git skips this hook
        error = failure
    key = " ".join((heads.head.commit, tensors, repo.identify(f":{config}") or "", path))
    return Split(path, key, heads, error) if error else None


def _fields(text: bytes | None) -> Fields | None:
    try:
        return parse_fields(text) if text else None
    except FormatError:
        return None


def _mean_the_same(found: Manifest, own: Fields, other: Fields) -> bool:
    """Return whether two configurations make the same updates of an adapter's tensors."""
    if say_the_same(joined({}, own), joined({}, other)):
        return True
    if str(own.get("peft_type")) != "LORA" or beyond_factors(own) != beyond_factors(other):
        return False
    try:
        one, two = config_of(own), config_of(other)
    except ThetaError:
        return False
    downs = [
        (place.module, entry.shape[0])
        for entry in found.tensors
        if (place := place_of(entry.name)) and place.role == DOWN and entry.shape
    ]
    return all(
        one.scale_of(module, rank) == two.scale_of(module, rank) and two.rank_of(module) == rank
        for module, rank in downs
    )


def _error(workspace: Workspace, heads: Heads, path: str, fields: Fields) -> ThetaError | None:
    """Return what is wrong with an adapter that no side has, if it is not the merge itself."""
    repo = workspace.repo
    request = with_team(Request(), repo)
    versions, doing = versions_of(workspace, heads, path), under_way(repo)
    rules = all_rules(request, repo) if doing == "merge" else []
    plan = make_plan(versions, policy_for(doing, rules, versions, request), workspace)
    state = f"git joined tensors and {CONFIG_FILE} of different sides; nothing was committed"
    if len(heads.others) > 1:
        names = " ".join(as_typed(head.name) for head in heads.others)
        hint = f"git merge --abort && git theta merge {names} --strategy cat"
        return MergeError(state, path=path, hint=hint)
    if plan.conflicts:
        return conflict_error(plan, state)
    return None if _is_right(plan, fields) else MergeError(state, path=path, hint=resolving(path))


def _is_right(plan: Plan, fields: Fields) -> bool:
    try:
        wanted = adapter_config.needed(plan)
    except MergeError:  # adapters of different types
        return False
    return wanted is None or say_the_same(joined(fields, wanted), fields)
