"""Which parameter of a checkpoint an adapter's name means.

The two often differ in what stands before: an adapter trained on a classifier says
``bert.encoder.layer.0``, the checkpoint ``encoder.layer.0``.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches

from git_theta.encodings.float_formats import FORMATS
from git_theta.errors import UsageError

_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of a checkpoint, as far as an update must know it."""

    dtype: str
    shape: tuple[int, ...]


def check_float(name: str, parameter: Parameter) -> None:
    """Raise ``UsageError`` unless the parameter can be computed with."""
    if parameter.dtype not in FORMATS:
        raise UsageError(
            f"{name} is {parameter.dtype}: an adapter can only be merged into floats",
            hint="use the checkpoint that is not quantised",
        )


def mismatch(name: str, parameter: Parameter, update: object) -> UsageError:
    """Return the error that the parameter's shape does not suit the shape of its ``update``."""
    return UsageError(
        f"{name} is {parameter.shape}, but the update of it is {update}",
        hint="the update is for another model",
    )


class Names:
    """Finds parameters by exact name, else by the only name that ends like it.

    ``renamed`` maps names of the adapter (of a parameter, of a module, or of what contains
    modules) to names of the checkpoint; an empty one leaves the parameter out.
    """

    def __init__(
        self, parameters: Mapping[str, Parameter], renamed: Mapping[str, str] | None = None
    ) -> None:
        self.parameters = parameters
        self._renamed = renamed or {}

    def find(self, wanted: str) -> str | None:
        """Return the parameter that ``wanted`` means, ``None`` where it is left out.

        Raises ``UsageError`` listing candidates where there is none, or more than one.
        """
        renamed = self._rename(wanted)
        if not renamed:
            return None
        if renamed in self.parameters:
            return renamed
        if renamed != wanted:
            raise self._error(wanted, f"no tensor is called {renamed}", [])
        ends = [name for name in self.parameters if _ends_alike(name, wanted)]
        if len(ends) > 1:
            raise self._error(wanted, f"{wanted} may be any of several tensors", ends)
        if not ends:
            raise self._error(wanted, f"the checkpoint has no tensor for {wanted}", [])
        return ends[0]

    def _rename(self, wanted: str) -> str:
        """Return the new name of ``wanted``, by the longest old name that contains it."""
        olds = (old for old in self._renamed if f"{wanted}.".startswith(f"{old}."))
        old = max(olds, key=len, default=None)
        if old is None:
            return wanted
        new = self._renamed[old]
        return new + wanted[len(old) :] if new else ""

    def _error(self, wanted: str, message: str, candidates: list[str]) -> UsageError:
        if not candidates:
            last = {_tail(name, wanted): name for name in self.parameters}
            close = get_close_matches(_tail(wanted, wanted), last, _SHOWN, 0.5)
            candidates = [last[tail] for tail in close]
        shown = candidates[:_SHOWN]
        if len(candidates) > _SHOWN:
            shown += [f"and {len(candidates) - _SHOWN} more"]
        word = shlex.quote(wanted)
        return UsageError(
            f"{message}; candidates:" if candidates else message,
            details=shown,
            hint=f"name it with --map {word}=NAME, or leave it out with --map {word}=",
        )


def _ends_alike(name: str, wanted: str) -> bool:
    return f".{name}".endswith(f".{wanted}") or f".{wanted}".endswith(f".{name}")


def _tail(name: str, wanted: str) -> str:
    """Return as many of the last components of ``name`` as ``wanted`` has."""
    return ".".join(name.split(".")[-wanted.count(".") - 1 :])
