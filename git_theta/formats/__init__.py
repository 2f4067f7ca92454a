"""Finds the tensors in a file, whatever wrote it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import TypeVar

from git_theta.core import registry
from git_theta.core.layout import Layout, Source, TensorSpan
from git_theta.errors import ChangedError, FormatError
from git_theta.formats.checks import check_layout
from git_theta.formats.heads import HEAD, is_named, may_be

__all__ = ["OPAQUE", "check_layout", "scan"]

OPAQUE = "opaque"

_Result = TypeVar("_Result")
_BEST = 3


def scan(source: Source, name: str) -> tuple[Layout, str | None]:
    """Return where the tensors of a file called ``name`` lie, and a warning if there is one.

    The content decides; the name decides between formats that both claim it, and which of them
    explains what is wrong. A file that no format can read is opaque: it has no spans, it is
    stored whole, and the warning (one line, without the file's name) says why. An empty file is
    opaque without a warning, and so is one that no format claims and that has runs of numbers:
    these are spans, without the names of tensors. Only ``ChangedError`` and ``OSError`` pass
    through.
    """
    if source.size == 0:
        return Layout(OPAQUE), None
    complaints: list[str] = []
    for plugin in _candidates(source, name, complaints):
        layout = _guarded(plugin, partial(_read, plugin, source), complaints)
        if layout and (layout.spans or layout.remark or not (found := _runs(source))):
            return layout, layout.remark
        if layout:  # what names the tensors could not be followed, or they have no names
            return Layout(OPAQUE, found), None
    if not complaints and (found := _runs(source)):
        return Layout(OPAQUE, found), None
    known = ", ".join(registry.names("formats"))
    reason = "; ".join(complaints) or f"no format recognises it (known: {known})"
    return Layout(OPAQUE), f"{reason}. It is stored whole and comes back exactly, byte for byte"


def _runs(source: Source) -> tuple[TensorSpan, ...]:
    # Imported here: most files are checkpoints that a format knows.
    from git_theta.formats.numbers import runs

    return runs(source)


def _candidates(source: Source, name: str, complaints: list[str]) -> Iterator[str]:
    """Yield the formats to try, by name, the most likely first.

    What claims both content and name is tried at once: to look for formats of other packages takes
    50 ms. Of the built-in ones those are imported that the name or the first bytes may be of.
    """
    ranks: dict[str, int] = {}
    head = source.read(0, min(HEAD, source.size))
    for plugin in _by_name(name):
        if not (is_named(plugin, name) or may_be(plugin, head)):
            continue
        rank = _guarded(plugin, partial(_rank, plugin, source, name), complaints)
        if rank == _BEST:
            yield plugin
        elif rank:
            ranks[plugin] = rank
    yield from sorted(ranks, key=lambda it: -ranks[it])


def _by_name(name: str) -> Iterator[str]:
    """Yield all formats, the built-in one first that a file called ``name`` is of."""
    likely = next((each for each in registry.iter_names("formats") if is_named(each, name)), None)
    if likely:
        yield likely
    yield from (each for each in registry.iter_names("formats") if each != likely)


def _rank(plugin: str, source: Source, name: str) -> int:
    """Return 2 for a format that claims the content, plus 1 for one that claims the name."""
    reader = registry.format_named(plugin)
    is_named = name.lower().endswith(tuple(reader.suffixes))
    return 2 * reader.matches(source) + is_named


def _read(plugin: str, source: Source) -> Layout:
    layout = registry.format_named(plugin).scan(source)
    if layout.format != plugin:
        raise FormatError(f"its layout is called {layout.format!r}")
    check_layout(layout, source.size)
    return layout


def _guarded(plugin: str, call: Callable[[], _Result], complaints: list[str]) -> _Result | None:
    try:
        return call()
    except FormatError as error:
        hint = f" ({error.hint})" if error.hint else ""
        complaints.append(f"not a well-formed {plugin} file: {error.message}{hint}")
    except (ChangedError, OSError):
        raise
    except Exception as error:  # whatever a plug-in does wrong, the user's file is kept
        reason = " ".join(str(error).split())
        complaints.append(f"the format {plugin} failed: {type(error).__name__}: {reason}")
    return None
