"""Values of strategies' hyperparameters, from what users write to what recipes hold."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, ItemsView, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from git_theta.core.files import read_regular
from git_theta.errors import MergeError
from git_theta.merge.rules import gradients
from git_theta.merge.rules.hyperparameters import Hyperparameter, Kind

_LARGEST_TABLE = 16 << 20


def parse_value(hyperparameter: Hyperparameter, value: Any, contributors: Sequence[str]) -> Any:
    """Return ``value``, a string or of its own type, as the strategy's function takes it.

    ``contributors`` are the names of what is merged. The result is JSON. Raise ``MergeError``,
    which says what is accepted, for any other value. Kind ``rule`` is ``binding``'s.
    """
    try:
        return _RESOLVERS[hyperparameter.kind](hyperparameter, value, contributors)
    except (TypeError, ValueError, OverflowError) as error:
        raise not_accepted(hyperparameter, value) from error


def default_value(hyperparameter: Hyperparameter, contributors: Sequence[str]) -> Any:
    """Return the default as the strategy's function takes it; raise ``MergeError`` without one.

    That of kind ``rule`` is returned as it is written.
    """
    default = hyperparameter.default
    if hyperparameter.required:
        raise MergeError(f"{hyperparameter.name} is missing: it is {hyperparameter.accepts}")
    if hyperparameter.kind == "per-contributor":
        return [float(default[0])] * len(contributors)
    if hyperparameter.kind == "contributor":
        return [False] * len(contributors)
    return list(default) if hyperparameter.kind == "table" else default


def not_accepted(hyperparameter: Hyperparameter, value: Any) -> MergeError:
    """Return the error for a ``value`` that the hyperparameter does not take."""
    return MergeError(
        f"{hyperparameter.name} cannot be {value!r}: it is {hyperparameter.accepts}",
        hint=hyperparameter.range.hint or None,
    )


def unknown(message: str, name: str, known: Sequence[str]) -> MergeError:
    """Return the error for a ``name`` that is none of the ``known`` ones."""
    close = get_close_matches(name, known, n=1)
    guess = f"did you mean {close[0]}? " if close else ""
    listed = ", ".join(known) if known else "none"
    return MergeError(f"{message} {name!r}", hint=f"{guess}known ones: {listed}")


def _bool(_hyperparameter: Hyperparameter, value: Any, _contributors: Sequence[str]) -> bool:
    words = {"true": True, "yes": True, "on": True, "1": True}
    words |= {"false": False, "no": False, "off": False, "0": False}
    if isinstance(value, bool):
        return value
    if not isinstance(value, str) or value.lower() not in words:
        raise ValueError
    return words[value.lower()]


def _int(hyperparameter: Hyperparameter, value: Any, _contributors: Sequence[str]) -> int:
    if isinstance(value, (bool, float)):
        raise TypeError
    number = int(value)
    # The recipe is JSON, whose readers agree on no more than 63 bits.
    if number not in hyperparameter.range or abs(number) >= 1 << 63:
        raise ValueError
    return number


def _float(
    hyperparameter: Hyperparameter, value: Any, _contributors: Sequence[str]
) -> float | dict[str, list[float]]:
    """Return a number, or a gradient over the layers."""
    numbers = gradients.numbers_of(value)
    if numbers is None:
        return _number(hyperparameter, value)
    return gradients.gradient([_number(hyperparameter, number) for number in numbers])


def _number(hyperparameter: Hyperparameter, value: Any) -> float:
    if isinstance(value, bool):
        raise TypeError
    number = float(value)
    if not math.isfinite(number) or number not in hyperparameter.range:
        raise ValueError
    return number


def _choice(hyperparameter: Hyperparameter, value: Any, _contributors: Sequence[str]) -> str:
    if value not in hyperparameter.choices:
        raise ValueError
    return str(value)


def _per_contributor(
    hyperparameter: Hyperparameter, value: Any, contributors: Sequence[str]
) -> list[Any]:
    """Return a number or a gradient for each contributor."""
    if isinstance(value, Mapping) and not gradients.is_gradient(value):
        missing = hyperparameter.default[0] if hyperparameter.kind == "per-contributor" else 0.0
        numbers = dict.fromkeys(contributors, missing)
        places = _places(contributors)
        for name, number in value.items():
            if name not in places:
                raise unknown("there is no contributor called", name, list(places))
            numbers[contributors[places[name]]] = number
        value = list(numbers.values())
    if isinstance(value, str) and ("," in value or value.startswith("[")):
        value = value.removeprefix("[").removesuffix("]").split(",")
    if isinstance(value, (int, float, str)) or gradients.is_gradient(value):
        value = [value] * len(contributors)
    if len(value) != len(contributors):
        raise MergeError(
            f"{hyperparameter.name} has {len(value)} values for {len(contributors)} "
            f"contributors ({', '.join(contributors)})"
        )
    return [_float(hyperparameter, number, contributors) for number in value]


def _contributor(
    hyperparameter: Hyperparameter, value: Any, contributors: Sequence[str]
) -> list[bool]:
    if isinstance(value, list) and [type(item) for item in value] == [bool] * len(contributors):
        return value  # As it stands in a recipe.
    if value in hyperparameter.choices:
        return [False] * len(contributors)
    places = _places(contributors)
    if value not in places:
        known = [*places, *hyperparameter.choices]
        raise unknown("there is no contributor called", str(value), known)
    return [place == places[value] for place in range(len(contributors))]


def _places(contributors: Sequence[str]) -> dict[str, int]:
    """Return each contributor's index by name, and by ``ours`` and ``theirs``."""
    sides = {"ours": 0, "theirs": 1} if len(contributors) == 2 else {"ours": 0}
    return sides | {name: place for place, name in enumerate(contributors)}


def _table(
    hyperparameter: Hyperparameter, value: Any, contributors: Sequence[str]
) -> list[list[Any]]:
    """Return pairs of a name and its numbers: order counts, and recipes sort a mapping's keys."""
    if isinstance(value, str):
        value = _read_json(hyperparameter, value)
    pairs = value.items() if isinstance(value, Mapping) else value
    if not isinstance(pairs, (list, ItemsView)):
        raise TypeError
    rows = [
        [_name(name), _per_contributor(hyperparameter, row, contributors)] for name, row in pairs
    ]
    if gradients.places(rows):
        raise TypeError
    return rows


def _name(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _read_json(hyperparameter: Hyperparameter, name: str) -> Any:
    path = Path(name)
    try:
        if path.suffix != ".json":
            raise ValueError("a table's file is called *.json")
        return json.loads(read_regular(path, _LARGEST_TABLE, follow=True))
    except FileNotFoundError:
        reason: object = "no such file"
    except OSError as error:
        reason = error.strerror
    except json.JSONDecodeError as error:
        reason = f"no JSON: {error}"
    except RecursionError:
        reason = "it is nested too deeply"
    except ValueError as error:
        reason = error
    raise MergeError(f"{hyperparameter.name}: {reason}", path=name)


# Each raises TypeError or ValueError for what is not of its kind, MergeError where it can say more.
_RESOLVERS: dict[Kind, Callable[[Hyperparameter, Any, Sequence[str]], Any]] = {
    "bool": _bool,
    "int": _int,
    "float": _float,
    "choice": _choice,
    "per-contributor": _per_contributor,
    "contributor": _contributor,
    "table": _table,
}
