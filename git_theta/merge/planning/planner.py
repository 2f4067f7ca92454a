"""Choose an action for each parameter of a merge from manifests alone: no tensor is read.

A parameter that one side alone changed is taken from it; one that more sides changed is merged by
the first rule that matches, or is a conflict. Equal bytes, dtype and shape are "unchanged".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

from git_theta import manifest, transfer
from git_theta.checkpoint.reader import Reader
from git_theta.core.layout import Alias
from git_theta.formats import OPAQUE
from git_theta.manifest import TensorEntry
from git_theta.merge.planning import lora, outcome, rows, slices, soft_prompts, tensors, units
from git_theta.merge.planning.actions import (
    WHOLE_FILE,
    Action,
    Conflict,
    Drop,
    Merge,
    Plan,
    Take,
    Why,
)
from git_theta.merge.planning.groups import Group, Kind, groups
from git_theta.merge.planning.layers import Counts, depth_of
from git_theta.merge.planning.policy import Policy
from git_theta.merge.planning.renames import Near, Renames, doubled, explained, find_renames
from git_theta.merge.planning.samples import are_near
from git_theta.merge.planning.staleness import check_fresh
from git_theta.merge.planning.versions import (
    BASE,
    Digest,
    ParameterVersions,
    Versions,
    parameter_versions,
)
from git_theta.merge.rules.rules import Method, Rule, first_match
from git_theta.workspace import Workspace


def make_plan(
    versions: Versions, policy: Policy, workspace: Workspace, is_shard: bool = False
) -> Plan:
    """Decide on every parameter, reading the workspace's objects where needed; see ``plan``.

    Raises ``MergeError`` for statistics of another version of the model, unless they are allowed.
    """
    reader = Reader(workspace.storage)

    def digest(entry: manifest.TensorEntry) -> str:
        transfer.fetch(
            workspace, {ref.oid: ref.size for chunk in entry.chunks for ref in chunk.chain}
        )
        workspace.storage.charge(entry.chunks)
        return reader.digest(entry)

    def near(one: manifest.TensorEntry, other: manifest.TensorEntry) -> bool:
        chunks = [one.chunks[0], other.chunks[0]]
        transfer.fetch(workspace, {ref.oid: ref.size for c in chunks for ref in c.chain})
        workspace.storage.charge(chunks)
        return are_near(one.dtype, *reader.read(chunks))

    def skeleton(found: manifest.Manifest) -> bytes:
        transfer.fetch(workspace, {ref.oid: ref.size for c in found.skeleton for ref in c.chain})
        workspace.storage.charge(found.skeleton)
        return reader.skeleton(found)

    made = plan(versions, policy, digest, is_shard, near)
    if not policy.allow_stale:
        check_fresh(made, skeleton)
    return made


def plan(
    versions: Versions,
    policy: Policy,
    digest: Digest,
    is_shard: bool = False,
    near: Near = lambda one, other: False,
) -> Plan:
    """Decide on every parameter; see ``parameter_versions`` for ``digest``.

    ``near`` is as in ``find_renames``. A shard is a file of which strategies for other files may
    need to know. Raises ``MergeError`` for a rule that cannot be followed, whatever the tensors
    hold.
    """
    is_sliced = policy.slices and slices.is_sliceable(versions.manifest(0))
    if is_sliced and not policy.merges_slices:
        actions = slices.sliced(versions, policy)
        return Plan(versions, policy, tuple(outcome.in_dtype(actions, policy.out_dtype, set())))
    formats = {contributor.manifest.format for contributor in versions.contributors}
    if is_sliced:
        found, renames = slices.renumbered_versions(versions, policy, digest), Renames({})
    elif len(formats) > 1 or OPAQUE in formats:
        found, renames = [_whole(versions)], Renames({})
    else:
        renames = find_renames(versions, near)
        found = parameter_versions(versions, digest, renames.names)
    counts = versions.layer_counts()
    grouped = groups(found)
    decisions = [Decision(versions, policy, group, counts) for group in grouped]
    actions = [action for decision in decisions for action in decision.actions()]
    if is_sliced:
        actions += slices.dropped(versions, {parameter.name for parameter in found})
    actions = explained(_untied(actions), versions, renames.disputed)
    actions = outcome.in_dtype(actions, policy.out_dtype, _quantized(grouped))
    twice = () if is_sliced else doubled(actions, versions)
    notes = (*versions.notes, *renames.notes, *twice)
    made = Plan(versions, policy, tuple(actions), notes=notes)
    if not (is_shard or made.needs_whole_model):
        return made
    merged = {action.name for action in made.merges}
    counted = (action for decision in decisions for action in decision.counted())
    return replace(made, counted=tuple(each for each in counted if each.name not in merged))


def _whole(versions: Versions) -> ParameterVersions:
    """Return the files themselves as the versions of one parameter."""
    base = versions.base
    manifests = [contributor.manifest for contributor in versions.contributors]
    entries = [TensorEntry(WHOLE_FILE, m.format, (m.size,), 0, ()) for m in manifests]
    return ParameterVersions(
        name=WHOLE_FILE,
        base=TensorEntry(WHOLE_FILE, base.format, (base.size,), 0, ()) if base else None,
        entries=tuple(entries),
        base_identity=(base.hash,) if base else None,
        identities=tuple((m.hash,) for m in manifests),
    )


def _quantized(grouped: Sequence[Group]) -> set[str]:
    return {
        each.name for group in grouped if group.kind == "quantized" for each in group.parameters
    }


def _untied(actions: Sequence[Action]) -> list[Action]:
    """Return the actions, with a conflict for each name tied to a tensor that is dropped."""
    gone = {action.name for action in actions if isinstance(action, Drop)}
    return [_untie(action, gone) for action in actions]


def _untie(action: Action, gone: set[str]) -> Action:
    if isinstance(action, Take) and isinstance(action.entry, Alias) and action.entry.of in gone:
        return Conflict(action.name, f"it is tied to {action.entry.of}, which is removed")
    return action


class _Kind(Protocol):
    """Interface of the modules ``tensors``, ``lora`` and ``units``."""

    def problem(self, versions: Versions, group: Group, policy: Policy, /) -> str | None: ...

    def merge(
        self, versions: Versions, group: Group, rule: Rule, method: Method, policy: Policy, /
    ) -> list[Action] | str: ...


_KINDS: dict[Kind, _Kind] = {
    "single": tensors,
    "low-rank": lora,
    "quantized": units,
    "sparse": units,
}


class Decision:
    """Decides on the parameters of a group."""

    def __init__(self, versions: Versions, policy: Policy, group: Group, layers: Counts) -> None:
        self._depth = depth_of(group.name, layers)
        self._versions = versions
        self._policy = policy
        self._group = lora.with_scales(versions, group) if group.is_lora else group
        self._kind = _KINDS[group.kind]

    def actions(self) -> list[Action]:
        """Return an action for each parameter, or one conflict for all of them."""
        group, changed = self._group, self._group.changed
        if found := self._by_token():
            return found
        if self._policy.everything and self._can_be_merged():
            return self._contested()
        if not changed:
            is_tied = isinstance(group.parameters[0].entries[0], Alias)
            return self._take(0, "tied" if is_tied else "unchanged")
        if len({group.identity(side) for side in changed}) > 1:
            return self._contested()
        if len(changed) == len(self._versions.sides) > 1:
            return self._take(0, "same")
        if self._policy.include_one_sided and self._can_be_merged():
            return self._contested()
        return self._take(changed[0], "one-sided")

    def _by_token(self) -> list[Action] | None:
        """Return the action of an embedding or head whose rows are matched by token.

        Where the rows of one side alone count, they too move to where the result's tokens are.
        """
        group, rule = self._group, self._rule()
        if group.kind != "single" or not rows.by_token(self._versions, group.parameters[0]):
            return None
        changed = group.changed or [0]
        is_one = len({group.identity(side) for side in changed}) == 1
        if rule and rule.strategy == "take" and not is_one:
            side = _chosen(self._policy.lookup(rule))
        elif not is_one or (self._policy.include_one_sided and self._can_be_merged()):
            return self._contested()
        else:
            side, rule = changed[0], None
        return rows.take_by_token(self._versions, group.parameters[0], side, rule)

    def counted(self) -> list[Merge]:
        """Return the merge of a parameter that a strategy for the whole model would make of it.

        Empty where no such strategy is for it: what is frozen, or trained on one side alone, is a
        part of the model all the same.
        """
        rule = self._rule()
        if rule is None or self._group.kind != "single":
            return []
        method = self._method(rule)
        if method.strategy.scope(method.values) != "model" or self._problem() is not None:
            return []
        found = self._kind.merge(self._versions, self._group, rule, method, self._policy)
        return [each for each in found if isinstance(each, Merge)] if found else []

    def _can_be_merged(self) -> bool:
        """Return whether a rule can merge the group; a side can always be taken."""
        rule = self._rule()
        return rule is not None and (rule.strategy == "take" or self._problem() is None)

    def _take(self, side: int, why: Why, rule: Rule | None = None) -> list[Action]:
        return [_take(parameter, side, why, rule) for parameter in self._group.parameters]

    def _method(self, rule: Rule) -> Method:
        return self._policy.lookup(rule).at(self._depth)

    def _rule(self) -> Rule | None:
        """Return the first rule that matches any parameter of the group."""
        found = (rule for rule in self._policy.rules if self._is_for(rule))
        return next(found, None)

    def _is_for(self, rule: Rule) -> bool:
        names = (parameter.name for parameter in self._group.parameters)
        return any(first_match([rule], name, self._versions.path) for name in names)

    def _problem(self) -> str | None:
        return self._kind.problem(self._versions, self._group, self._policy)

    def _contested(self) -> list[Action]:
        rule = self._rule()
        if rule and rule.strategy == "take":
            return self._take(_chosen(self._policy.lookup(rule)), "rule", rule)
        found = self._merged_by(rule) if rule else self._problem()
        if isinstance(found, list):
            return found
        if self._policy.fallback_to_base:
            return self._take(BASE if self._group.is_in(BASE) else 0, "ancestor")
        changed = f"{self._versions.named(self._group.changed)} changed it"
        return [Conflict(self._group.name, found or changed, is_final=bool(found and not rule))]

    def _merged_by(self, rule: Rule) -> list[Action] | str:
        """Return the actions that the rule leads to, or the reason why it cannot merge."""
        if soft_prompts.may_be(self._group):
            method = self._method(rule)
            if method.strategy.kind == "prompts":
                return soft_prompts.merge(self._versions, self._group, rule, method)
        # In this order: looking a method up loads torch, which takes seconds.
        problem = self._problem()
        if problem is not None:
            return problem
        method = self._method(rule)
        return self._kind.merge(self._versions, self._group, rule, method, self._policy)


def _take(parameter: ParameterVersions, side: int, why: Why, rule: Rule | None) -> Take | Drop:
    entry, holders = parameter.entry(side), parameter.holders(parameter.identity(side))
    if entry is None:
        return Drop(parameter.name, why, holders, rule)
    return Take(parameter.name, side, entry, why, holders, rule)


def _chosen(method: Method) -> int:
    side: list[bool] = method.values["side"]
    return side.index(True) if True in side else BASE
