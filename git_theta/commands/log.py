"""The commits that changed checkpoints, and what each changed, tensor by tensor."""

from __future__ import annotations

import logging
import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from git_theta import manifest
from git_theta.commands.comparison import Difference, State, compare, recipe_of, state_of, there
from git_theta.core.hashes import Ref
from git_theta.core.messages import short_id
from git_theta.core.models import in_one_file
from git_theta.errors import ManifestError
from git_theta.git import Entry, Repository, command
from git_theta.git.command import Result, decode
from git_theta.git.tracked import TrackedPaths
from git_theta.manifest import Manifest

_LOG = logging.getLogger(__name__)

_FORMAT = "%H%x02%P%x02%cI%x02%an%x02%s"
_NO_BLOB = re.compile(r"0+")
# Renames are found whatever `diff.renames` says, and nothing else gets between the records.
_OPTIONS = (
    "--raw",
    "-z",
    "--no-abbrev",
    "-M",
    "--no-relative",
    "--no-show-signature",
    "--diff-merges=first-parent",
    "--root",
)


@dataclass(frozen=True, slots=True)
class Revision:
    """One checkpoint in one commit, compared with the commit's first parent.

    ``before`` is its path there. Stored bytes are those of frames that no parent's version of the
    file names; ``recipe`` tells in a line how it was merged, if it was. A model of which several
    ``files`` changed is one checkpoint, at the path that it would have in one file.
    """

    path: str
    before: str
    state: State
    difference: Difference
    recipe: str | None
    files: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Commit:
    """A commit that changed checkpoints. ``date`` is ISO 8601."""

    commit: str
    parents: tuple[str, ...]
    date: str
    author: str
    subject: str
    checkpoints: tuple[Revision, ...]


def history(
    repo: Repository,
    commits: Sequence[str] = ("HEAD",),
    paths: Sequence[str] = (),
    limit: int | None = None,
) -> Iterator[Commit]:
    """Return the commits that changed a checkpoint (at ``paths``), the latest first.

    ``commits`` are ids, or options such as ``--branches``: those that are reachable from them are
    looked at, but for those that are from one with ``^``. ``paths`` are pathspecs in the user's
    folder; one that is a plain path is followed through renames. A merge is shown where its
    result is not its first parent's. Raises ``GitError`` where git could not walk.
    """
    return islice(_commits(repo, commits, paths), limit)


def _commits(repo: Repository, commits: Sequence[str], paths: Sequence[str]) -> Iterator[Commit]:
    for header, rows in _log(repo, commits, paths):
        commit, parents, date, author, subject = header.split("\2", 4)
        others = parents.split()[1:]
        found = (_revision(repo, commit, others, each) for each in _by_model(rows))
        revisions = tuple(revision for revision in found if revision)
        if revisions:
            yield Commit(commit, tuple(parents.split()), date, author, subject, revisions)


Row = tuple[str, str, str, str]


def _log(
    repo: Repository, commits: Sequence[str], paths: Sequence[str]
) -> Iterator[tuple[str, list[Row]]]:
    """Yield each commit's header and its files: old blob, new blob, old path, new path."""
    follow = ["--follow"] if len(paths) == 1 and not paths[0].startswith(":") else []
    args = ["git", "log", *_OPTIONS, *follow, f"--format={_FORMAT}", *commits, "--", *paths]
    with (
        tempfile.TemporaryFile() as words,
        command.start(
            args, cwd=repo.folder, env=repo.environment(), source=None, errors=words
        ) as process,
    ):
        assert process.stdout
        try:
            yield from _records(_fields(process.stdout.read))
            if status := process.wait():
                words.seek(0)
                raise command.failure(args, Result(status, b"", decode(words.read())))
        finally:
            process.kill()


def _records(fields: Iterator[str]) -> Iterator[tuple[str, list[Row]]]:
    header, rows = "", list[Row]()
    for field in fields:
        # Paths follow a record of their own and may begin with anything, line breaks too.
        if (record := field.lstrip("\n")).startswith(":"):
            rows.append(_row(record, fields))
        elif record:
            if header:
                yield header, rows
            header, rows = record, []
    if header:
        yield header, rows


def _fields(read: Callable[[int], bytes]) -> Iterator[str]:
    rest = b""
    while piece := read(1 << 16):
        *whole, rest = (rest + piece).split(b"\0")
        yield from map(decode, whole)
    if rest:
        yield decode(rest)


def _row(record: str, fields: Iterator[str]) -> Row:
    words = record.split(" ")  # :<mode> <mode> <blob> <blob> <status>
    path = next(fields)
    renamed = words[4][:1] in ("R", "C")
    return words[2], words[3], path, next(fields) if renamed else path


def _by_model(rows: Sequence[Row]) -> list[list[Row]]:
    """Return the files of each model, in the order in which git named the first of them."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(in_one_file(row[3]), []).append(row)
    return list(found.values())


def _revision(
    repo: Repository, commit: str, others: Sequence[str], rows: Sequence[Row]
) -> Revision | None:
    """Return what a commit changed in the files of one model."""
    found = [(_manifest(repo, row[0]), _manifest(repo, row[1], commit, row[3])) for row in rows]
    kept = [(row, pair) for row, pair in zip(rows, found, strict=True) if any(pair)]
    if not kept:
        return None
    before, after = (there(*side) for side in zip(*(pair for _, pair in kept), strict=True))
    (_, _, old, path), _ = kept[0]
    files = tuple(row[3] for row, _ in kept)
    known = {ref for other in others for file in files for ref in _refs(repo, f"{other}:{file}")}
    if len(kept) > 1:
        old = path = in_one_file(path)
    return Revision(
        path=path,
        before=old,
        state=_state(before, after, renamed=old != path),
        difference=compare(before, after, known),
        recipe=next(filter(None, (recipe_of(now, past) for _, (past, now) in kept)), None),
        files=files if len(kept) > 1 else (),
    )


def _state(before: Sequence[Manifest], after: Sequence[Manifest], renamed: bool) -> State:
    if len(before) < 2 and len(after) < 2:
        return state_of(next(iter(before), None), next(iter(after), None), renamed)
    return "modified" if before and after else "added" if after else "deleted"


def _manifest(repo: Repository, blob: str, commit: str = "", path: str = "") -> Manifest | None:
    """Return a blob's manifest; a warning says where one that cannot be read came with a commit."""
    text = None if _NO_BLOB.fullmatch(blob) else repo.read_blob(blob)
    if text is None or not manifest.is_manifest(text):
        return None
    try:
        return manifest.parse(text)
    except ManifestError as error:
        # Other files may begin like a manifest.
        with TrackedPaths(repo) as tracked:
            if commit and tracked.covers(Entry(path, blob, commit=commit)):
                _LOG.warning("%s:%s: left out: %s", short_id(commit), path, error.message)
    return None


def _refs(repo: Repository, spec: str) -> set[Ref]:
    found = _manifest(repo, repo.identify(spec) or "0")
    return set(found.refs()) if found else set()
