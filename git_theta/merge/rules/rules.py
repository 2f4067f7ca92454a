"""Which strategy merges which parameter: ordered rules, of which the first that matches counts.

On the command line a rule is ``GLOB=STRATEGY`` or ``GLOB=STRATEGY:KEY=VALUE,...``, in
``.theta.toml`` a table::

    [[merge.rules]]
    match = "*.layernorm.*"
    strategy = "average"
    weight = {main = 2.0}

This module imports no torch until a rule's hyperparameters are parsed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from git_theta.errors import MergeError, SettingsError
from git_theta.merge.rules import globs, gradients
from git_theta.merge.rules.binding import bind
from git_theta.merge.rules.notation import parse_method
from git_theta.merge.rules.registry import strategy_named
from git_theta.merge.rules.strategy import Strategy

_RESERVED = ("match", "path", "strategy")
_KEYS = ("strategy", "rules", "all")


@dataclass(frozen=True, slots=True)
class Method:
    """A strategy with the values of its hyperparameters for the contributors of a merge."""

    strategy: Strategy
    values: Mapping[str, Any]

    def values_of(self, sides: Sequence[int]) -> dict[str, Any]:
        """Return the values for some of the contributors, or for all in another order."""
        kinds = {parameter.name: parameter.kind for parameter in self.strategy.hyperparameters}

        def chosen(name: str, value: Any) -> Any:
            if kinds[name] == "rule":
                return {**value, "hyperparameters": inner_method(value).values_of(sides)}
            if kinds[name] == "table":
                return [[key, [row[side] for side in sides]] for key, row in value]
            per_contributor = kinds[name] in ("per-contributor", "contributor")
            return [value[side] for side in sides] if per_contributor else value

        return {name: chosen(name, value) for name, value in self.values.items()}

    def at(self, depth: float) -> Method:
        """Return the method at a depth of the model: gradients have their numbers there."""
        if not gradients.places(self.values):
            return self
        return replace(self, values=gradients.at(self.values, depth))

    def of(self, sides: Sequence[int]) -> Method:
        """Return the method for some of the contributors; ``MergeError`` where they are too few."""
        self.strategy.check_number(len(sides))
        return replace(self, values=self.values_of(sides))

    def value_at(self, side: int) -> tuple[Any, ...]:
        """Return the values of one contributor, comparable with those of another."""
        own = self.values_of([side])
        return tuple(str(own[name]) for name in sorted(own))


def inner_method(value: Mapping[str, Any]) -> Method:
    """Return the method of a bound hyperparameter of kind ``rule``."""
    return Method(strategy_named(value["strategy"]), value["hyperparameters"])


@dataclass(frozen=True, slots=True)
class Rule:
    """Parameters whose name matches ``match``, in checkpoints whose path matches ``path``.

    Both are globs of ``fnmatch``, case-sensitive; ``*`` also matches dots and slashes, and in
    ``match``, ``0-7`` between dots the layers 0 to 7. ``given`` are the strategy's hyperparameters
    as the user wrote them.
    """

    match: str
    strategy: str
    given: Mapping[str, Any] = field(default_factory=dict)
    path: str = "*"

    def __hash__(self) -> int:
        # ``given`` is a mapping, which has no hash of its own.
        return hash((self.match, self.strategy, self.path))

    def matches(self, name: str, path: str = "") -> bool:
        """Return whether the rule matches parameter ``name`` of the checkpoint at ``path``."""
        return fnmatchcase(path, self.path) and globs.matches(name, self.match)

    def bind(self, contributors: Sequence[str], *, some: bool = False) -> Method:
        """Check the strategy's name and every value; raise ``MergeError``, which names the rule.

        With ``some``, each tensor is merged from some of the contributors.
        """
        try:
            found = strategy_named(self.strategy)
            return Method(found, bind(found, self.given, contributors, some=some))
        except MergeError as error:
            error.message = f"rule {self.match!r}: {error.message}"
            raise


def anchored(rule: Rule, folder: Path) -> Rule:
    """Return the rule with the paths of its files (``*.json``) resolved against ``folder``."""
    given = {
        key: str(folder / value) if isinstance(value, str) and value.endswith(".json") else value
        for key, value in rule.given.items()
    }
    return replace(rule, given=given)


def within(rule: Rule, folder: Path) -> Rule:
    """Return a repository's rule with the paths of its files resolved against ``folder``.

    Raise ``SettingsError`` for a file outside of it: a stranger's rules must not read it.
    """
    found, top = anchored(rule, folder), folder.resolve()
    for key, value in rule.given.items():
        file = found.given[key]
        if file is not value and not Path(file).resolve().is_relative_to(top):
            raise SettingsError(
                f"rule {rule.match!r}: {key}={value}: the file is outside of the repository",
                path=".theta.toml",
            )
    return found


def as_behind(rule: Rule, current: str, others: Sequence[str]) -> Rule:
    """Return the rule for a ``current`` branch that is the common ancestor, not a contributor.

    For ``take``, ours is then the ancestor's tensor, and theirs that of the only one of ``others``.
    Raise ``MergeError`` for numbers that are meant for ours.
    """
    words = {"ours": "base", current: "base"}
    words |= {"theirs": others[0]} if len(others) == 1 else {}
    if rule.strategy == "take" and rule.given.get("side") in words:
        return replace(rule, given={**rule.given, "side": words[rule.given["side"]]})
    for key, value in rule.given.items():
        if "ours" in (value if isinstance(value, Mapping) else [value]):
            raise MergeError(
                f"rule {rule.match!r}: {key} of ours: {current} has nothing of its own to merge",
                hint=f"name one of: {', '.join(others)}",
            )
    return rule


def without(rule: Rule, names: Set[str], everyone: Sequence[str]) -> Rule:
    """Return the rule without the values of contributors that do not have the checkpoint.

    A list has a value for each of ``everyone``, in their order.
    """
    if not names:
        return rule
    with suppress(ModuleNotFoundError):  # of torch: binding the rule will say so
        known = strategy_named(rule.strategy).hyperparameters
        listed = {each.name for each in known if each.kind == "per-contributor"}
        given = {
            key: _of_others(value, names, everyone if key in listed else ())
            for key, value in rule.given.items()
        }
        return replace(rule, given=given)
    return rule


def _of_others(value: Any, names: Set[str], everyone: Sequence[str]) -> Any:
    listed = value.strip("[]").split(",") if isinstance(value, str) else value
    if isinstance(listed, Sequence) and 1 < len(listed) == len(everyone):
        value = dict(zip(everyone, listed, strict=True))
    if not isinstance(value, Mapping):
        return value
    return {name: number for name, number in value.items() if name not in names}


def first_match(rules: Sequence[Rule], name: str, path: str = "") -> Rule | None:
    """Return the first rule that matches parameter ``name`` of the checkpoint at ``path``."""
    return next((rule for rule in rules if rule.matches(name, path)), None)


def parse_rule(text: str) -> Rule:
    """Parse ``GLOB=STRATEGY:KEY=VALUE,...``; raise ``MergeError`` for any other text."""
    match, equals, method = text.partition("=")
    name, given = parse_method(method)
    if not (match and equals and name):
        raise MergeError(
            f"{text!r} is not a rule",
            hint="write GLOB=STRATEGY:KEY=VALUE,... e.g. '*.bias=average'",
        )
    return Rule(match, name, given)


def rules_of(team: Mapping[str, Any]) -> list[Rule]:
    """Return the rules in a parsed ``.theta.toml``; raise ``SettingsError`` for an invalid one."""
    section = team.get("merge", {})
    tables = section.get("rules", []) if isinstance(section, Mapping) else None
    _check_keys(team, section)
    if not isinstance(tables, list):
        raise SettingsError(
            "merge.rules is not a list of tables",
            path=".theta.toml",
            hint="write each rule below a line [[merge.rules]]",
        )
    return [_rule(table, number) for number, table in enumerate(tables, 1)]


def _check_keys(team: Mapping[str, Any], section: Any) -> None:
    """Raise ``SettingsError`` for a misspelt key, which would otherwise be ignored."""
    tables = [key for key, value in team.items() if isinstance(value, (Mapping, list))]
    keys = list(section) if isinstance(section, Mapping) else []
    for where, found, known in (("", tables, ("merge",)), ("merge.", keys, _KEYS)):
        for key in found:
            if key not in known:
                raise SettingsError(
                    f"unknown key {where}{key}",
                    path=".theta.toml",
                    hint=f"known: {', '.join(f'{where}{name}' for name in known)}",
                )


def _rule(table: Any, number: int) -> Rule:
    words = {key: table.get(key) for key in _RESERVED} if isinstance(table, Mapping) else {}
    path = words.get("path") or "*"
    match, strategy = words.get("match"), words.get("strategy")
    if not (isinstance(match, str) and isinstance(strategy, str) and isinstance(path, str)):
        raise SettingsError(
            f"rule {number} of merge.rules lacks a glob `match` or a name `strategy`",
            path=".theta.toml",
            hint='e.g. match = "*.bias" and strategy = "average"',
        )
    given = {key: value for key, value in table.items() if key not in _RESERVED}
    return Rule(match, strategy, given, path)
