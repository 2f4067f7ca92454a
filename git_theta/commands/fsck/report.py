"""The result of a check: problems, and all that they concern."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

SKELETON = "(skeleton)"
REPAIR = "git theta fsck --repair"

Kind = Literal["missing", "corrupt", "unsupported", "manifest"]


@dataclass(frozen=True, slots=True)
class Use:
    """A checkpoint, as ``REVISION:PATH``, and the tensor of it that damage concerns.

    ``tensor`` is ``SKELETON`` for bytes outside of tensors, ``None`` for the file as a whole.
    """

    checkpoint: str
    tensor: str | None


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong, all that it concerns, and the command that mends it.

    ``missing``: object ``oid`` is not here. ``corrupt``: its bytes, or a frame in it, are not what
    they should be. ``unsupported``: a frame in it needs a newer git-theta, or a plug-in.
    ``manifest``: a manifest cannot be read, or its file is not what it says; ``oid`` is ``None``.
    ``size`` is that of the object, in bytes.
    """

    kind: Kind
    oid: str | None
    detail: str
    uses: tuple[Use, ...]
    fix: str
    size: int | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """The result of a check.

    ``objects`` were verified, ``stored`` bytes of them; ``chunks`` is the number of different
    pieces of content that they were asked for. ``absent`` objects are not here and need not be:
    only commits that a remote has need them. ``skipped`` says what was not looked at.
    """

    checkpoints: int
    objects: int
    chunks: int
    stored: int
    absent: int
    problems: tuple[Problem, ...]
    skipped: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Return whether nothing is wrong."""
        return not self.problems
