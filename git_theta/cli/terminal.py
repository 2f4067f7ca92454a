"""The one way to a terminal: what is printed can show characters, and do nothing else.

Tensor names, dtypes, branches, recipes and paths come from strangers. An escape sequence among
them could rewrite the screen, retitle or query the terminal; a carriage return hides a line, and
a bidirectional control reorders it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any, TextIO, cast

_KEPT = frozenset("\n\t")


def visible(text: str, kept: frozenset[str] = _KEPT) -> str:
    r"""Return ``text`` with every character that shows nothing as ``\x1b`` or ``\u202e``.

    Those are controls, format characters such as bidirectional ones, line and paragraph
    separators, lone surrogates (bytes of a path that are not UTF-8) and unassigned characters.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in kept else _escaped(c) for c in text)


def _escaped(character: str) -> str:
    return ascii(character)[1:-1]


class VisibleStream:
    """A text stream to which only visible characters and line breaks get.

    ``stream`` is the one below, for what moves the cursor on purpose: the progress bar.
    """

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        """Write ``text`` with everything invisible escaped; return its length."""
        if not isinstance(text, str):
            raise TypeError(f"text is needed, not {type(text).__name__}")
        self.stream.write(visible(text))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write each of ``lines``."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


def protect() -> None:
    """Let standard output and standard error show characters, and nothing else."""
    sys.stdout = _protected(sys.stdout)
    sys.stderr = _protected(sys.stderr)


def _protected(stream: TextIO) -> TextIO:
    return stream if isinstance(stream, VisibleStream) else cast("TextIO", VisibleStream(stream))


def unprotected(stream: TextIO) -> TextIO:
    """Return the stream below a protected one, or ``stream`` itself."""
    return stream.stream if isinstance(stream, VisibleStream) else stream
