"""The part of a merge that computes: surveys first, then one parameter after another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from git_theta.checkpoint import StorageContext
from git_theta.checkpoint.reader import Reader
from git_theta.core.registry import Bytes
from git_theta.merge.compute.conversion import bytes_of
from git_theta.merge.compute.joint import Joiner
from git_theta.merge.compute.loader import LazyModel, LoadedBy, Loader
from git_theta.merge.compute.tensor import merge_tensor, survey_model
from git_theta.merge.kernels.device import device_named, torch_threads
from git_theta.merge.kernels.slices import Inputs
from git_theta.merge.planning.actions import Combine, Part, Plan
from git_theta.merge.rules.rules import Method

Found = Mapping[str, Sequence[Any]]
Surveys = dict[tuple[int, frozenset[str]], Found]
"""What surveys found, by rule and the paths of a model's files, each of which asks for the same."""


class Computer:
    """Merges the contested parameters of a plan, on the device of setting ``theta.device``.

    ``surveys`` are those that the files of one model share.
    """

    def __init__(
        self, plan: Plan, storage: StorageContext, reader: Reader, surveys: Surveys
    ) -> None:
        settings = storage.settings
        self._threads = settings.workers
        device = device_named(settings.device)
        loaders = [
            Loader(reader, device, settings.workers, plan.policy.allow_nan)
            for each in (plan, *plan.shards)
        ]
        self._loader = loaders[0]
        self._joiner = Joiner(self._loader.tensor)
        self._is_joining = not plan.combined
        self._surveys: dict[int, Found] = {}
        files = frozenset(each.versions.path for each in (plan, *plan.shards))
        with torch_threads(1):
            for method, parts in _by_method(plan, loaders):
                model = LazyModel(parts, storage.progress)
                key = id(parts[0][0].rule), files
                if key not in surveys:
                    surveys[key] = survey_model(method, model)
                self._surveys[id(method)] = surveys[key]

    @property
    def device(self) -> str:
        """Where it computes: ``cpu``, ``cuda:0``."""
        # Units are small: they are computed on the CPU.
        return "cpu" if self._is_joining else str(self._loader.device)

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know of what was computed so far."""
        return self._joiner.notes

    def join(self, step: Part) -> Bytes:
        """The bytes of a parameter of a unit; may run in another thread."""
        return bytes_of(step.entry, self._joiner.part(step))

    def load(self, step: Combine) -> Inputs:
        """What ``merge`` needs, decoded; may run in another thread."""
        return self._loader.load(step)

    def merge(self, step: Combine, inputs: Inputs) -> Bytes:
        """The bytes of the merged parameter's storage."""
        method = step.method
        # Slices are computed on threads of our own; what cannot be sliced is left to torch's.
        with torch_threads(self._threads if method.strategy.slicing == "tensor" else 1):
            survey = self._surveys[id(method)].get(step.name)
            return bytes_of(step.entry, merge_tensor(method, inputs, survey))


def _by_method(plan: Plan, loaders: Sequence[Loader]) -> list[tuple[Method, list[LoadedBy]]]:
    """The methods of a plan, and what each merges, in the model's other files too."""
    groups: dict[int, tuple[Method, list[LoadedBy]]] = {
        id(step.rule): (step.method, []) for step in plan.combined
    }
    files = sorted(zip((plan, *plan.shards), loaders, strict=True), key=_path)
    seen: set[tuple[int, str]] = set()
    for step, loader in ((step, loader) for file, loader in files for step in file.combined):
        # What stands in several files counts once, whichever file is merged.
        key = id(step.rule), step.name
        if key not in seen and id(step.rule) in groups:
            groups[id(step.rule)][1].append((step, loader))
        seen.add(key)
    return list(groups.values())


def _path(file: tuple[Plan, Loader]) -> str:
    return file[0].versions.path
