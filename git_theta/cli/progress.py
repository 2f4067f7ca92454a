"""Progress on standard error, for work that takes longer than a second."""

from __future__ import annotations

import sys
import threading
import time
from typing import TYPE_CHECKING

from git_theta.cli.terminal import unprotected
from git_theta.cli.text import printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

_PATIENCE = 1.0


class Meter:
    """A bar with bytes, speed and time left; shown on a terminal only."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._visible = sys.stderr.isatty()
        self._what = ""
        self._total = self._done = 0
        self._since = 0.0
        self._bar: tuple[Progress, TaskID] | None = None

    def start(self, what: str, total: int) -> None:
        """Begin a job called ``what`` of ``total`` bytes."""
        self.finish()
        with self._lock:
            self._what, self._total, self._done = what, total, 0
            self._since = time.monotonic()

    def advance(self, count: int) -> None:
        """``count`` further bytes are done."""
        with self._lock:
            self._done += count
            if not self._visible:
                return
            if self._bar is None and time.monotonic() - self._since > _PATIENCE:
                self._bar = _open_bar(self._what, self._total)
            if self._bar is not None:
                progress, task = self._bar
                progress.update(task, completed=self._done)

    def finish(self) -> None:
        """Take the bar away."""
        with self._lock:
            if self._bar is not None:
                self._bar[0].stop()
            self._bar = None


def _open_bar(what: str, total: int) -> tuple[Progress, TaskID]:
    # Imported here: rich costs 0.1 s, and most files are done before a bar is due.
    from rich.console import Console

    # The bar moves the cursor on purpose.
    progress = bar(Console(file=unprotected(sys.stderr)))
    task = progress.add_task(printable(what), total=total)
    progress.start()
    return progress, task


def bar(console: Console) -> Progress:
    """Return a bar whose description is text, not markup: a name may hold brackets."""
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
    )
