"""Ask a person how to merge each kind of tensor in conflict."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import click

from git_theta.checkpoint.reader import Reader
from git_theta.cli.text import printable
from git_theta.core.messages import plural
from git_theta.errors import ThetaError
from git_theta.merge.compute.compare import Comparison, compare
from git_theta.merge.compute.loader import Loader
from git_theta.merge.kernels.device import device_named
from git_theta.merge.planning.actions import Action, Conflict, Merge, Plan, Unit, UnitMember
from git_theta.merge.planning.conflicts import by_kind
from git_theta.merge.planning.lora import LoraUnit
from git_theta.merge.resolve import Ask
from git_theta.merge.rules.rules import Rule, parse_rule
from git_theta.merge.rules.strategy import Kind
from git_theta.workspace import Workspace

_HELP = """\
    o, t, b         take it from a side or the ancestor
    NAME            merge it by a strategy: git theta strategies lists them
    NAME:KEY=VALUE  with hyperparameters, as in ties:density=0.3
    q               stop, and leave everything as it is"""
_SIDES = {"o": "ours", "t": "theirs", "b": "base"}
_SIDES |= {side: side for side in _SIDES.values()}


def asker(workspace: Workspace) -> Ask:
    """Return a function that asks on the terminal, one kind of tensor after another."""

    def ask(plan: Plan, possible: Plan) -> list[Rule]:
        settings = workspace.storage.settings
        loader = Loader(
            Reader(workspace.storage),
            device_named(settings.device),
            settings.workers,
            allow_nan=True,  # taking a side may be what is wanted of it
        )
        parameters = {action.name: action for action in possible.merges}
        units = {unit.name: unit for unit in possible.units}
        groups = by_kind(plan.conflicts)
        rules: list[Rule] = []
        for number, (pattern, conflicts) in enumerate(groups, 1):
            click.echo(f"\n[{number}/{len(groups)}] {_title(pattern, conflicts)}")
            actions = [parameters[c.name] for c in conflicts if c.name in parameters]
            joined = [units[c.name] for c in conflicts if c.name in units]
            updates = [unit for unit in joined if isinstance(unit, LoraUnit)]
            found = compare(actions, updates, loader) if actions or updates else None
            click.echo(f"    {_what_is_known(plan, found, conflicts)}")
            answer = _answer(plan, _known(actions, joined))
            rules += [
                Rule(match, answer.strategy, answer.given)
                for match in _globs(plan, pattern, conflicts)
            ]
        return rules

    return ask


def _globs(plan: Plan, pattern: str, conflicts: Sequence[Conflict]) -> list[str]:
    """Return globs of these conflicts and of nothing else a rule is for: the pattern, or names."""
    own = {conflict.name for conflict in conflicts}
    others = (
        action for action in plan.actions if action.name not in own and _is_contested(plan, action)
    )
    if not any(fnmatchcase(action.name, pattern) for action in others):
        return [pattern]
    return [glob.escape(conflict.name) for conflict in conflicts]


def _is_contested(plan: Plan, action: Action) -> bool:
    if isinstance(action, (Conflict, Merge, UnitMember)) or action.rule:
        return True
    return plan.policy.include_one_sided and action.why == "one-sided"


def _title(pattern: str, conflicts: Sequence[Conflict]) -> str:
    if len(conflicts) == 1:
        return printable(conflicts[0].name)
    return f"{printable(pattern)} ({plural(len(conflicts), 'tensor')})"


def _what_is_known(plan: Plan, found: Comparison | None, conflicts: Sequence[Conflict]) -> str:
    if found is None:
        return printable(conflicts[0].reason)
    if not found.relative:
        return "there is no common ancestor of it to compare with"
    return _sentence(plan.versions.names, found)


@dataclass(frozen=True)
class _Mergeable:
    """Kinds of strategies that can merge a group, and one as an example."""

    kinds: tuple[Kind, ...] = ()
    example: str = ""


def _known(actions: Sequence[Merge], units: Sequence[Unit]) -> _Mergeable:
    if not units:
        return _Mergeable(("tensors",), "ties:density=0.3") if actions else _Mergeable()
    if isinstance(units[0], LoraUnit):
        return _Mergeable(("factors",), "svd or cat")
    return _Mergeable(("tensors", "prompts"), "concat")


def _sentence(names: Sequence[str], found: Comparison) -> str:
    moved = ", ".join(
        f"{printable(name)} moved it by {_percent(share)}"
        for name, share in zip(names, found.relative, strict=True)
    )
    cosine = "undefined" if found.cosine is None else f"{found.cosine:.2f}"
    said = f"{moved}; cosine of the two changes {cosine}"
    if found.opposed is None:
        return said
    return f"{said}; opposite signs in {_percent(found.opposed)} of what both changed"


def _percent(share: float | None) -> str:
    if share is None:
        return "an unknown share"
    return f"{100 * share:.0f} %" if share >= 1 else f"{100 * share:.2g} %"


def _answer(plan: Plan, known: _Mergeable) -> Rule:
    """Return the rule that a person chose, for whatever it will be for."""
    ours, theirs = map(printable, plan.versions.names[:2])
    choices = [f"o: take {ours}", f"t: take {theirs}"]
    choices += ["b: take the common ancestor"] if plan.versions.base else []
    choices += [f"or a strategy such as {known.example}"] if known.kinds else []
    click.echo(f"    {', '.join(choices)}")
    while True:
        text = click.prompt("   ", prompt_suffix="> ").strip()
        if text in ("?", "h", "help"):
            click.echo(_HELP)
            continue
        if text in ("q", "quit"):
            raise click.Abort
        side = _SIDES.get(text)
        try:
            rule = parse_rule(f"*=take:side={side}" if side else f"*={text}")
            method = plan.policy.lookup(rule)
        except ThetaError as error:
            click.echo(f"    {error}")
            continue
        if method.strategy.name == "take" or method.strategy.kind in known.kinds:
            return rule
        click.echo(f"    {method.strategy.name} cannot merge it")
