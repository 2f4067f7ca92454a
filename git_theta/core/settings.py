"""Every setting, its default, and the one place where they are read.

In order of precedence: ``GIT_THETA_*`` environment variables (one-off overrides), ``git config
theta.*``, ``.theta.toml`` at the root of the work tree (what a team shares), the defaults here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from git_theta.core.system import cpu_count
from git_theta.errors import SettingsError

_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}
# What a manifest can hold: chunks of up to 256 MiB, chains of up to 64 links.
_RANGES = {"chunk_size": (1, 1 << 28), "max_depth": (0, 63), "max_cost": (0, 1 << 20)}


@dataclass(frozen=True, slots=True)
class Settings:
    """Each field is ``theta.<key>``, where the key is the field's name without underscores."""

    chunk_size: int = 32 << 20
    """Bytes of a chunk: the unit of hashing, encoding, reuse and parallel work."""
    pack_limit: int = 1 << 20
    """Frames smaller than this share an object."""
    pack_size: int = 32 << 20
    """A shared object is closed when it has grown to this."""
    threads: int = 0
    """Worker threads; 0 is one per processor."""
    max_depth: int = 8
    """The longest chain of bases that a new chunk may have."""
    max_cost: int = 3
    """How many times a chunk's own size the frames of its bases may take together."""
    smudge: bool = True
    """Whether checkout writes checkpoints; false leaves manifests for ``git theta checkout``."""
    direct_above: int = 512 << 20
    """Bytes. Git holds a file that it checks out in memory whole; larger checkpoints are written
    to disk by a hook instead. 0 is all of them."""
    auto_hooks: bool = True
    """Whether the filter adds our missing hooks to a repository."""
    pointers: bool = True
    """Whether a push names its objects by LFS pointers in a ref, for hosts that collect others."""

    device: str = "auto"
    """Where merges compute: auto (a GPU if there is one), cpu, cuda, cuda:1, mps."""

    @property
    def workers(self) -> int:
        """Threads to use."""
        return self.threads or cpu_count()


def load(
    config: Mapping[str, str],
    team: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
) -> Settings:
    """Settings from ``git config`` (keys ``theta.<key>``), ``.theta.toml`` and the environment.

    Raises ``SettingsError`` naming the setting, its value and where it comes from.
    """
    values: dict[str, Any] = {}
    for field in fields(Settings):
        key = field.name.replace("_", "")
        found = _lookup(key, config, team or {}, environ or {})
        if found is not None:
            origin, raw = found
            values[field.name] = _convert(raw, type(field.default), f"{origin}={raw}")
            _check_range(field.name, values[field.name], f"{origin}={raw}")
    return Settings(**values)


def _lookup(
    key: str, config: Mapping[str, str], team: Mapping[str, Any], environ: Mapping[str, str]
) -> tuple[str, Any] | None:
    variable = f"GIT_THETA_{key.upper()}"
    if variable in environ:
        return variable, environ[variable]
    if f"theta.{key}" in config:
        return f"theta.{key}", config[f"theta.{key}"]
    if key in team:
        return f".theta.toml: {key}", team[key]
    return None


def _convert(raw: Any, kind: type, origin: str) -> Any:
    converters: dict[type, Callable[[str], Any]] = {bool: _boolean, int: _integer, str: str}
    try:
        return converters[kind](str(raw).strip())
    except ValueError as error:
        raise SettingsError(f"{origin}: {error}") from error


def _check_range(name: str, value: Any, origin: str) -> None:
    low, high = _RANGES.get(name, (value, value))
    if not low <= value <= high:
        raise SettingsError(f"{origin}: not from {low} to {high}")


def _boolean(text: str) -> bool:
    # The words that git itself takes.
    if text.lower() in {"true", "yes", "on", "1", ""}:
        return True
    if text.lower() in {"false", "no", "off", "0"}:
        return False
    raise ValueError("not true or false")


def _integer(text: str) -> int:
    digits, unit = (text[:-1], text[-1].lower()) if text and text[-1].isalpha() else (text, "")
    if unit not in _UNITS or not (digits.isascii() and digits.isdigit()):
        raise ValueError("not a size such as 512k, 64m or 2g")
    return int(digits) * _UNITS[unit]
