"""Reads a pickle without unpickling it.

What a pickle would import, call or set is recorded as an inert value; nothing is imported and
nothing is called, so a hostile pickle can do no more than describe an odd tree. Work and memory
are bounded whatever the input: every opcode has a cost, and the total is limited.
"""

from __future__ import annotations

from typing import Any

from git_theta.core.layout import Source
from git_theta.errors import FormatError
from git_theta.formats.parts import LazyBytes
from git_theta.formats.pickle_machine import Machine
from git_theta.formats.pickle_opcodes import OPCODES

MAX_BYTES = 64 << 20
# A tensor of a state dict takes 31 opcodes, costing about 56: room for 300,000 tensors.
_MAX_COST = 1 << 24
_STOP = ord(".")
# How much of a file is read for a pickle whose length is not known: more where it is cut off.
_WINDOWS = (16 << 10, 256 << 10, 4 << 20, MAX_BYTES)
_CUT_OFF = "its pickle is cut off or takes what it never put"


def read_pickle(data: bytes) -> Any:
    """Return the pickled value: scalars, tuples, lists, and the inert values of ``pickle_machine``.

    Sets are lists; bytes are empty or, from 64 on, a ``Raw`` place. Containers may be shared
    and may contain themselves. Raises ``FormatError``, also where the limits above are exceeded.
    """
    if len(data) > MAX_BYTES:
        raise FormatError(f"its pickle of {len(data)} bytes is too large to be read")
    try:
        return _run(Machine(data), _MAX_COST)
    except IndexError:
        raise FormatError(_CUT_OFF) from None


def read_source(source: Source) -> Any:
    """Return the value of a file that is one pickle, as ``read_pickle`` does.

    Only what is not long bytes is read, byte by byte, so that a quarter of the work takes as long.
    Raises ``FormatError``.
    """
    machine = Machine(LazyBytes(source))
    try:
        value = _run(machine, _MAX_COST // 4)
    except IndexError:
        raise FormatError(_CUT_OFF) from None
    if machine.position != source.size:
        raise FormatError(f"{source.size - machine.position} bytes follow its pickle")
    return value


class PickleStream:
    """Pickles that follow one another in a file, from ``position`` on."""

    def __init__(self, source: Source, position: int = 0) -> None:
        self._source = source
        self.position = position

    def next(self) -> Any:
        """Return the next pickled value, as ``read_pickle`` does. Raises ``FormatError``."""
        for limit in _WINDOWS:
            left = self._source.size - self.position
            machine = Machine(self._source.read(self.position, min(limit, left)))
            try:
                value = _run(machine, _MAX_COST)
            except IndexError:
                if left <= limit:
                    break
            else:
                self.position += machine.position
                return value
        raise FormatError(_CUT_OFF)


def _run(machine: Machine, budget: int) -> Any:
    if machine.data[:1] != b"\x80":
        raise FormatError("its pickle has no protocol header")
    try:
        return _execute(machine, budget)
    except UnicodeDecodeError:
        raise FormatError("its pickle has a text that is not UTF-8") from None


def _execute(machine: Machine, budget: int) -> Any:
    data, size = machine.data, len(machine.data)
    little = int.from_bytes
    while True:
        start = machine.position
        code = data[start]
        if code == _STOP:
            machine.position = start + 1
            return machine.stack.pop()
        handler, cost, width = OPCODES[code]
        machine.position = end = start + 1 + width
        budget -= cost
        if budget < 0:
            raise FormatError("its pickle has more parts than any checkpoint needs")
        if end > size:
            raise IndexError
        # Most arguments are one byte, and an index is twice as fast as a slice.
        handler(machine, data[end - 1] if width == 1 else little(data[start + 1 : end], "little"))
