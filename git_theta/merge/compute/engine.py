"""The part of a merge that computes: prepasses first, then one parameter after another."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence, Set
from typing import Any

from torch import Tensor

from git_theta.checkpoint.context import StorageContext
from git_theta.checkpoint.reader import BUDGET, Reader
from git_theta.core.arrays import Bytes
from git_theta.merge.compute.conversion import bytes_of, torch_dtype
from git_theta.merge.compute.joint import UnitMerger
from git_theta.merge.compute.loader import LazyModel, LoadedBy, Loader
from git_theta.merge.compute.tensor import cast, merge_tensor, run_prepass, task_update
from git_theta.merge.kernels.device import devices_named, torch_threads
from git_theta.merge.kernels.slices import Inputs
from git_theta.merge.planning.actions import Merge, Plan, UnitMember
from git_theta.merge.rules.rules import Method, Rule

Found = Mapping[str, Sequence[Any]]
Prepasses = dict[tuple[Rule, frozenset[str]], Found]
"""Results of prepasses, by rule and by the paths of a model's files, which share them."""


class Engine:
    """Merges the contested parameters of a plan, on the device of setting ``theta.device``.

    ``prepasses`` are those that the files of one model share.
    """

    def __init__(
        self, plan: Plan, storage: StorageContext, reader: Reader, prepasses: Prepasses
    ) -> None:
        settings = storage.settings
        self.threads = settings.workers
        device, *others = devices_named(settings.device)
        plans = (plan, *plan.shards)
        merges = [action for each in plans for action in each.merges]
        keeps = plan.needs_whole_model and sum(action.weight for action in merges) <= BUDGET

        def loader(keeps: bool) -> Loader:
            chosen = (reader, device, settings.workers, plan.policy.allow_nan, keeps)
            return Loader(*chosen, tuple(others))

        loaders = [loader(keeps) for _ in plans]
        self._loader = loaders[0]
        self._units = UnitMerger(self._loader.tensor)
        self._is_units_only = not plan.merges
        self._prepasses: dict[Rule, Found] = {}
        files = frozenset(each.versions.path for each in plans)
        with torch_threads(1):
            for rule, (method, parts) in _by_rule(plan, loaders).items():
                scanned, unchanged = _beside(rule, plans, {each.name for each, _ in parts})
                parts += [(each, loader(False)) for each in scanned]
                model = LazyModel(parts, storage.progress, unchanged)
                if (rule, files) not in prepasses:
                    prepasses[rule, files] = run_prepass(method, model)
                self._prepasses[rule] = prepasses[rule, files]

    @property
    def device(self) -> str:
        """Names of the devices that compute: ``cpu``, ``cuda:0,cuda:1``."""
        # Units are small: they are computed on the CPU.
        devices = (self._loader.device, *self._loader.others)
        return "cpu" if self._is_units_only else ",".join(map(str, devices))

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes for the user about what was computed so far."""
        return self._units.notes

    def member(self, action: UnitMember) -> Bytes:
        """Return the bytes of a parameter of a unit; may run in another thread."""
        made = self._units.member(action)
        return bytes_of(action.entry, cast(action.name, made, torch_dtype(action.entry.dtype)))

    def load(self, action: Merge) -> Inputs:
        """Decode the inputs of ``merge``; may run in another thread."""
        return self._loader.take(action)

    def merge(self, action: Merge, inputs: Inputs) -> Bytes:
        """Return the bytes of the merged parameter's storage."""
        method = action.method
        # Slices are computed on threads of our own; what cannot be sliced is left to torch's.
        with torch_threads(self.threads if method.strategy.slicing == "tensor" else 1):
            merged = merge_tensor(method, inputs, self._prepass(action))
            return bytes_of(action.entry, self._loader.rest(action, merged))

    def update(self, action: Merge, inputs: Inputs) -> Tensor:
        """Return X where the merged tensor is θ0 + λ X; see ``task_update``."""
        with torch_threads(1):
            return task_update(action.method, inputs, self._prepass(action))

    def _prepass(self, action: Merge) -> Sequence[Any] | None:
        return self._prepasses[action.rule].get(action.name)


def _by_rule(plan: Plan, loaders: Sequence[Loader]) -> dict[Rule, tuple[Method, list[LoadedBy]]]:
    """Return the parameters that each rule of a plan merges, in the model's other files too."""
    groups: dict[Rule, tuple[Method, list[LoadedBy]]] = {
        action.rule: (action.method, []) for action in plan.merges
    }
    files = sorted(zip((plan, *plan.shards), loaders, strict=True), key=_path)
    seen: set[tuple[Rule, str]] = set()
    for action, loader in ((action, loader) for file, loader in files for action in file.merges):
        # What stands in several files counts once, whichever file is merged.
        key = action.rule, action.name
        if key not in seen and action.rule in groups:
            groups[action.rule][1].append((action, loader))
        seen.add(key)
    return groups


def _beside(rule: Rule, plans: Sequence[Plan], merged: Set[str]) -> tuple[list[Merge], int]:
    """Return what else belongs to the rule's model: parameters to read, and a number of elements.

    ``merged`` are the names of those that the rule merges.
    """
    found = {
        each.name: each
        for plan in sorted(plans, key=lambda plan: plan.versions.path)
        for each in plan.counted
        if each.rule == rule and each.name not in merged
    }
    scanned = {each.name for plan in plans for each in plan.scanned}
    rest = (math.prod(each.entry.shape) for name, each in found.items() if name not in scanned)
    return [each for name, each in found.items() if name in scanned], sum(rest)


def _path(file: tuple[Plan, Loader]) -> str:
    return file[0].versions.path
