"""How a merge decides: the rules that hold, and what git's operation asks for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from git_theta.errors import MissingToolError
from git_theta.git.operation import Operation
from git_theta.merge.planning.sources import is_statistic
from git_theta.merge.planning.versions import Versions
from git_theta.merge.rules.rules import Method, Rule

Lookup = Callable[[Rule], Method]

# What an operation does with parameters that more sides changed, whatever the rules say: adding
# the change of a commit is task arithmetic, and a virtual ancestor is made the same by everybody.
FIXED: dict[Operation, tuple[Rule, ...]] = {
    "replay": (Rule("*", "task_arithmetic"),),
    "ancestor": (Rule("*", "average"),),
}


@dataclass(frozen=True, slots=True)
class Policy:
    """How contested parameters are decided.

    ``lookup`` resolves a rule for the contributors at hand. With ``every``, parameters that one
    side alone changed are merged too. With ``settle``, what would be a conflict is taken from the
    ancestor, or else from ours: so is the virtual ancestor of a criss-cross history made. With
    ``allow_nan``, NaN may be in what is merged.
    """

    rules: Sequence[Rule]
    lookup: Lookup
    every: bool = False
    settle: bool = False
    allow_nan: bool = False


def policy_for(
    operation: Operation,
    rules: Sequence[Rule],
    versions: Versions,
    every: bool = False,
    allow_nan: bool = False,
) -> Policy:
    """How ``operation`` decides; ``rules`` are for merges only."""
    chosen = FIXED.get(operation, tuple(rules))
    if operation == "merge" and is_statistic(versions.path):
        chosen = tuple(_for_statistics(rules))
    return Policy(chosen, resolver(versions), every, operation == "ancestor", allow_nan)


def _for_statistics(rules: Sequence[Rule]) -> Iterator[Rule]:
    """Rules for a file of statistics: what models are merged by means nothing there.

    Those that name its path hold, and those that take a side. Else, where anything would be
    merged, statistics are averaged.
    """
    for rule in rules:
        if rule.path != "*" or rule.strategy == "take":
            yield rule
        else:
            yield Rule(rule.match, "average")


def resolver(versions: Versions) -> Lookup:
    """A lookup that resolves each rule once, for the contributors of ``versions``.

    It raises ``MergeError`` for a rule that cannot be followed and ``MissingToolError`` where
    torch is not installed.
    """
    # With the rules themselves: the identity of one that is gone may be another's.
    known: dict[int, tuple[Rule, Method]] = {}

    def lookup(rule: Rule) -> Method:
        if id(rule) not in known:
            known[id(rule)] = rule, _resolve(rule, versions)
        return known[id(rule)][1]

    return lookup


def _resolve(rule: Rule, versions: Versions) -> Method:
    try:
        return rule.resolve(versions.names)
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise MissingToolError(
            f"the merge strategy {rule.strategy} needs torch, which is not installed",
            hint='pip install "git-theta[merge]"',
        ) from error
