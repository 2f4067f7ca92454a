"""The plan of a merge as text."""

from __future__ import annotations

from collections.abc import Sequence

import click

from git_theta.cli.text import human, plural, printable
from git_theta.merge.planning.actions import Plan
from git_theta.merge.planning.summary import Summary
from git_theta.merge.rules.request import Request
from git_theta.merge.rules.rules import Rule


def plan_lines(summary: Summary) -> list[str]:
    """Return a plan as lines: what is taken from where, and what is merged how."""
    lines = [f"{printable(summary.path)}: {plural(summary.parameters, 'parameter')}"]
    lines += [f"  {n:,} from {printable(side)}" for side, n in summary.taken.items()]
    counts = ((summary.unchanged, "unchanged"), (summary.same, "changed alike"))
    lines += [f"  {number:,} {what}" for number, what in counts if number]
    if summary.removed:
        lines.append(f"  {summary.removed:,} removed")
    for rule in summary.merged:
        lines.append(f"  {rule.parameters:,} merged by {printable(rule.match)}={rule.strategy}")
    for conflict in summary.conflicts:
        lines.append(f"  in conflict: {printable(conflict.name)}: {printable(conflict.reason)}")
    if summary.device:
        lines.append(f"  {human(summary.memory)} of parameters at a time, on {summary.device}")
    return lines


def warn_of_unmatched(request: Request, plans: Sequence[Plan]) -> None:
    """Tell of rules on the command line that are for no parameter: one may be misspelt."""
    for rule in request.rules:
        if plans and rule.match != "*" and not any(_is_for(rule, plan) for plan in plans):
            text = f"{printable(rule.match)}={rule.strategy}"
            click.echo(f"git-theta: no parameter is called like --rule {text!r}", err=True)


def _is_for(rule: Rule, plan: Plan) -> bool:
    return any(rule.matches(action.name, plan.versions.path) for action in plan.actions)
