"""Models in several files: ``model-00001-of-00003.safetensors`` and so on.

Each file is merged by itself, but a strategy that must know the whole model (which weights are the
largest, say) scans all of its files in a prepass: cutting a model otherwise changes no result.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import PurePosixPath

from git_theta.errors import MergeError
from git_theta.git import Repository
from git_theta.merge.planning.actions import Plan
from git_theta.merge.planning.planner import make_plan
from git_theta.merge.planning.policy import method_lookup
from git_theta.merge.planning.sources import contributor, version
from git_theta.merge.planning.versions import Versions
from git_theta.workspace import Workspace

_SHARD = re.compile(r"(?P<model>.+)-[0-9]{1,9}-of-(?P<total>[0-9]{1,9})(?P<suffix>\.[^.]+)")

Sides = Sequence[tuple[str, str]]
"""Name and commit of each contributor."""


def with_shards(plan: Plan, others: Iterable[Versions], workspace: Workspace) -> Plan:
    """Return the plan with those of the model's other files, if a strategy needs the whole model.

    They are made by the same rules; ``others`` are drawn only then.
    """
    if not plan.needs_whole_model:
        return plan
    alike = (each for each in others if each.names == plan.versions.names)
    plans = (
        make_plan(each, replace(plan.policy, lookup=method_lookup(each)), workspace, is_shard=True)
        for each in alike
    )
    return replace(plan, shards=tuple(plans))


def with_other_files(
    plan: Plan, workspace: Workspace, sides: Sides | None, base: str | None
) -> Plan:
    """Return the plan with those of the other files that every side has; see ``with_shards``.

    ``base`` is the common ancestor's commit. Where one of the commits is not known, neither are
    the other files: see ``note_of``.
    """
    if sides is None or base is None:
        return plan
    return with_shards(plan, _others(workspace.repo, plan.versions.path, sides, base), workspace)


def note_of(plan: Plan) -> tuple[str, ...]:
    """Return a note for the user where only one file of several was scanned."""
    if plan.shards or not plan.needs_whole_model or model_of(plan.versions.path) is None:
        return ()
    return ("only this file of the model was scanned, the others are not known here",)


def _others(repo: Repository, path: str, sides: Sides, base: str) -> Iterator[Versions]:
    """Yield the versions of the other files of the model that ``path`` is a part of."""
    model = model_of(path)
    if model is None:
        return
    paths = {entry.path for entry in repo.tree(sides[0][1]) if model_of(entry.path) == model}
    for other in sorted(paths - {path}):
        found = _versions(repo, other, sides, base)
        if found is not None:
            yield found


def model_of(path: str) -> str | None:
    """Return a key that the files of one model share; ``None`` for a model in one file."""
    found = _SHARD.fullmatch(PurePosixPath(path).name)
    if found is None or int(found["total"]) < 2:
        return None
    name = f"{found['model']}-of-{found['total']}{found['suffix']}"
    return str(PurePosixPath(path).with_name(name))


def _versions(repo: Repository, path: str, sides: Sides, base: str) -> Versions | None:
    texts = [(name, rev, repo.read_blob(f"{rev}:{path}")) for name, rev in sides]
    if any(not text for *_, text in texts):
        return None
    before = repo.read_blob(f"{base}:{path}")
    try:
        contributors = [contributor(repo, name, text, path, rev) for name, rev, text in texts]
        return Versions(tuple(contributors), version(before, "the common ancestor"), path)
    except MergeError:
        return None  # a side does not store it with git-theta: the merge of that file says so
