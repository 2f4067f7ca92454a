"""How the changes of the sides of a merge lie to each other, group by group and in all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from git_theta import transfer
from git_theta.checkpoint.reader import Reader
from git_theta.core.grouping import by_pattern
from git_theta.manifest import TensorEntry
from git_theta.merge.compute.compare import Comparison, Sums, measure
from git_theta.merge.compute.loader import Loader
from git_theta.merge.kernels.device import device_named, torch_threads
from git_theta.merge.planning.actions import Merge, Plan
from git_theta.merge.planning.lora import LoraUnit
from git_theta.merge.planning.planner import make_plan
from git_theta.merge.planning.policy import ANY, policy_for
from git_theta.workspace import Workspace


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """Comparisons over the tensors that several sides changed of the checkpoint at ``path``.

    ``groups`` are patterns of names, with numbers of tensors.
    """

    path: str
    names: tuple[str, ...]
    groups: tuple[tuple[str, int, Comparison], ...]
    whole: Comparison


def diagnose(plan: Plan, workspace: Workspace) -> Diagnosis:
    """Compare the sides over all that several of them changed, whatever the plan does with it."""
    versions = plan.versions
    policy = policy_for("merge", ANY, versions)
    policy = replace(policy, allow_nan=True, allow_stale=True)
    possible = make_plan(versions, policy, workspace)
    parts: list[Merge | LoraUnit] = [a for a in possible.merges if a.base is not None]
    parts += [unit for unit in possible.units if isinstance(unit, LoraUnit)]
    _fetch(parts, workspace)
    settings = workspace.storage.settings
    device = device_named(settings.device)
    loader = Loader(Reader(workspace.storage), device, settings.workers, allow_nan=True)
    whole, groups = Sums(), []
    workspace.storage.progress.start(f"comparing {versions.path}", sum(p.weight for p in parts))
    with torch_threads(1):
        for pattern, group in by_pattern(parts, lambda part: part.name, type):
            found = _measured(group, loader)
            whole.add(found)
            groups.append((pattern, len(group), found.comparison()))
            workspace.storage.progress.advance(sum(part.weight for part in group))
    workspace.storage.progress.finish()
    return Diagnosis(versions.path, versions.names, tuple(groups), whole.comparison())


def _measured(group: Sequence[Merge | LoraUnit], loader: Loader) -> Sums:
    merges = [part for part in group if isinstance(part, Merge)]
    return measure(merges, [part for part in group if isinstance(part, LoraUnit)], loader)


def _fetch(parts: Sequence[Merge | LoraUnit], workspace: Workspace) -> None:
    entries = [e for part in parts for e in part.inputs if isinstance(e, TensorEntry)]
    chunks = [chunk for entry in entries for chunk in entry.chunks]
    transfer.fetch(workspace, {ref.oid: ref.size for chunk in chunks for ref in chunk.chain})
    workspace.storage.charge(chunks, 2)
