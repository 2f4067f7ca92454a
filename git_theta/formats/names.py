"""Names for the tensors of formats that name them by where they stand."""

from __future__ import annotations

from typing import NamedTuple

from git_theta.core.layout import MAX_TENSORS
from git_theta.errors import FormatError
from git_theta.formats.checks import MAX_NAME, MAX_NAMES


class Names:
    """Gives every tensor a name of its own: a second ``a`` becomes ``a#2``.

    Raises ``FormatError`` beyond the limits, before a hostile file costs memory.
    """

    def __init__(self) -> None:
        self._taken: set[str] = set()
        self._repeats: dict[str, int] = {}
        self._characters = 0

    def unique(self, name: str) -> str:
        """``name``, or what it becomes where it is taken."""
        found = name
        while found in self._taken:
            self._repeats[name] = self._repeats.get(name, 1) + 1
            found = f"{name}#{self._repeats[name]}"
        self._taken.add(found)
        self._characters += len(found)
        if len(self._taken) > MAX_TENSORS or self._characters > MAX_NAMES:
            raise FormatError("it names more tensors than any checkpoint has")
        return found


class Trail(NamedTuple):
    """The way from the root of a pickle to a value; joined only where a name is needed."""

    parent: Trail | None
    segment: str
    depth: int
    length: int

    def below(self, segment: str | None) -> Trail:
        """Return the trail one step further.

        ``None`` is a step that leaves no trace in the name.
        """
        if segment is None:
            return self._replace(depth=self.depth + 1)
        return Trail(self, segment, self.depth + 1, self.length + len(segment) + 1)

    def name(self, separator: str = ".") -> str:
        """Return the segments joined by dots, or another ``separator`` of one character."""
        if self.length > MAX_NAME:
            raise FormatError(f"a tensor's name has more than {MAX_NAME} characters")
        segments = []
        trail = self
        while trail.parent is not None:
            segments.append(trail.segment)
            trail = trail.parent
        return separator.join(reversed(segments)) if segments else "tensor"


ROOT = Trail(None, "", 0, 0)
