"""Progress as a callback, so that layers below the command line report work without printing."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Told how far a long job is. Calls may come from any thread."""

    def start(self, what: str, total: int) -> None:
        """Begin a job called ``what`` of ``total`` bytes, in place of the one before."""
        ...

    def advance(self, count: int) -> None:
        """``count`` further bytes are done."""
        ...

    def finish(self) -> None:
        """End the job."""
        ...


class NullProgress:
    """Reports nothing."""

    def start(self, what: str, total: int) -> None:
        """Ignore."""

    def advance(self, count: int) -> None:
        """Ignore."""

    def finish(self) -> None:
        """Ignore."""
