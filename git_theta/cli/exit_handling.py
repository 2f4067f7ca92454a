"""From an exception to a message and an exit code."""

from __future__ import annotations

import gc
import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import NoReturn

from git_theta import __version__
from git_theta.cli.terminal import protect
from git_theta.cli.text import printable
from git_theta.core.os_errors import of_the_system
from git_theta.errors import ThetaError

DEFECT = 3
INTERRUPTED = 130


def run(work: Callable[[], object]) -> NoReturn:
    """Do the work of a command; exit with a code of the table in ``git_theta.errors``."""
    protect()
    show_warnings()
    end_as_interrupted()
    code = 0
    try:
        work()
    except BaseException as error:  # every way out has one exit code and one message
        code = report(error)
    # Python's own end looks for cycles among all objects several times: 0.45 s after torch.
    gc.freeze()
    sys.exit(code)


def end_as_interrupted() -> None:
    """Take what a scheduler or a closed terminal sends as Ctrl-C: temporary files are removed.

    One of a checkpoint in the work tree would be added as it is by the next `git add .`.
    """
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:  # nohup ignores the second
            signal.signal(number, signal.default_int_handler)


def run_and_leave(work: Callable[[], object]) -> NoReturn:
    """Do the same for a process that Git waits for, and exit without Python's own end.

    Taking apart all modules, and what they made, took 15 ms after one small file.
    """
    try:
        run(work)
    except SystemExit as done:
        with suppress(OSError):
            sys.stdout.flush()
        with suppress(OSError):
            sys.stderr.flush()
        os._exit(done.code if isinstance(done.code, int) else 1)


def report(error: BaseException) -> int:
    """Say what happened on standard error; return the exit code."""
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else 1
    if isinstance(error, ThetaError):
        complain(error)
        return error.exit_code
    if isinstance(error, OSError) and (told := of_the_system(error)):
        return report(told)
    # Imported here: a filter starts without.
    import click

    if isinstance(error, click.exceptions.Exit):
        return error.exit_code
    if isinstance(error, click.ClickException):
        error.show()
        return error.exit_code
    if isinstance(error, (KeyboardInterrupt, click.Abort)):
        complain("interrupted")
        return INTERRUPTED
    complain(_defect(error))
    return DEFECT


def complain(problem: str | ThetaError) -> None:
    """Print an error or a warning the way git does.

    A text is one line: a name in it cannot add a line of its own, such as a hint.
    """
    message = printable(problem) if isinstance(problem, str) else str(problem)
    print(f"git-theta: {message}", file=sys.stderr, flush=True)


def end_with(errors: Sequence[ThetaError]) -> None:
    """End with the exit code of the first of ``errors``, if any, after all of them were told."""
    for error in errors:
        complain(error)
    if errors:
        raise SystemExit(errors[0].exit_code)


def show_warnings() -> None:
    """Let warnings in the log of the package reach the user."""
    logging.getLogger("git_theta").addHandler(_Complaints(logging.WARNING))


class _Complaints(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        complain(f"warning: {record.getMessage()}")


def _defect(error: BaseException) -> ThetaError:
    # Imported here: every command would pay 7 ms for what none should need.
    import tempfile
    import traceback

    log = "".join(traceback.format_exception(error))
    with tempfile.NamedTemporaryFile(
        "w", prefix="git-theta-", suffix=".log", delete=False, encoding="utf-8"
    ) as file:
        file.write(f"git-theta {__version__}, Python {sys.version}\n{log}")
    return ThetaError(
        f"a defect in git-theta: {type(error).__name__}: {error}",
        hint=f"please report it with the log {file.name}",
    )
