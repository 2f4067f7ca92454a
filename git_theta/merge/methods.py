"""From rules to methods: the one place where strategies, and with them torch, are loaded."""

from __future__ import annotations

from git_theta.core import registry
from git_theta.errors import MissingToolError
from git_theta.merge.decision import Lookup
from git_theta.merge.resolving import unknown
from git_theta.merge.rules import Method, Rule
from git_theta.merge.versions import Versions


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


def check_name(rule: Rule) -> None:
    """Refuse a rule for a strategy that is not there, without loading any."""
    known = registry.names("strategies")
    if rule.strategy not in known:
        raise unknown("strategy", rule.strategy, known)


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
