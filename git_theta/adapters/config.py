"""``adapter_config.json``: what PEFT needs to know to merge an adapter.

Source: ``LoraConfig`` and ``IA3Config`` of https://github.com/huggingface/peft, release 0.21.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from git_theta.adapters.patterns import Matcher, Patterns
from git_theta.core.files import read_regular
from git_theta.errors import FormatError, UsageError, naming

V = TypeVar("V")

Fields = Mapping[str, Any]
"""The content of ``adapter_config.json``."""

FILE = "adapter_config.json"
_LARGEST = 16 << 20
_DEEPEST = 32


# Set, each of these makes the merged weights something else than W + scale * B A.
_UNSUPPORTED = (
    "use_dora",
    "use_qalora",
    "use_bdlora",
    "alora_invocation_tokens",
    "arrow_config",
    "kasa_config",
    "layer_replication",
    "monteclora_config",
    "target_parameters",
    "trainable_token_indices",
    "velora_config",
)
_START = "init_lora_weights"
# These ways to start a training change the base weights as well.
_CHANGES_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga", "mica")


@dataclass(frozen=True, slots=True)
class Config:
    """The settings of an adapter that say what merging it gives."""

    kind: str
    rank: int
    alpha: float
    ranks: Patterns[int]
    alphas: Patterns[float]
    is_rank_stabilised: bool
    is_transposed: bool
    feedforward: Matcher | tuple[str, ...]

    def rank_of(self, module: str) -> int:
        """Return the rank of a module's factors; ``FormatError`` where it is hard to find."""
        return _bounded(self.ranks.get, module, self.rank)

    def scale_of(self, module: str, rank: int) -> float:
        """Return what the product of a module's factors is multiplied by; raises as ``rank_of``."""
        alpha = _bounded(self.alphas.get, module, self.alpha)
        return alpha / (math.sqrt(rank) if self.is_rank_stabilised else rank)

    def is_feedforward(self, module: str) -> bool:
        """Return whether an IA3 vector scales what goes into a module, not what comes out."""
        if isinstance(self.feedforward, Matcher):
            return _bounded(self.feedforward.matches, module)
        return any(module.endswith(name) for name in self.feedforward)


def read_config(path: Path) -> Config:
    """Read the file of an adapter that is to be merged into its base.

    Raises ``FormatError`` where it is malformed, ``UsageError`` where it describes an adapter
    that cannot be merged here.
    """
    try:
        # Caches of models are full of symbolic links; a device behind one would never end.
        with naming(str(path)):
            fields = parse_fields(read_regular(path, _LARGEST, follow=True))
            config = config_of(fields)
            check_supported(fields)
    except FileNotFoundError:
        raise UsageError(
            f"an adapter needs its {FILE}",
            path=str(path),
            hint="give the folder that save_pretrained() wrote",
        ) from None
    except (OSError, ValueError) as error:
        raise FormatError(f"cannot be read: {error}", path=str(path)) from error
    return config


def parse_fields(data: bytes) -> Fields:
    """Return the text of ``adapter_config.json`` as a mapping; ``FormatError`` where it is none."""
    if len(data) > _LARGEST:
        raise _too_large()
    try:
        fields = json.loads(data, parse_constant=_finite, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        raise _malformed(error) from error
    if not isinstance(fields, dict):
        raise FormatError("not a PEFT configuration")
    if _depth(fields) > _DEEPEST:
        raise FormatError("it is nested too deeply to be a configuration")
    return fields


def _depth(fields: Fields) -> int:
    """Return how many containers are in each other at most."""
    depth, level = 0, [fields]
    while level:
        depth += 1
        level = [inner for outer in level for inner in _containers(outer)]
    return depth


def _containers(outer: Any) -> Iterable[Any]:
    inside = outer.values() if isinstance(outer, dict) else outer
    return (inner for inner in inside if isinstance(inner, (dict, list)))


def config_of(fields: Fields) -> Config:
    """Return what the fields say of an adapter's scales.

    ``FormatError`` where they are malformed.
    """
    try:
        return _config(fields)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise _malformed(error) from error


def _too_large() -> FormatError:
    return FormatError("it is too large to be a configuration")


def _malformed(error: Exception) -> FormatError:
    return FormatError(f"not a PEFT configuration: {type(error).__name__}: {error}")


def _config(fields: Fields) -> Config:
    feedforward = fields.get("feedforward_modules") or ()
    return Config(
        str(fields["peft_type"]),
        int(fields.get("r", 8)),
        _finite(fields.get("lora_alpha", 8)),
        Patterns({key: int(rank) for key, rank in _patterns(fields, "rank_pattern")}),
        Patterns({key: _finite(alpha) for key, alpha in _patterns(fields, "alpha_pattern")}),
        bool(fields.get("use_rslora")),
        bool(fields.get("fan_in_fan_out")),
        Matcher(feedforward) if isinstance(feedforward, str) else tuple(map(str, feedforward)),
    )


def check_supported(fields: Fields) -> None:
    """Raise ``UsageError`` for an adapter that is more than a product of factors or a scaling."""
    if (kind := fields.get("peft_type")) not in ("LORA", "IA3"):
        raise UsageError(
            f"adapters of type {kind} cannot be merged here",
            hint="merge it with PEFT, save the model and git add that",
        )
    for key, value in beyond_factors(fields).items():
        raise _unsupported(key if key in _UNSUPPORTED else f"{key}={value}")


def beyond_factors(fields: Fields) -> Fields:
    """Return the keys that make an adapter's updates more than a product of two factors."""
    found = {key: fields[key] for key in _UNSUPPORTED if fields.get(key)}
    if str(fields.get(_START, True)).lower().startswith(_CHANGES_BASE):
        found[_START] = fields[_START]
    return found


def _unsupported(what: str) -> UsageError:
    return UsageError(
        f"adapters with {what} cannot be merged here",
        hint="merge it with PEFT, save the model and git add that",
    )


def _finite(value: Any) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"{value} is not a finite number")
    return number


def _patterns(fields: Fields, name: str) -> Iterable[tuple[str, Any]]:
    patterns: Mapping[str, Any] = fields.get(name) or {}
    return patterns.items()


def _bounded(look_up: Callable[..., V], *arguments: object) -> V:
    try:
        return look_up(*arguments)
    except ValueError as error:
        raise _malformed(error) from error
