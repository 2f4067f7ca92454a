"""Walks over the blobs of trees, the index and history, at constant memory."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import IO

from git_theta.errors import GitError
from git_theta.git import command
from git_theta.git.command import Result, decode

_SLICE = 4096
_OBJECT_ID = re.compile(r"[0-9a-f]{40,64}")
_FILE_MODES = ("100644", "100755", "100664")

# In a partial clone, asking for the size of a blob must not download it (git 2.44; older git does).
_STAY_LOCAL = {"GIT_NO_LAZY_FETCH": "1"}

Git = Callable[..., bytes]


@dataclass(frozen=True, slots=True)
class Entry:
    """A regular file somewhere in git: its path, its blob's id, its size where it was asked for.

    ``stage`` is 0 but for the sides of a conflict in the index: 1 base, 2 ours, 3 theirs.
    ``commit`` is one that has the blob at this path, where that is known.
    """

    path: str
    blob: str
    size: int | None = None
    stage: int = 0
    commit: str | None = None


def is_object_id(name: str) -> bool:
    """Return whether a name is an object's id, in full."""
    return _OBJECT_ID.fullmatch(name) is not None


def of_tree(git: Git, tree: str) -> list[Entry]:
    """Return the files of a commit or tree, given by its id; none where it is not there."""
    listed = git("ls-tree", "-r", "-z", "--full-tree", tree, check=False)
    return [_tree_entry(line, tree) for line in _records(listed) if line.startswith(_FILE_MODES)]


def _tree_entry(line: str, tree: str) -> Entry:
    words, path = line.split("\t", 1)  # <mode> blob <id>\t<path>
    return Entry(path, words.split(" ")[2], commit=tree)


def of_index(git: Git) -> list[Entry]:
    """Return the files of the index, in all stages."""
    listed = git("ls-files", "--stage", "-z", "--full-name")
    return [_index_entry(line) for line in _records(listed) if line.startswith(_FILE_MODES)]


def _index_entry(line: str) -> Entry:
    words, path = line.split("\t", 1)  # <mode> <id> <stage>\t<path>
    _, blob, stage = words.split(" ")
    return Entry(path, blob, stage=int(stage))


def _records(listed: bytes) -> list[str]:
    return decode(listed).split("\0")[:-1]


def sized(git: Git, entries: Iterable[Entry]) -> Iterator[Entry]:
    """Yield the same entries with their sizes; without those that are missing or are not blobs."""
    rest = iter(entries)
    while some := list(islice(rest, _SLICE)):
        unknown = [entry.blob for entry in some if entry.size is None]
        sizes = _sizes(git, unknown) if unknown else {}
        for entry in some:
            size = sizes.get(entry.blob) if entry.size is None else entry.size
            if size is not None:
                yield replace(entry, size=size)


def _checked(git: Git, blobs: Sequence[str]) -> bytes:
    asked = "".join(f"{blob}\n" for blob in blobs).encode()
    return git("cat-file", "--batch-check", stdin=asked, env=_STAY_LOCAL)


def _sizes(git: Git, blobs: Sequence[str]) -> dict[str, int]:
    try:
        answer = _checked(git, blobs)
    except GitError:
        # Git 2.39.5 of Debian ends at one that is not here; newer ones say that it is missing.
        here = local_blobs(git)
        answer = _checked(git, [blob for blob in blobs if blob in here])
    lines = (line.split(" ") for line in answer.decode().splitlines())
    return {words[0]: int(words[2]) for words in lines if len(words) == 3 and words[1] == "blob"}


def of_history(
    options: Sequence[str], revisions: Sequence[str], cwd: Path, env: Mapping[str, str]
) -> Iterator[Entry]:
    """Yield the blobs that ``git rev-list --objects`` finds, each once, with its path and size.

    ``revisions`` may be any number (they go through a pipe). Raises ``GitError`` at the end when
    git could not walk: an answer that is cut short would lose objects.
    """
    # `--ignore-missing` holds for what comes behind it (git 2.39), so what is read comes last.
    walk = ["git", "rev-list", "--objects", *options, "--stdin"]
    # The path travels behind the id: %(rest). rev-list cuts it at a line break, so it stays one.
    form = "--batch-check=%(objecttype) %(objectname) %(objectsize) %(rest)"
    measure = ["git", "cat-file", form, "--buffer"]
    from tempfile import TemporaryFile  # which a filter does not need: takes 3 ms to import

    with TemporaryFile() as words, ExitStack() as stack:
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
    if any("\n" in revision for revision in revisions):
        raise GitError("a revision with a line break cannot be walked")
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


def of_commits(
    options: Sequence[str], revisions: Sequence[str], cwd: Path, env: Mapping[str, str]
) -> Iterator[Entry]:
    """Return what each commit that ``git rev-list`` finds changed: the new files, and the commit.

    Of a merge, those that none of its parents has. A blob stands as often as commits bring it to a
    path. Paths end with NUL, so they may hold anything. Raises ``GitError`` at the end when git
    could not walk.
    """
    walk = ["git", "rev-list", "--stdin", *options]
    compare = ["git", "diff-tree", "--stdin", "-r", "-c", "--root", "--no-renames", "-z"]
    from tempfile import TemporaryFile  # which a filter does not need: takes 3 ms to import

    with TemporaryFile() as words, ExitStack() as stack:
        walker = command.start(walk, cwd=cwd, env=env, errors=words)
        stack.callback(_end, walker)
        differ = command.start(compare, cwd=cwd, env=env, source=walker.stdout, errors=words)
        stack.callback(_end, differ)
        _feed(walker, revisions)
        assert differ.stdout
        yield from _changes(_fields(differ.stdout))
        if status := walker.wait() or differ.wait():
            words.seek(0)
            raise command.failure(walk, Result(status, b"", decode(words.read())))


def _fields(output: IO[bytes]) -> Iterator[str]:
    rest = b""
    while piece := output.read1(1 << 16):  # type: ignore[attr-defined]
        *whole, rest = (rest + piece).split(b"\0")
        yield from map(decode, whole)


def _changes(fields: Iterator[str]) -> Iterator[Entry]:
    """Read what diff-tree writes: a commit's id, then a description and a path for each change.

    ``:<mode> <mode> <blob> <blob> <status>``; of a merge with a colon for each parent, and as many
    old modes and blobs.
    """
    commit = ""
    for field in fields:
        if not field.startswith(":"):
            commit = field
            continue
        path, words = next(fields), field.lstrip(":").split(" ")
        parents = len(words) // 2 - 1
        if words[parents] in _FILE_MODES:
            yield Entry(path, words[2 * parents + 1], commit=commit)


def disk_sizes(git: Git, ids: Iterable[str]) -> dict[str, int]:
    """Return how many bytes each object takes on disk, compressed; without those not here."""
    listed = "".join(f"{name}\n" for name in ids).encode()
    form = "--batch-check=%(objectname) %(objectsize:disk)"
    lines = (line.split(" ") for line in git("cat-file", form, stdin=listed).decode().splitlines())
    return {words[0]: int(words[1]) for words in lines if words[1].isdigit()}


def peel(git: Git, ids: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Return type and id of what objects (given by their ids) are tags of, or are themselves.

    Those that are not here are left out.
    """
    asked = [name for name in dict.fromkeys(ids) if is_object_id(name)]
    listed = "".join(f"{name}^{{}}\n" for name in asked).encode()
    answer = git("cat-file", "--batch-check", stdin=listed).decode().splitlines() if asked else []
    lines = (line.split(" ") for line in answer)
    pairs = zip(asked, lines, strict=True)
    return {name: (words[1], words[0]) for name, words in pairs if len(words) == 3}


def local_blobs(git: Git) -> set[str]:
    """Return the ids of all objects here: asking for others would fetch them one by one."""
    everything = ("--batch-all-objects", "--unordered", "--batch-check=%(objectname)")
    return set(git("cat-file", *everything).decode().split())
