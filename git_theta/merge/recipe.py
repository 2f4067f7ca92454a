"""The recipe of a merged checkpoint, kept in its manifest so that the merge can be replayed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, get_args

from git_theta.adapters import Fields
from git_theta.errors import MergeError
from git_theta.manifest import Manifest
from git_theta.merge.planning.actions import Plan
from git_theta.merge.planning.cuts import Recut
from git_theta.merge.planning.policy import Policy, method_lookup
from git_theta.merge.planning.versions import Contributor, Versions
from git_theta.merge.planning.vocabulary import NAMES
from git_theta.merge.rules.registry import strategy_named
from git_theta.merge.rules.request import OUT_DTYPES, Rows
from git_theta.merge.rules.rules import Rule
from git_theta.merge.rules.slices import as_row, merges, of_row

Recipe = Mapping[str, Any]

_BLOB = re.compile("[0-9a-f]{40,64}")
_CONTRIBUTORS, _FILES = 256, 1 << 14
_NO_SWEEP: Mapping[str, Any] = {"swept": (), "objectives": (), "points": ()}


def recipe_of(plan: Plan, device: str | None) -> dict[str, Any]:
    """Return the recipe of the plan's result; every value is JSON.

    Rules that decided nothing are left out. A virtual ancestor (criss-cross histories) is in no
    commit, so its recipe is a part of this one.
    """
    policy, versions = plan.policy, plan.versions
    used = {action.rule for each in (plan, *plan.shards) for action in each.actions}
    base = None if versions.base is None else _base(versions.base)
    recipe: dict[str, Any] = {
        "path": versions.path,
        "contributors": [_contributor(plan, each) for each in versions.contributors],
        "base": base and base | _adapter(plan, versions.base_adapter),
        "rules": [_rule(rule, policy) for rule in dict.fromkeys(policy.rules) if rule in used],
        "include_one_sided": policy.include_one_sided,
        "fallback_to_base": policy.fallback_to_base,
    }
    model = _model(plan, versions.recut) if versions.recut else None
    shards = [] if model else [_shard(each.versions) for each in plan.shards]
    optional: dict[str, Any] = {
        "device": device,
        "shards": shards,
        "model": model,
        "layers": versions.layers,
    }
    if versions.vocabularies:
        optional["tokenizers"] = [dict(files) for files in versions.vocabularies.blobs]
    for flag in ("allow_nan", "widen", "everything", "rows", "out_dtype"):
        optional[flag] = getattr(policy, flag)
    optional["sweep"] = policy.sweep
    optional["slices"] = [as_row(each) for each in policy.slices]
    return recipe | {key: value for key, value in optional.items() if value}


def _model(plan: Plan, recut: Recut) -> dict[str, Any]:
    """Return the row of a model that contributors cut into files differently: all of its files."""
    hashes = [{path: m.hash for path, m in files.items()} for files in (recut.base, *recut.sides)]
    return {"base": hashes[0], "contributors": hashes[1:], "scanned": bool(plan.shards)}


def _shard(versions: Versions) -> dict[str, Any]:
    """Return the row of another file of the model, which a prepass read too."""
    sides = [contributor.manifest.hash for contributor in versions.contributors]
    kinds = [
        {kind: found.hash for kind, found in contributor.statistics.items()}
        for contributor in versions.contributors
    ]
    base = versions.base.hash if versions.base else None
    shard = {"path": versions.path, "contributors": sides, "base": base}
    return shard | ({"statistics": kinds} if any(kinds) else {})


def _contributor(plan: Plan, contributor: Contributor) -> dict[str, Any]:
    kinds = {action.method.strategy.statistic for action in plan.merges}
    found = {
        kind: manifest.hash for kind, manifest in contributor.statistics.items() if kind in kinds
    }
    row: dict[str, Any] = {"name": contributor.name, "hash": contributor.manifest.hash}
    row |= {"statistics": found} if found else {}
    return row | _adapter(plan, contributor.adapter)


def _adapter(plan: Plan, fields: Fields | None) -> dict[str, Any]:
    """Return the adapter's configuration for merged factors: the checkpoint lacks their scales."""
    return {"adapter": fields} if plan.units and fields else {}


def _base(base: Manifest) -> dict[str, Any]:
    made_up = base.recipe is not None and base.recipe.get("fallback_to_base")
    return {"hash": base.hash} | ({"recipe": base.recipe} if made_up else {})


def _rule(rule: Rule, policy: Policy) -> dict[str, Any]:
    method = policy.lookup(rule)
    return {
        "match": rule.match,
        "path": rule.path,
        "strategy": rule.strategy,
        "version": method.strategy.version,
        "hyperparameters": dict(method.values),
    }


def policy_of(recipe: Recipe, versions: Versions) -> Policy:
    """Return the policy that a recipe was made with.

    Raises ``MergeError`` where a strategy has another version now, with other results.
    """
    slices = tuple(map(of_row, recipe.get("slices", [])))
    lookup = method_lookup(versions, some=merges(slices))
    rules = [_rule_of(row) for row in recipe["rules"]]
    for rule, row in zip(rules, recipe["rules"], strict=True):
        _check_tables(rule)
        version = lookup(rule).strategy.version
        if version != row["version"]:
            raise MergeError(
                f"{rule.strategy} is version {version} here, the merge was made with version "
                f"{row['version']}, which gave other results",
                hint="install the version of git-theta, or of the strategy's package, that made it",
            )
    flags = {name: recipe[name] for name in ("include_one_sided", "fallback_to_base")}
    flags |= {name: recipe.get(name, False) for name in ("allow_nan", "widen", "everything")}
    # Whether statistics are fresh was decided when the merge was made.
    rows, out = recipe.get("rows"), recipe.get("out_dtype")
    return Policy(rules, lookup, **flags, allow_stale=True, rows=rows, out_dtype=out, slices=slices)


def _rule_of(row: Mapping[str, Any]) -> Rule:
    return Rule(row["match"], row["strategy"], row["hyperparameters"], row["path"])


def _check_tables(rule: Rule) -> None:
    """Raise ``MergeError`` for a table that is a file's name: a recipe is hostile input."""
    with suppress(ModuleNotFoundError):  # of torch: looking the rule up will say so
        parameters = strategy_named(rule.strategy).hyperparameters
        tables = [parameter.name for parameter in parameters if parameter.kind == "table"]
        if any(isinstance(rule.given.get(table), str) for table in tables):
            raise MergeError("the recipe in the manifest is malformed")


def check_recipe(recipe: object) -> Recipe:
    """Return ``recipe``, or raise ``MergeError`` if it is malformed: it is hostile input."""
    try:
        _check_crowd(recipe)
        _check_recipe(recipe)
    except (KeyError, TypeError, ValueError) as error:
        raise MergeError("the recipe in the manifest is malformed") from error
    assert isinstance(recipe, Mapping)
    return recipe


def _check_crowd(recipe: Any) -> None:
    """Bound the memory of a replay: 20,000 times the same version took 3.2 GB."""
    contributors = len(recipe["contributors"])
    files = recipe["model"]["contributors"] if "model" in recipe else []
    shards = max([len(recipe.get("shards", [])), *map(len, files)])
    if contributors > _CONTRIBUTORS or contributors * shards > _FILES:
        raise MergeError(
            f"the recipe in the manifest names {contributors:,} contributors and {shards:,} other "
            f"files; a replay takes {_CONTRIBUTORS} contributors with {_FILES:,} files"
        )


def _check_recipe(recipe: Any) -> None:
    _expect(recipe["path"], str)
    optional = (recipe.get(name, False) for name in ("allow_nan", "widen", "everything"))
    for flag in (recipe["include_one_sided"], recipe["fallback_to_base"], *optional):
        _expect(flag, bool)
    for side in [*recipe["contributors"], *([recipe["base"]] if recipe["base"] else [])]:
        _expect(side["hash"], str)
        _expect(side.get("adapter", {}), dict)
    if not recipe["contributors"]:
        raise ValueError
    for contributor in recipe["contributors"]:
        _expect(contributor["name"], str)
        _expect(contributor.get("statistics", {}), dict)
    for row in recipe["rules"]:
        for key in ("match", "path", "strategy"):
            _expect(row[key], str)
        _expect(row["version"], int)
        _expect(row["hyperparameters"], dict)
    _expect(recipe.get("device", ""), str)
    _check_wishes(recipe)
    _check_sweep(recipe.get("sweep", _NO_SWEEP))
    if "model" in recipe:
        _check_model(recipe["model"], len(recipe["contributors"]))
    for shard in recipe.get("shards", []):
        _check_shard(shard, len(recipe["contributors"]))


def _check_wishes(recipe: Any) -> None:
    known = {"rows": get_args(Rows), "out_dtype": OUT_DTYPES.values()}
    if any(recipe.get(name) not in (None, *values) for name, values in known.items()):
        raise ValueError
    for files in recipe.get("tokenizers", []):
        _expect(files, dict)
        if set(files) - set(NAMES) or not all(map(_BLOB.fullmatch, files.values())):
            raise ValueError
    if len(recipe.get("tokenizers", [])) not in (0, 1 + len(recipe["contributors"])):
        raise ValueError
    for row in recipe.get("slices", []):
        of_row(row)
    _expect(recipe.get("layers", {}), dict)
    for number in recipe.get("layers", {}).values():
        _expect(number, int)


def _check_model(model: Any, number: int) -> None:
    _expect(model["scanned"], bool)
    if len(model["contributors"]) != number:
        raise ValueError
    for files in (model["base"], *model["contributors"]):
        _expect(files, dict)
        for hash_ in files.values():
            _expect(hash_, str)
        if not files:
            raise ValueError


def _check_sweep(sweep: Any) -> None:
    swept, objectives = sweep["swept"], sweep["objectives"]
    for values, scores in sweep["points"]:
        for word in (*swept, *objectives, *values):
            _expect(word, str)
        for score in scores:
            _expect(score, float)
        if (len(values), len(scores)) != (len(swept), len(objectives)):
            raise ValueError


def _check_shard(shard: Any, number: int) -> None:
    _expect(shard["path"], str)
    for hash_ in [*shard["contributors"], *([shard["base"]] if shard["base"] else [])]:
        _expect(hash_, str)
    for kinds in shard.get("statistics", []):
        _expect(kinds, dict)
    if {len(shard["contributors"]), len(shard.get("statistics", [])) or number} != {number}:
        raise ValueError


def _expect(value: object, kind: type) -> None:
    if type(value) is not kind:
        raise TypeError
