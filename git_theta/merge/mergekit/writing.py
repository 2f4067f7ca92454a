"""How a merge was made, as a recipe of mergekit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from git_theta.core.messages import plural
from git_theta.errors import MergeError
from git_theta.merge.mergekit.yaml_text import dump

Row = Mapping[str, Any]
"""A rule in the recipe of a merge, with the values of all hyperparameters."""

_ALL = "mergekit merges every tensor; here only those were that several branches changed"
_NAMES = {"average": "linear", "linear": "linear", "threshold": "epsilon"}
_FIRST = ("slerp", "arcee_fusion", "nearswap")
"""Methods whose base model is the first that is merged."""
_METHODS = (
    *("linear", "passthrough", "nuslerp", "multislerp", "karcher", "task_arithmetic", "ties"),
    *("dare_linear", "dare_ties", "breadcrumbs", "breadcrumbs_ties", "della", "della_linear"),
    *("model_stock", "sce", "ram", *_FIRST),
)
_NO_BASE = ("linear", "passthrough", "karcher")

# Values that mergekit cannot be told, where they are not the only ones that it has, and why.
_ONLY: Mapping[str, tuple[Any, str]] = {
    "scope": ("tensor", "mergekit trims tensor by tensor"),
    "rescale": (("l1", "none"), "mergekit keeps the L1 norm, or rescales nothing"),
    "side": (None, "mergekit takes the only model"),
}


def text_of(recipe: Mapping[str, Any], names: Sequence[str], base: str | None) -> str:
    """Return the recipe as YAML, of a result with tensors ``names``; ``base`` names the base.

    Raises ``MergeError``, which lists what mergekit cannot be told.
    """
    rows = [] if recipe.get("slices") else _deciding(recipe["rules"], names)
    problems = _problems(rows)
    if recipe.get("slices"):
        problems.append("slices: a model of layers of others is not written back")
    if problems:
        listed = list(dict.fromkeys(problems))
        number = plural(len(listed), "reason")
        raise MergeError(f"mergekit cannot make this merge, for {number}", details=listed)
    filters = _filters(rows, names)
    strategy = str(rows[0]["strategy"])
    method = _NAMES.get(strategy, strategy)
    values = [_values(method, row["hyperparameters"]) for row in rows]
    # Lists have a number for each model.
    own = [key for key, value in values[0].items() if isinstance(value, list)]
    shared = [key for key in values[0] if key not in own]
    models = [contributor["name"] for contributor in recipe["contributors"]]
    document: dict[str, Any] = {"models": [], "merge_method": method}
    for place, model in enumerate(models):
        given = {key: _spread(filters, [each[key][place] for each in values]) for key in own}
        document["models"].append({"model": model} | ({"parameters": given} if given else {}))
    if method in _FIRST:
        document["base_model"] = models[0]
    elif base is not None and method not in _NO_BASE and _counts(rows[0]):
        document["base_model"] = base
    if shared:
        found = {key: _spread(filters, [each[key] for each in values]) for key in shared}
        document["parameters"] = found
    comment = "" if recipe.get("everything") else f"# {_ALL}\n"
    return comment + dump(document)


def _counts(row: Row) -> bool:
    """Return whether the base counts: methods on spheres merge task vectors or models."""
    return bool(row["hyperparameters"].get("task_vectors", True))


def _deciding(rows: Sequence[Row], names: Sequence[str]) -> list[Row]:
    """Return the rules that decide on any of the tensors."""
    used = [next((row for row in rows if _is_for(row, name)), None) for name in names]
    found = [row for row in rows if any(row is each for each in used)]
    if not found:
        raise MergeError("no tensor was merged by a rule")
    return found


def _is_for(row: Row, name: str) -> bool:
    return fnmatchcase(name, row["match"])


def _problems(rows: Sequence[Row]) -> list[str]:
    problems = []
    for row in rows:
        name, values = row["strategy"], row["hyperparameters"]
        if _NAMES.get(name, name) not in _METHODS:
            problems.append(f"{name}: mergekit has no such method")
        elif name != rows[0]["strategy"]:
            problems.append(f"{name} and {rows[0]['strategy']}: mergekit has one method for all")
        for key, (usable, reason) in _ONLY.items():
            told = usable if isinstance(usable, tuple) else (usable,)
            value = values.get(key, told[0])
            if value not in told and not (isinstance(value, list) and True not in value):
                problems.append(f"{key}={value}: {reason}")
        if name == "karcher" and len(set(values["weight"])) > 1:
            problems.append("weight: mergekit's karcher has none")
        if name == "sce" and values["among"] == "all" and values["select_topk"] < 1:
            problems.append("among=all: mergekit selects of the elements that vary")
        if name == "ram" and values["lambda"] != 1:
            problems.append("lambda: mergekit's ram has none")
    return problems


def _values(method: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return hyperparameters as parameters of mergekit."""
    values: dict[str, Any] = {}
    for key, value in given.items():
        if key in ("scope", "seed", "side", "among", "task_vectors"):
            continue
        if key == "row_wise":
            values |= {"nuslerp_flatten": False} if value and method == "nuslerp" else {}
        elif key == "rescale":
            values["rescale"] = value == "l1"
        elif (method, key) in (("karcher", "weight"), ("ram", "lambda")):
            continue
        else:
            values[_NAMES.get(key, key)] = value
    return values


def _spread(filters: Sequence[str | None], values: Sequence[Any]) -> Any:
    """Return one value for all tensors, or values by filters of their names."""
    if all(value == values[0] for value in values):
        return values[0]
    pairs = zip(filters, values, strict=True)
    return [({} if part is None else {"filter": part}) | {"value": value} for part, value in pairs]


def _filters(rows: Sequence[Row], names: Sequence[str]) -> list[str | None]:
    """Return for each rule a part of the names that it decides on, and for the last ``None``."""
    left, filters = list(names), []
    for row in rows[:-1]:
        wanted = [name for name in left if _is_for(row, name)]
        parts = sorted(row["match"].split("*"), key=len, reverse=True)
        found = (part for part in parts if part and [n for n in left if part in n] == wanted)
        if (part := next(found, None)) is None:
            raise MergeError(f"rule {row['match']!r}: no part of names tells the same tensors")
        filters.append(part)
        left = [name for name in left if name not in wanted]
    return [*filters, None]
