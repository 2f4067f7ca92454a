"""Every error a user can meet, with its exit code.

ThetaError                       1   anything a user can mend
├── UsageError                   2   the command line is wrong
├── NotARepositoryError         10   no Git repository here
│   └── UntrustedRepositoryError 14  another user owns the repository
├── MissingToolError            11   git or git-lfs is absent or too old
├── SettingsError               12   a setting has an invalid value
├── HookError                   13   a hook cannot be installed or failed
├── MissingObjectError          20   an object is missing locally and on every remote
├── CorruptObjectError          21   an object's bytes are not what its name says
├── ManifestError               22   a manifest is malformed
│   └── UnsupportedVersionError 23   written by a newer git-theta
├── FormatError                 24   a file is not the format it claims to be
├── PointerError                25   a Git LFS pointer stands where a manifest should
├── LimitError                  26   a checkpoint would take far more than what is stored of it
├── StoreError                  30   the local store cannot be written (disk full, read-only)
│   └── LockedError             35   another process holds a lock for too long
├── TransferError               31   an upload or download failed
├── ChangedError                32   a file changed while it was being read
├── GitError                    33   a git command failed
└── MergeError                  34   a merge cannot be done as asked
    └── ConflictError           36   branches changed the same tensors or files

Two more exit codes come from the command line itself: 3 for a defect in git-theta (a log is
written), 130 when interrupted.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager


class ThetaError(Exception):
    """A problem with a cause and, if there is one, the next command to type.

    ``path`` is the file or object concerned; ``hint`` is one sentence or command that mends it;
    ``details`` are further lines, such as what there is to choose from.
    """

    exit_code = 1

    def __init__(
        self,
        message: str,
        *,
        path: str | None = None,
        hint: str | None = None,
        details: Sequence[str] = (),
    ) -> None:
        super().__init__(message)
        self.message = message
        self.path = path
        self.hint = hint
        self.details = tuple(details)

    def __str__(self) -> str:
        first = f"{self.path}: {self.message}" if self.path else self.message
        lines = [first, *(f"    {line}" for line in self.details)]
        lines += [f"  hint: {self.hint}"] if self.hint else []
        # A name from a stranger must not add a line that looks like one of ours.
        return "\n".join("\\n".join(line.splitlines()) for line in lines)

    def at(self, path: str) -> ThetaError:
        """Name the path concerned, unless a deeper layer already did; returns itself."""
        self.path = self.path or path
        return self


@contextmanager
def naming(path: str) -> Iterator[None]:
    """Name ``path`` in errors that are raised within, unless a deeper layer names another."""
    try:
        yield
    except ThetaError as error:
        error.at(path)
        raise


class UsageError(ThetaError):
    """The command line is wrong."""

    exit_code = 2


class NotARepositoryError(ThetaError):
    """The command needs a Git repository, and there is none here."""

    exit_code = 10


class UntrustedRepositoryError(NotARepositoryError):
    """Git does not trust the repository here, because another user owns it."""

    exit_code = 14


class MissingToolError(ThetaError):
    """A program that git-theta drives (git, git-lfs) is absent or too old."""

    exit_code = 11


class SettingsError(ThetaError):
    """A setting has an invalid value."""

    exit_code = 12


class HookError(ThetaError):
    """A hook cannot be installed, or a chained hook failed."""

    exit_code = 13


class MissingObjectError(ThetaError):
    """An object that a manifest names is missing locally and on every remote."""

    exit_code = 20


class CorruptObjectError(ThetaError):
    """An object's or a file's bytes are not what its hash says."""

    exit_code = 21


class ManifestError(ThetaError):
    """A manifest is malformed, or not in its one valid encoding."""

    exit_code = 22


class UnsupportedVersionError(ManifestError):
    """A manifest or frame was written by a newer git-theta."""

    exit_code = 23


class FormatError(ThetaError):
    """A file is not a well-formed instance of a format; it is then stored as opaque bytes."""

    exit_code = 24


class PointerError(ThetaError):
    """A Git LFS pointer stands where a manifest should (``git lfs migrate`` does this)."""

    exit_code = 25


class LimitError(ThetaError):
    """A checkpoint would take far more time or disk space than what is stored of it justifies."""

    exit_code = 26


class StoreError(ThetaError):
    """The local store cannot be read or written: disk full, read-only, permissions."""

    exit_code = 30


class LockedError(StoreError):
    """Another process holds a lock for longer than this one waits."""

    exit_code = 35


class TransferError(ThetaError):
    """Objects could not be uploaded or downloaded."""

    exit_code = 31


class ChangedError(ThetaError):
    """A file changed while it was being read."""

    exit_code = 32


class GitError(ThetaError):
    """A git command failed."""

    exit_code = 33


class MergeError(ThetaError):
    """A merge cannot be done as asked.

    ``tensor`` is the one that cannot be merged, where it can be taken from a side instead: who
    knows the command that merges makes a hint of it.
    """

    exit_code = 34
    tensor: str | None = None

    def of(self, tensor: str) -> MergeError:
        """Name the tensor that cannot be merged; returns itself."""
        self.tensor = tensor
        return self


class ConflictError(MergeError):
    """Branches changed the same tensors or files, and no rule or strategy resolves them."""

    exit_code = 36
