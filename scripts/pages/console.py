"""Sessions at a terminal that stand in Markdown pages, run for real in an empty folder.

A page has fenced blocks of two kinds. ``python title="NAME"`` (any language with a title) is a
file that the reader saves. ``console`` is a session: lines after ``$ `` are typed into one shell,
which goes on from block to block; the lines below a command are what it prints, where ``...``
stands for any text, as in doctest. ``console fails`` is a session whose commands fail.
"""

from __future__ import annotations

import doctest
import re
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

_BLOCK = re.compile(
    r"^```(?P<kind>\w+)(?P<rest>[^\n]*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)
_TITLE = re.compile(r'title="([^"]+)"')
_STEP = re.compile(r"^\$ (?P<command>[^\n]*)\n(?P<output>(?:(?!\$ )[^\n]*\n)*)", re.MULTILINE)
_END = "end of a step"
# git-lfs prints it into a pipe too, but only where a transfer takes long enough.
_PROGRESS = re.compile(r"(?:Up|Down)loading LFS objects: ")


@dataclass(frozen=True, slots=True)
class File:
    """A file that the page has its reader save."""

    name: str
    text: str


@dataclass(frozen=True, slots=True)
class Step:
    """A command and what the page says that it prints; ``span`` is the output's place there."""

    command: str
    output: str
    span: tuple[int, int]
    fails: bool


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a step really printed, and its exit status."""

    step: Step
    printed: str
    status: int

    @property
    def right(self) -> bool:
        """Whether the page tells the truth about this step."""
        return (self.status != 0) == self.step.fails and _matches(self.step.output, self.printed)


def parts(page: str) -> Iterator[File | Step]:
    """Return the files and steps of a page, in its order."""
    for block in _BLOCK.finditer(page):
        title = _TITLE.search(block["rest"])
        if title:
            yield File(title[1], block["text"])
        elif block["kind"] == "console":
            start = block.start("text")
            for found in _STEP.finditer(block["text"]):
                first, last = found.span("output")
                yield Step(
                    found["command"],
                    found["output"],
                    (start + first, start + last),
                    "fails" in block["rest"],
                )


def play(page: str, environment: Mapping[str, str]) -> Iterator[Outcome]:
    """Run a page's steps in one shell, in an empty folder that is removed afterwards."""
    with tempfile.TemporaryDirectory(prefix="theta-tutorial-") as folder:
        shell = subprocess.Popen(
            ["bash", "--noprofile", "--norc"],
            cwd=folder,
            env={**environment, "COLUMNS": "100"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        with shell:
            for part in parts(page):
                if isinstance(part, File):
                    (_folder_of(shell) / part.name).write_text(part.text, encoding="utf-8")
                else:
                    yield Outcome(part, *_typed(shell, part.command))
            shell.stdin.close()  # type: ignore[union-attr]


def corrected(page: str, outcomes: list[Outcome]) -> str:
    """Return the page with what was really printed where it says something else."""
    for outcome in reversed(outcomes):
        if not _matches(outcome.step.output, outcome.printed):
            start, stop = outcome.step.span
            page = page[:start] + outcome.printed + page[stop:]
    return page


def _typed(shell: subprocess.Popen[str], command: str) -> tuple[str, int]:
    assert shell.stdin is not None
    assert shell.stdout is not None
    # Output that does not end a line must not hide the mark.
    shell.stdin.write(f"{command}\nstatus=$?; echo; echo '{_END}' $status\n")
    shell.stdin.flush()
    lines: list[str] = []
    for line in shell.stdout:
        if line.startswith(_END):
            printed = "".join(lines).rstrip("\n")
            return printed and printed + "\n", int(line.removeprefix(_END))
        if not _PROGRESS.match(line):
            lines.append(line)
    raise RuntimeError(f"the shell ended in: {command}\n{''.join(lines)}")


def _folder_of(shell: subprocess.Popen[str]) -> Path:
    return Path(f"/proc/{shell.pid}/cwd").readlink()


def _matches(said: str, printed: str) -> bool:
    return doctest.OutputChecker().check_output(said, printed, doctest.ELLIPSIS)
