"""The inert values that a pickle is read into, and the stack machine that they are built on."""

from __future__ import annotations

from typing import Any, NamedTuple

from git_theta.formats.parts import LazyBytes


class Pairs(list[Any]):
    """A dict: key, value, key, value, ... in the order of insertion, whatever the keys are."""

    __slots__ = ()


class Global(NamedTuple):
    """A class or function by name."""

    module: str
    name: str


class Raw(NamedTuple):
    """Bytes of the pickle that are an argument: ``length`` from ``start``."""

    start: int
    length: int


class Persistent:
    """An object that the writer kept outside the pickle, by its persistent id."""

    __slots__ = ("pid",)

    def __init__(self, pid: Any) -> None:
        self.pid = pid


class Object:
    """The object that ``call(*args)`` would have made, and what would have been put into it."""

    __slots__ = ("args", "call", "items", "pairs", "state")

    def __init__(self, call: Any, args: Any) -> None:
        self.call = call
        self.args = args
        self.items: list[Any] | None = None
        self.pairs: Pairs | None = None
        self.state: Any = None


class Machine:
    """The state of a pickle being read: the stack, the positions of its marks, and the memo."""

    __slots__ = ("data", "marks", "memo", "position", "stack")

    def __init__(self, data: bytes | LazyBytes) -> None:
        self.data = data
        self.position = 0
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: list[Any] = []

    def take(self, count: int) -> bytes:
        """Return the next ``count`` bytes."""
        end = self.position + count
        if end > len(self.data):
            raise IndexError
        taken = self.data[self.position : end]
        self.position = end
        return taken

    def line(self) -> str:
        """Return the next bytes up to a line feed, as text."""
        end = self.data.find(b"\n", self.position)
        if end < 0:
            raise IndexError
        text = self.data[self.position : end].decode("utf-8")
        self.position = end + 1
        return text

    def since_mark(self) -> list[Any]:
        """Take everything above the last mark, and the mark."""
        mark = self.marks.pop()
        items = self.stack[mark:]
        del self.stack[mark:]
        return items
