"""The decision on a weight of several tensors that no strategy can merge: all come from one side.

One side's codes times another side's scale is noise, and so is a mean of codes: averaging FP8
weights and their scales one by one was off by 248 %. One side's values do not belong at the places
of another side's sparse tensor.
"""

from __future__ import annotations

from git_theta.merge.planning.conflicts import absent, changed
from git_theta.merge.planning.groups import Group
from git_theta.merge.planning.policy import Policy
from git_theta.merge.planning.versions import Versions
from git_theta.merge.rules.rules import Method, Rule


def problem(versions: Versions, group: Group, policy: Policy | None = None) -> str:
    """Return the reason why no strategy can merge the tensors."""
    number = len(group.parameters)
    if group.kind == "sparse":
        what = f"its {number} tensors are a sparse tensor's values and their places"
        way = "which differ; a strategy can merge dense tensors"
    else:
        what = f"its {number} tensors are codes and their scales"
        way = "which no strategy can merge; it can merge the weights before quantization"
    return absent(versions, group) or f"{changed(versions, group)}, and {what}, {way}"


def merge(versions: Versions, group: Group, rule: Rule, method: Method, policy: Policy) -> str:
    """Return the reason why ``method`` cannot merge the tensors."""
    return problem(versions, group)
