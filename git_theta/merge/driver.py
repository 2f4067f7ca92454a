"""Git's merge driver: merge three versions of a checkpoint to one, or report a conflict."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from git_theta.adapters import CONFIG_FILE
from git_theta.errors import MergeError, naming
from git_theta.filters.stored_anew import as_manifests, has_left
from git_theta.git import Repository
from git_theta.git.merge_heads import common_commit, current_branch
from git_theta.git.merge_tree import note
from git_theta.git.operation import HEAD_VARIABLE, Operation, operation
from git_theta.manifest import is_manifest
from git_theta.merge.adapter_config.merged import as_git_merges
from git_theta.merge.compute import handover
from git_theta.merge.compute.executor import Merged, merge_checkpoint
from git_theta.merge.planning.actions import Plan, Take
from git_theta.merge.planning.conflicts import resolving, saying_how, taking, taking_whole
from git_theta.merge.planning.planner import make_plan
from git_theta.merge.planning.policy import policy_for
from git_theta.merge.planning.shards import (
    check_one_cut,
    note_of,
    with_layers,
    with_other_files,
)
from git_theta.merge.planning.sources import (
    adapter_of,
    contributor,
    version,
    with_configurations,
)
from git_theta.merge.planning.versions import UNKNOWN, Versions
from git_theta.merge.rules.request import all_rules, from_environment, with_team
from git_theta.workspace import Workspace

_HASH = re.compile(r"[0-9a-f]{40,64}")


@dataclass(frozen=True, slots=True)
class Texts:
    """The three versions as git has them; ``base`` is empty where there is no ancestor."""

    base: bytes
    ours: bytes
    theirs: bytes


def drive(
    workspace: Workspace, texts: Texts, marker_size: int, path: str, environ: Mapping[str, str]
) -> Merged:
    """Return the merged version of ``path``. Raises ``MergeError`` for a conflict."""
    with naming(path):
        return _drive(workspace, texts, marker_size, path, environ)


def _drive(
    workspace: Workspace, texts: Texts, marker_size: int, path: str, environ: Mapping[str, str]
) -> Merged:
    request = from_environment(environ)
    if request.collect:
        note(Path(request.collect), path, bool(texts.base))
        return Merged(texts.ours)
    if request.decided:
        key = handover.key(path, texts.base, texts.ours, texts.theirs)
        if known := handover.decided(Path(request.decided), key):
            return known
    repo = workspace.repo
    request = with_team(request, repo)
    doing = operation(repo, path, marker_size, environ)
    theirs = _theirs(doing, environ)
    base = common_commit(repo, {"HEAD": "HEAD" if theirs else None, "theirs": theirs})
    stored = texts
    if not _may_leave(repo, texts, path, base, theirs):
        given = as_manifests(workspace, path, (texts.base, texts.ours, texts.theirs))
        stored = Texts(*(text or b"" for text in given))
    versions = _versions(repo, stored, path, environ, theirs, base)
    if doing == "replay":
        versions = with_configurations(repo, versions, texts.base, texts.ours, texts.theirs)
    versions = with_layers(versions, repo, "HEAD" if doing == "merge" else None)
    sides = list(zip(versions.names, ("HEAD", theirs), strict=True)) if theirs else None
    if doing == "merge" and _moved(versions):
        check_one_cut(repo, path, sides, base)
    rules = all_rules(request, repo) if doing == "merge" else []
    policy = policy_for(doing, rules, versions, request)
    with saying_how(resolving(path), request.rules, request):
        plan = make_plan(versions, policy, workspace)
    if doing != "ancestor" and not plan.conflicts:
        with taking_whole(path, doing):
            _check_config(plan)
    plan = with_other_files(plan, workspace, sides, base)
    merged = merge_checkpoint(plan, workspace)
    return replace(merged, notes=(*merged.notes, *note_of(plan)))


def _moved(versions: Versions) -> bool:
    """Return whether the file has other tensors than before: they may be in another file now."""
    files = [c.manifest for c in versions.contributors] + ([versions.base] if versions.base else [])
    return len({frozenset(entry.name for entry in file.tensors) for file in files}) > 1


def _may_leave(
    repo: Repository, texts: Texts, path: str, base: str | None, theirs: str | None
) -> bool:
    """Return whether theirs may have stopped tracking the path; see ``has_left``."""
    if is_manifest(texts.theirs):
        return False
    if base is None or theirs is None:
        return is_manifest(texts.base)
    return has_left(repo, path, base, theirs)


def _check_config(plan: Plan) -> None:
    """Raise ``MergeError`` where the adapter's configuration changes: a driver cannot write it.

    So may that of updates from several sides, where the commits are not known.
    """
    takers = {a.side for a in plan.kept if isinstance(a, Take) and a.why == "one-sided"}
    adapters = [contributor.adapter for contributor in plan.versions.contributors]
    if UNKNOWN in adapters and len(takers) > 1:
        problem = f"which {CONFIG_FILE} is for which of its updates is not known"
    elif not as_git_merges(plan):
        problem = f"the merged adapter needs another {CONFIG_FILE}, which git alone cannot make"
    else:
        return
    raise MergeError(
        f"{problem}; the file in the work tree is ours", hint=resolving(plan.versions.path)
    )


def _theirs(doing: Operation, environ: Mapping[str, str]) -> str | None:
    """Return the commit that is merged, if it is known."""
    heads = [name.removeprefix(HEAD_VARIABLE) for name in environ if name.startswith(HEAD_VARIABLE)]
    # A merge of several heads runs the driver for each in turn, and does not say for which.
    return heads[0] if len(heads) == 1 and doing == "merge" else None


def _short(name: str) -> str:
    """Return git's name of theirs; after `git pull` it is a hash, shortened to 12 digits."""
    return name[:12] if _HASH.fullmatch(name) else name


def _versions(
    repo: Repository,
    texts: Texts,
    path: str,
    environ: Mapping[str, str],
    theirs: str | None,
    base: str | None,
) -> Versions:
    names = ("ours", _short(environ[HEAD_VARIABLE + theirs]) if theirs else "theirs")
    if theirs:
        names = (current_branch(repo), names[1])
    if names[0] == names[1]:
        names = ("ours", "theirs")
    rev, hints = "HEAD" if theirs else None, (taking(path, "theirs"), taking(path, "ours"))
    ours = contributor(repo, names[0], texts.ours, path, rev, hints[0])
    other = contributor(repo, names[1], texts.theirs, path, theirs, hints[1])
    ancestor = version(texts.base, "the common ancestor")
    return Versions((ours, other), ancestor, path, adapter_of(repo, ancestor, base, path))
