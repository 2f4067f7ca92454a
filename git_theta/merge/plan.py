"""What becomes of each parameter in a merge, decided from manifests alone: no tensor is read.

A parameter that one side alone changed is taken from it; one that more sides changed is merged by
the first rule that matches, or is a conflict. Equal bytes, dtype and shape are "unchanged".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from git_theta.formats import OPAQUE
from git_theta.manifest import AliasEntry, TensorEntry
from git_theta.merge.decision import Decision, Policy
from git_theta.merge.steps import WHOLE_FILE, Combine, Conflict, Drop, Part, Step, Take, Unit
from git_theta.merge.units import groups
from git_theta.merge.versions import Column, Digest, Versions, columns


@dataclass(frozen=True, slots=True)
class Plan:
    """A step for every parameter of any version.

    ``shards`` are the plans of the model's other files, where a strategy asks for the model.
    """

    versions: Versions
    policy: Policy
    steps: tuple[Step, ...] = field(repr=False)
    shards: tuple[Plan, ...] = field(default=(), repr=False)

    @property
    def conflicts(self) -> list[Conflict]:
        """What nothing decides."""
        return [step for step in self.steps if isinstance(step, Conflict)]

    @property
    def combined(self) -> list[Combine]:
        """What must be computed, parameter by parameter."""
        return [step for step in self.steps if isinstance(step, Combine)]

    @property
    def units(self) -> list[Unit]:
        """What must be computed, several parameters as one."""
        return [step.unit for step in self.steps if isinstance(step, Part) and not step.place]

    @property
    def kept(self) -> list[Take | Combine | Part]:
        """What the result has."""
        return [step for step in self.steps if isinstance(step, (Take, Combine, Part))]

    @property
    def surveys_model(self) -> bool:
        """Whether any method must know the whole model."""
        methods = {id(step.method): step.method for step in self.combined}.values()
        return any(method.strategy.scope(method.values) == "model" for method in methods)

    @property
    def whole(self) -> Take | None:
        """The step of a file that is taken as a whole."""
        taken = (step for step in self.steps if isinstance(step, Take))
        return next((step for step in taken if step.name == WHOLE_FILE), None)

    def equal_sides(self) -> list[int]:
        """The contributors all of whose parameters are exactly the result's."""
        sides = set(self.versions.sides)
        for step in self.steps:
            sides &= set(step.holders) if isinstance(step, (Take, Drop)) else set()
        return sorted(sides)


def plan(versions: Versions, policy: Policy, digest: Digest) -> Plan:
    """Decide on every parameter; see ``columns`` for ``digest``.

    Raises ``MergeError`` for a rule that cannot be followed, whatever the tensors hold.
    """
    formats = {contributor.manifest.format for contributor in versions.contributors}
    if len(formats) > 1 or OPAQUE in formats:
        found = [_whole(versions)]
    else:
        found = columns(versions, digest)
    steps = [s for group in groups(found) for s in Decision(versions, policy, group).steps()]
    return Plan(versions, policy, tuple(_untied(steps)))


def _whole(versions: Versions) -> Column:
    """The files themselves as one parameter each."""
    base = versions.base
    manifests = [contributor.manifest for contributor in versions.contributors]
    entries = [TensorEntry(WHOLE_FILE, m.format, (m.size,), 0, ()) for m in manifests]
    return Column(
        name=WHOLE_FILE,
        base=TensorEntry(WHOLE_FILE, base.format, (base.size,), 0, ()) if base else None,
        entries=tuple(entries),
        base_identity=(base.hash,) if base else None,
        identities=tuple((m.hash,) for m in manifests),
    )


def _untied(steps: Sequence[Step]) -> list[Step]:
    """The steps, with a conflict for each name whose tensor the result does not have."""
    gone = {step.name for step in steps if isinstance(step, Drop)}
    return [_untie(step, gone) for step in steps]


def _untie(step: Step, gone: set[str]) -> Step:
    if isinstance(step, Take) and isinstance(step.entry, AliasEntry) and step.entry.of in gone:
        return Conflict(step.name, f"it is tied to {step.entry.of}, which is removed")
    return step
