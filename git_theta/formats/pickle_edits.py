"""Edits a pickle without unpickling it: items of its dicts are replaced, removed and added.

All other opcodes stay as they are, byte for byte. One exception: where a text or class was
remembered in an item that is removed, it is written out where it is first asked for.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from typing import Any, NamedTuple

from git_theta.errors import FormatError
from git_theta.formats.pickle_machine import Global, Machine
from git_theta.formats.pickle_opcodes import OPCODES
from git_theta.formats.pickle_reader import read_pickle

_MARK, _STOP = ord("("), ord(".")
_SET_ITEM, _SET_ITEMS = ord("s"), ord("u")
_PUTS, _GETS, _TUPLES = b"qr", b"hj", b"t"
# What pickle writes in protocol 2. Later ones number what they remember by its place.
_PROTOCOL_2 = b"\x80()N\x88\x89JKM\x8a\x8bGXcqrhjt\x85\x86\x87]}aesuQR\x81b."


class Item(NamedTuple):
    """A value in a dict: ``start`` to ``stop`` in the pickle, of which ``place`` is the value."""

    holder: Any
    key: Any
    value: Any
    start: int
    place: tuple[int, int]
    stop: int


class Edit(NamedTuple):
    """``data`` in place of the bytes from ``start`` to ``stop``."""

    start: int
    stop: int
    data: bytes


class _MemoOp(NamedTuple):
    start: int
    stop: int
    slot: int
    is_put: bool


class Trace:
    """A pickle of protocol 2, read as ``read_pickle`` does, with the bytes of each item of a dict.

    ``ends`` leads from the ``id`` of a dict to where, last of all, items are put into it. Raises
    ``FormatError``.
    """

    def __init__(self, data: bytes) -> None:
        read_pickle(data)  # within its limits, which are not counted again here
        self.items: list[Item] = []
        self.ends: dict[int, int] = {}
        self._data = data
        self._machine = Machine(data)
        # Where the opcodes of each value on the stack begin, and where the marks stand.
        self._starts: list[int] = []
        self._marks: list[int] = []
        self._memo_ops: list[_MemoOp] = []
        self._remembered: dict[int, tuple[int, int, Any]] = {}
        self._run()
        self.root = self._machine.stack[-1]

    def edited(self, edits: Iterable[Edit]) -> bytes:
        """Return the pickle with these edits.

        Raises ``FormatError`` where they overlap, and where what remains needs what is gone.
        """
        made, known, position = bytearray(), set[int](), 0
        for edit in sorted(edits):
            if edit.start < position:
                raise FormatError("its tensors lie in one another")
            self._copy(position, edit.start, made, known)
            made += edit.data
            position = edit.stop
        self._copy(position, len(self._data), made, known)
        return bytes(made)

    def _run(self) -> None:
        machine, data = self._machine, self._data
        while (code := data[machine.position]) != _STOP:
            if code not in _PROTOCOL_2:
                raise FormatError("its pickle is not of protocol 2")
            start = machine.position
            handler, _, width = OPCODES[code]
            machine.position = start + 1 + width
            argument = int.from_bytes(data[start + 1 : machine.position], "little")
            handler(machine, argument)
            self._follow(code, start, argument)

    def _follow(self, code: int, start: int, argument: int) -> None:
        machine, starts = self._machine, self._starts
        depth, stop = len(machine.stack), machine.position
        if code == _MARK:
            self._marks.append(start)
        elif code in _TUPLES:
            starts[depth - 1 :] = [self._marks[-1]]
        elif code in (_SET_ITEM, _SET_ITEMS):
            self._put_items(start, stop, is_one=code == _SET_ITEM)
        elif depth > len(starts):
            starts.append(start)
        del starts[depth:]
        del self._marks[len(machine.marks) :]
        if code in _PUTS or code in _GETS:
            self._memo_ops.append(_MemoOp(start, stop, argument, code in _PUTS))
        if code in _PUTS:
            if argument in self._remembered:
                raise FormatError("its pickle remembers two things in one place")
            self._remembered[argument] = (starts[-1], stop, machine.stack[-1])

    def _put_items(self, start: int, stop: int, *, is_one: bool) -> None:
        holder = self._machine.stack[-1]
        taken = self._starts[len(self._machine.stack) :]
        pairs = holder if isinstance(holder, list) else holder.pairs
        values = pairs[len(pairs) - len(taken) :]
        bounds = [*taken, start]
        for at in range(0, len(taken), 2):
            first, middle, end = bounds[at : at + 3]
            place, key, value = (middle, end), values[at], values[at + 1]
            self.items.append(Item(holder, key, value, first, place, stop if is_one else end))
        self.ends[id(holder)] = stop

    def _copy(self, start: int, stop: int, made: bytearray, known: set[int]) -> None:
        """Append the bytes from ``start`` to ``stop``; ``known`` is what they can ask for."""
        at, position = bisect_left(self._memo_ops, (start,)), start
        while at < len(self._memo_ops) and (op := self._memo_ops[at]).start < stop:
            if op.is_put:
                known.add(op.slot)
            elif op.slot not in known:
                made += self._data[position : op.start]
                position = op.stop
                self._write_out(op.slot, made, known)
            at += 1
        made += self._data[position:stop]

    def _write_out(self, slot: int, made: bytearray, known: set[int]) -> None:
        start, stop, value = self._remembered[slot]
        # Anything else would be a second object where there was one.
        if type(value) not in (str, Global):
            raise FormatError("what remains in its pickle shares objects with what does not")
        self._copy(start, stop, made, known)
