"""The plan of a merge as text."""

from __future__ import annotations

from collections.abc import Sequence

import click

from git_theta.cli.text import human, printable
from git_theta.core.layout import natural_order
from git_theta.core.messages import plural
from git_theta.merge.planning.actions import Plan
from git_theta.merge.planning.summary import RuleCount, Summary
from git_theta.merge.rules.request import Request
from git_theta.merge.rules.rules import Rule


def plan_lines(summary: Summary) -> list[str]:
    """Return a plan as lines: what is taken from where, and what is merged how."""
    lines = [f"{printable(summary.path)}: {plural(summary.tensors, 'tensor')}"]
    lines += [f"  {n:,} from {printable(side)}" for side, n in summary.taken.items()]
    counts = ((summary.unchanged, "unchanged"), (summary.same, "changed alike"))
    lines += [f"  {number:,} {what}" for number, what in counts if number]
    if summary.removed:
        lines.append(f"  {summary.removed:,} removed")
    lines += [
        f"  {rule.tensors:,} merged with {printable(_method(rule))}" for rule in summary.merged
    ]
    for conflict in sorted(summary.conflicts, key=lambda it: natural_order(it.name)):
        lines.append(f"  in conflict: {printable(conflict.name)}: {printable(conflict.reason)}")
    if summary.device:
        device = "CPU" if summary.device == "cpu" else summary.device
        lines.append(f"  Peak memory about {human(summary.memory)}, on {device}")
    return lines


def _method(rule: RuleCount) -> str:
    """``ties (density=0.2), for *.weight``."""
    given = ", ".join(f"{key}={value}" for key, value in rule.given.items())
    values = f" ({given})" if given else ""
    return f"{rule.strategy}{values}" + ("" if rule.match == "*" else f", for {rule.match}")


def warn_of_unmatched(request: Request, plans: Sequence[Plan]) -> None:
    """Tell of rules on the command line that are for no tensor: one may be misspelt."""
    for rule in request.rules:
        if plans and rule.match != "*" and not any(_is_for(rule, plan) for plan in plans):
            text = f"{printable(rule.match)}={rule.strategy}"
            click.echo(f"git-theta: no tensor matches --rule {text!r}", err=True)


def _is_for(rule: Rule, plan: Plan) -> bool:
    return any(rule.matches(action.name, plan.versions.path) for action in plan.actions)
