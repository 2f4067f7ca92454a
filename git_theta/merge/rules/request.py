"""Options of a merge: those of the command line, the team's rules, the user's default.

``git theta merge`` passes its options to the merge driver, which git starts, in an environment
variable.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from git_theta.core import settings
from git_theta.errors import SettingsError
from git_theta.git import Repository
from git_theta.merge.rules.registry import check_name
from git_theta.merge.rules.rules import Rule, anchored, parse_rule, rules_of, within
from git_theta.merge.rules.slices import Slice

VARIABLE = "GIT_THETA_MERGE"
STRATEGY = "theta.merge.strategy"


Rows = Literal["common", "ours", "theirs", "union"]
"""Which rows the merge of tensors has whose numbers of rows differ."""


OUT_DTYPES = {"float32": "F32", "bfloat16": "BF16", "float16": "F16", "float64": "F64"}
"""Dtypes that the floats of a result may be cast to, by torch's names."""


_PASSED = (
    *("rules", "include_one_sided", "allow_nan", "widen", "allow_stale", "rows", "out_dtype"),
    *("collect", "decided"),
)
"""The fields of a request that the merge driver is told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """``rules`` come before those of the team; the flags are ``Policy``'s.

    ``include_one_sided`` is the team's where it is ``None``: see ``with_team``.
    With ``collect``, a file's name, the driver decides nothing: it leaves ours and appends the
    checkpoint's path to that file, with a NUL. ``decided`` is the name of a file in which it looks
    for what was decided before. Models of ``slices`` are never left to it.
    """

    rules: tuple[Rule, ...] = ()
    include_one_sided: bool | None = None
    allow_nan: bool = False
    widen: bool = False
    allow_stale: bool = False
    rows: Rows | None = None
    out_dtype: str | None = None
    slices: tuple[Slice, ...] = ()
    collect: str | None = None
    decided: str | None = None
    everything: bool = False

    def environment(self) -> dict[str, str]:
        """Return the environment variable that passes the request to the merge driver."""
        rules = [[rule.match, rule.strategy, dict(rule.given), rule.path] for rule in self.rules]
        wishes = {name: getattr(self, name) for name in _PASSED} | {"rules": rules}
        return {VARIABLE: json.dumps(wishes)}


def collecting(file: str) -> dict[str, str]:
    """Return the environment that makes the merge driver note in ``file`` what it is asked for."""
    return Request(collect=file).environment()


def typed_options(rules: Sequence[Rule]) -> list[str]:
    """Return the options that rules of the command line were typed as, quoted for a shell."""
    words: list[str] = []
    for rule in rules:
        given = [item for key, value in rule.given.items() for item in _items(key, value)]
        if rule.match == "*" and rule.path == "*":
            words += ["--strategy", rule.strategy, *(w for item in given for w in ("-p", item))]
        else:
            values = f":{','.join(given)}" if given else ""
            words += ["--rule", f"{rule.match}={rule.strategy}{values}"]
    return [shlex.quote(word) for word in words]


def _items(key: str, value: object) -> list[str]:
    if isinstance(value, Mapping):
        return [f"{key}[{name}]={number}" for name, number in value.items()]
    return [f"{key}={value}"]


def from_environment(environ: Mapping[str, str]) -> Request:
    """Return the request in the environment, the default one if there is none.

    Raise ``SettingsError`` for a variable that ``Request.environment`` did not write.
    """
    if VARIABLE not in environ:
        return Request()
    try:
        wishes = json.loads(environ[VARIABLE])
        wishes = {name: wishes[name] for name in _PASSED}
        if wishes["rows"] not in (None, *get_args(Rows)):
            raise ValueError
        if wishes["out_dtype"] not in (None, *OUT_DTYPES.values()):
            raise ValueError
        rules = tuple(Rule(*fields) for fields in wishes.pop("rules"))
        return Request(rules=rules, **wishes)
    except (ValueError, KeyError, TypeError) as error:
        raise SettingsError(
            f"{VARIABLE} is not what git theta merge writes", hint=f"unset {VARIABLE}"
        ) from error


def with_team(request: Request, repo: Repository) -> Request:
    """Return the request with what the team chose in ``.theta.toml``, where it leaves it open."""
    if request.include_one_sided is not None:
        return request
    section = repo.team_settings().get("merge", {})
    every = section.get("all", False) if isinstance(section, Mapping) else False
    if not isinstance(every, bool):
        raise SettingsError("merge.all is not true or false", path=".theta.toml")
    return replace(request, include_one_sided=every)


def all_rules(request: Request, repo: Repository) -> list[Rule]:
    """Return all rules in order: the request's, the team's, ``theta.merge.strategy``.

    Raise ``SettingsError`` or ``MergeError`` for an invalid rule.
    """
    team = repo.team_settings()
    settings.check_shared(team)
    shared = [within(rule, repo.top) for rule in rules_of(team)]
    rules = [*request.rules, *shared, *_default(repo, team)]
    for rule in rules:
        check_name(rule.strategy)
    return rules


def _default(repo: Repository, team: Mapping[str, Any]) -> Sequence[Rule]:
    """Return the rule for parameters that no other matches: the user's, else the team's."""
    if text := repo.config().get(STRATEGY):
        return [anchored(parse_rule(f"*={text}"), repo.top)]
    section = team.get("merge", {})
    text = section.get("strategy") if isinstance(section, Mapping) else None
    return [within(parse_rule(f"*={text}"), repo.top)] if text else []
