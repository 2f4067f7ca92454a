"""Every setting, its default, who may set it, and the one place where they are read.

In order of precedence: ``GIT_THETA_*`` environment variables (one-off overrides), ``git config
theta.*``, ``.theta.toml`` at the root of the work tree (what a team shares), the defaults here.

``.theta.toml`` comes with any clone, so it may be a stranger's: a field says whether a repository
may set it, and from what to what. Switching protection off, choosing devices or making work
unbounded is for the user.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import Field, dataclass, field, fields
from pathlib import Path
from typing import Any

from git_theta.core.system import cpu_count
from git_theta.errors import SettingsError, naming

_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}
# More are no number of bytes, and Python itself refuses those of 4,300.
_DIGITS = 18
_SHOWN = 80
_PREFIX, _VARIABLE = "theta.", "GIT_THETA_"
_TEAM_FILE = ".theta.toml"
_LFS_SKIPS = "GIT_LFS_SKIP_SMUDGE"

# Keys below ``theta.`` that are no settings of this module, and keys of ``.theta.toml``.
_MERGE_KEYS = ("merge.strategy",)
_TABLES = ("merge",)


def _setting(
    default: Any, least: int = 0, most: int | None = None, shared: tuple[int, int] | None = None
) -> Any:
    """Declare a setting: the range of a number, and the range that a repository may choose."""
    return field(default=default, metadata={"least": least, "most": most, "shared": shared})


@dataclass(frozen=True, slots=True)
class Settings:
    """Each field is ``theta.<key>``, where the key is the field's name in camel case."""

    # What a manifest can hold: chunks of up to 64 MiB, chains of up to 64 links. Chunks of 64
    # bytes made an add 36 times slower.
    chunk_size: int = _setting(32 << 20, 1, 64 << 20, shared=(4 << 20, 64 << 20))
    """Bytes of a chunk: the unit of hashing, encoding, reuse and parallel work."""
    pack_limit: int = _setting(1 << 20)
    """Frames smaller than this share an object."""
    pack_size: int = _setting(32 << 20)
    """A shared object is closed when it has grown to this."""
    object_size: int = _setting(0, 0, 4 << 30, shared=(32 << 20, 1 << 30))
    """If not 0, all frames share objects, closed at this size: few large ones, for hosts that count
    requests or objects."""
    threads: int = _setting(0)
    """Worker threads; 0 is one per processor."""
    max_depth: int = _setting(8, 0, 63, shared=(0, 8))
    """The longest chain of bases that a new chunk may have."""
    max_cost: int = _setting(3, 0, 1 << 20, shared=(0, 3))
    """The number of times a chunk's own size that the frames of its bases may take together."""
    expand_limit: int = _setting(2 << 30)
    """Bytes that may be decoded beyond 1,000 times what is stored of them."""
    smudge: bool = _setting(True)
    """Write checkpoints at checkout; false leaves manifests for ``git theta checkout``."""
    direct_above: int = _setting(512 << 20)
    """Bytes. Git holds a file that it checks out in memory whole; larger checkpoints are written
    to disk by a hook instead. 0 is all of them."""
    auto_hooks: bool = _setting(True)
    """Let the filter add our missing hooks to a repository."""
    pointers: bool = _setting(True)
    """Let a push name its objects by LFS pointers in a ref, for hosts that collect others."""
    device: str = _setting("auto")
    """The device on which merges compute: auto (a GPU if there is one), cpu, cuda, cuda:1, mps."""

    shared_store: str = _setting("none")
    """A folder of objects that many clones share (``store.shared``); none: each has its own."""

    @property
    def shared_folder(self) -> Path | None:
        """The shared store's folder, if there is one."""
        return None if self.shared_store == "none" else Path(self.shared_store).expanduser()

    @property
    def packing(self) -> tuple[int, int]:
        """Bytes below which a frame shares an object, and at which such an object is closed."""
        several = (self.object_size, self.object_size)
        return several if self.object_size else (self.pack_limit, self.pack_size)

    @property
    def workers(self) -> int:
        """Threads to use."""
        return self.threads or cpu_count()


def key_of(setting: Field[Any]) -> str:
    """Return the key of a field as documented, ``chunkSize``."""
    first, *rest = setting.name.split("_")
    return first + "".join(map(str.capitalize, rest))


def load(
    config: Mapping[str, str],
    team: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
) -> Settings:
    """Return settings from ``git config`` (``theta.<key>``), ``.theta.toml``, the environment.

    Raises ``SettingsError`` naming the setting, its value and where it comes from.
    """
    check_shared(team or {})
    found = {
        **_shared(team or {}),
        **_configured(config),
        **_of_lfs(environ or {}),
        **_overridden(environ or {}),
    }
    values = {
        each.name: _value(each, *found[each.name])
        for each in fields(Settings)
        if each.name in found
    }
    return Settings(**values)


def check_shared(team: Mapping[str, Any]) -> None:
    """Raise ``SettingsError`` for a value in ``.theta.toml`` that a repository may not choose."""
    known = {each.name: each for each in fields(Settings)}
    with naming(_TEAM_FILE):
        for name, (key, raw) in _shared(team).items():
            _check_choice(known[name], key, _value(known[name], key, raw))


def _check_choice(setting: Field[Any], key: str, value: Any) -> None:
    shared = setting.metadata["shared"]
    if shared is None:
        raise SettingsError(
            f"{key}: a repository may not set it",
            hint=f"git config {_PREFIX}{key_of(setting)} ... sets it for yourself",
        )
    if not shared[0] <= value <= shared[1]:
        raise SettingsError(f"{key}={value}: a repository may choose {_span(*shared)}")


def unknown_keys(config: Mapping[str, str], team: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with each key that nothing reads: it may be misspelt."""
    names = {_normal(key_of(each)): key_of(each) for each in fields(Settings)}
    ours = names | {key: key for key in _MERGE_KEYS}
    asked = [key.removeprefix(_PREFIX) for key in config if key.startswith(_PREFIX)]
    found = [_unknown(_PREFIX, key, ours) for key in asked if key not in ours]
    shared = [key for key in team if _normal(key) not in names and key not in _TABLES]
    return found + [_unknown(f"{_TEAM_FILE}: ", key, names) for key in shared]


def _unknown(prefix: str, key: str, known: Mapping[str, str]) -> str:
    from difflib import get_close_matches  # which only a mistake needs

    close = get_close_matches(_normal(key), known, 1)
    suggestion = f"; is {prefix}{known[close[0]]} meant?" if close else ""
    return f"nothing reads {prefix}{key}{suggestion}"


Found = dict[str, tuple[str, Any]]
"""By the name of a field: the setting as the user wrote it, and its value."""


def _configured(config: Mapping[str, str]) -> Found:
    # Git does not say how the user wrote a key, so it is named as it is documented.
    found = {each.name: f"{_PREFIX}{key_of(each)}" for each in fields(Settings)}
    return {n: (key, config[key.lower()]) for n, key in found.items() if key.lower() in config}


def _shared(team: Mapping[str, Any]) -> Found:
    return _matching((key, key, value) for key, value in team.items())


def _overridden(environ: Mapping[str, str]) -> Found:
    written = ((key, key.removeprefix(_VARIABLE), value) for key, value in environ.items())
    return _matching(row for row in written if row[0].startswith(_VARIABLE))


def _of_lfs(environ: Mapping[str, str]) -> Found:
    """Return the variables of git-lfs that people and CI images mean for every large file."""
    value = environ.get(_LFS_SKIPS, "").lower()
    # The words that git-lfs takes (config/environment.go).
    return {"smudge": (_LFS_SKIPS, "false")} if value in {"true", "1", "on", "yes", "t"} else {}


def _matching(written: Iterable[tuple[str, str, Any]]) -> Found:
    """Return those of (origin, key, value) that are settings, in any case, with or without "_"."""
    names = {_normal(each.name): each.name for each in fields(Settings)}
    rows = ((names.get(_normal(key)), origin, value) for origin, key, value in written)
    return {name: (origin, value) for name, origin, value in rows if name is not None}


def _normal(key: str) -> str:
    return key.replace("_", "").replace("-", "").lower()


def _value(setting: Field[Any], origin: str, raw: Any) -> Any:
    converters: dict[type, Callable[[str], Any]] = {bool: _boolean, int: _integer, str: str}
    written = f"{origin}={str(raw)[:_SHOWN]}"
    try:
        value = converters[type(setting.default)](str(raw).strip())
    except ValueError as error:
        raise SettingsError(f"{written}: {error}") from error
    if setting.name == "shared_store" and value != "none" and value[:1] not in ("/", "~"):
        raise SettingsError(f"{written}: not an absolute path")
    least, most = setting.metadata["least"], setting.metadata["most"]
    if most is not None and not least <= value <= most:
        raise SettingsError(f"{written}: not {_span(least, most)}")
    return value


def _span(least: int, most: int) -> str:
    return f"from {_size(least)} to {_size(most)}"


def _size(number: int) -> str:
    unit = next((u for u in "gmk" if number and number % _UNITS[u] == 0), "")
    return f"{number // _UNITS[unit]}{unit}"


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
    if len(digits) > _DIGITS:
        raise ValueError("too large")
    return int(digits) * _UNITS[unit]
