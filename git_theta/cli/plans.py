"""How the plan of a merge looks in print."""

from __future__ import annotations

from git_theta.cli.text import human, plural, printable
from git_theta.merge.summary import Summary


def plan_lines(summary: Summary) -> list[str]:
    """A plan as lines: what is taken from where, and what is merged how."""
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
