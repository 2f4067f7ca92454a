"""Few rules for many tensors: values that were found tensor by tensor, as globs."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase

from git_theta.core.grouping import pattern_of
from git_theta.merge.planning.layers import layer_of
from git_theta.merge.rules.rules import Rule

_SPECIAL = re.compile(r"[\[*?]")


def rules_for(chosen: Mapping[str, Rule]) -> list[Rule]:
    """Return rules of which the first that matches a name is its own; ``match`` of each is unset.

    The last is for everything. A glob stands for a name where all that it matches agree.
    """
    kinds = {name: repr((rule.strategy, rule.given)) for name, rule in chosen.items()}
    usual = Counter(kinds.values()).most_common(1)[0][0]
    names, rules, covered = list(chosen), [], set()
    known: dict[str, list[str]] = {}
    for name in names:
        if kinds[name] == usual or name in covered:
            continue
        for glob in _globs(name):
            if glob not in known:
                known[glob] = [each for each in names if fnmatchcase(each, glob)]
            if all(kinds[each] == kinds[name] for each in known[glob]):
                break
        covered |= set(known[glob])
        rules.append(_matching(chosen[name], glob))
    rest = next(rule for name, rule in chosen.items() if kinds[name] == usual)
    return [*rules, _matching(rest, "*")]


def _matching(rule: Rule, glob: str) -> Rule:
    return Rule(glob, rule.strategy, rule.given)


def _globs(name: str) -> Iterator[str]:
    """Yield globs that match a name, from those that match many others to its own."""
    found = layer_of(name)
    if found is None:
        yield from (pattern_of(name), _literal(name))
        return
    pattern, literal = _words(pattern_of(name)), _words(_literal(name))
    end = len(_words(found[0])) + 1
    yield ".".join([*pattern[: end + 1], "*"])
    yield pattern_of(name)
    yield ".".join([*literal[:end], "*"])
    yield ".".join([*literal[: end + 1], "*"])
    yield _literal(name)


def _literal(name: str) -> str:
    return _SPECIAL.sub(lambda found: f"[{found[0]}]", name)


def _words(glob: str) -> Sequence[str]:
    return glob.split(".")
