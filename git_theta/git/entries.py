"""Walks over the blobs of trees, the index and history, at constant memory."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from git_theta.git import command
from git_theta.git.command import Result, decode

_SLICE = 4096
_FILE_MODES = ("100644", "100755", "100664")

# In a partial clone, asking for the size of a blob must not download it (git 2.44; older git does).
_STAY_LOCAL = {"GIT_NO_LAZY_FETCH": "1"}

Git = Callable[..., bytes]


@dataclass(frozen=True, slots=True)
class Entry:
    """A regular file somewhere in git: its path, its blob's id, its size where it was asked for.

    ``stage`` is 0 but for the sides of a conflict in the index: 1 base, 2 ours, 3 theirs.
    """

    path: str
    blob: str
    size: int | None = None
    stage: int = 0


def of_tree(git: Git, rev: str) -> list[Entry]:
    """The files of a commit or tree; none where ``rev`` is not there."""
    listed = git("ls-tree", "-r", "-z", "--full-tree", rev, check=False)
    return [_tree_entry(line) for line in _records(listed) if line.startswith(_FILE_MODES)]


def _tree_entry(line: str) -> Entry:
    words, path = line.split("\t", 1)  # <mode> blob <id>\t<path>
    return Entry(path, words.split(" ")[2])


def of_index(git: Git) -> list[Entry]:
    """The files of the index, in all stages."""
    listed = git("ls-files", "--stage", "-z", "--full-name")
    return [_index_entry(line) for line in _records(listed) if line.startswith(_FILE_MODES)]


def _index_entry(line: str) -> Entry:
    words, path = line.split("\t", 1)  # <mode> <id> <stage>\t<path>
    _, blob, stage = words.split(" ")
    return Entry(path, blob, stage=int(stage))


def _records(listed: bytes) -> list[str]:
    return decode(listed).split("\0")[:-1]


def sized(git: Git, entries: Iterable[Entry]) -> Iterator[Entry]:
    """The same entries with their sizes; without those that are missing or are not blobs."""
    rest = iter(entries)
    while some := list(islice(rest, _SLICE)):
        unknown = [entry.blob for entry in some if entry.size is None]
        sizes = _sizes(git, unknown) if unknown else {}
        for entry in some:
            size = sizes.get(entry.blob) if entry.size is None else entry.size
            if size is not None:
                yield replace(entry, size=size)


def _sizes(git: Git, blobs: Sequence[str]) -> dict[str, int]:
    asked = "".join(f"{blob}\n" for blob in blobs).encode()
    answer = git("cat-file", "--batch-check", stdin=asked, env=_STAY_LOCAL)
    lines = (line.split(" ") for line in answer.decode().splitlines())
    return {words[0]: int(words[2]) for words in lines if len(words) == 3 and words[1] == "blob"}


def of_history(
    options: Sequence[str], revisions: Sequence[str], cwd: Path, env: Mapping[str, str]
) -> Iterator[Entry]:
    """The blobs that ``git rev-list --objects`` finds, each once, with its path and size.

    ``revisions`` may be any number (they go through a pipe). Raises ``GitError`` at the end when
    git could not walk: an answer that is cut short would lose objects.
    """
    # `--ignore-missing` holds for what comes behind it (git 2.39), so what is read comes last.
    walk = ["git", "rev-list", "--objects", *options, "--stdin"]
    # The path travels behind the id: %(rest). rev-list cuts it at a line break, so it stays one.
    form = "--batch-check=%(objecttype) %(objectname) %(objectsize) %(rest)"
    measure = ["git", "cat-file", form, "--buffer"]
    with tempfile.TemporaryFile() as words, ExitStack() as stack:
        walker = command.start(walk, cwd=cwd, env=env, errors=words)
        stack.callback(_end, walker)
        here = {**env, **_STAY_LOCAL}
        sizer = command.start(measure, cwd=cwd, env=here, source=walker.stdout, errors=words)
        stack.callback(_end, sizer)
        _feed(walker, revisions)
        assert sizer.stdout
        for line in sizer.stdout:
            if line.startswith(b"blob "):
                yield _history_entry(line)
        if status := walker.wait() or sizer.wait():
            words.seek(0)
            raise command.failure(walk, Result(status, b"", decode(words.read())))


def _feed(walker: subprocess.Popen[bytes], revisions: Sequence[str]) -> None:
    # rev-list reads all of its input before it writes anything, so this cannot block for ever.
    assert walker.stdin
    assert walker.stdout
    walker.stdout.close()  # the other program's now: when that one ends, this one must too
    with suppress(BrokenPipeError):  # it ended; its exit status says so
        walker.stdin.write("".join(f"{revision}\n" for revision in revisions).encode())
        walker.stdin.close()


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process when the walk is over, or was left in the middle."""
    process.kill()
    for pipe in (process.stdin, process.stdout):
        if pipe:
            with suppress(BrokenPipeError):
                pipe.close()
    process.wait()


def _history_entry(line: bytes) -> Entry:
    words = decode(line).removesuffix("\n").split(" ", 3)
    return Entry(words[3] if len(words) == 4 else "", words[1], int(words[2]))
