"""The opcodes of a pickle, with the work and memory that each may cost.

Source: the table of opcodes in the standard library's ``pickletools``. Of these the binary ones
of protocols 2 to 5 are here, which is what ``torch.save`` and TorchScript write.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

from git_theta.errors import FormatError
from git_theta.formats.pickle_machine import Global, Machine, Object, Pairs, Persistent, Raw

# The costs weigh the memory that an opcode takes, at most some 30 bytes per unit.
_CONTAINER, _SCALAR = 4, 2
_MAX_MEMO = 1 << 23
_ARRAY = 64

# Every handler takes the machine and the opcode's unsigned argument of fixed width (0 if none).
_Handler = Callable[[Machine, int], None]


def _unknown(m: Machine, argument: int) -> None:
    at = m.position - 1
    raise FormatError(f"its pickle has opcode {m.data[at]:#04x} at byte {at}, unknown here")


def _protocol(m: Machine, version: int) -> None:
    if version > 5:
        raise FormatError(f"its pickle has protocol {version}, unknown here")


def _frame(m: Machine, length: int) -> None:
    """Frames are a hint for streaming; the opcodes inside follow as if it were not there."""


def _mark(m: Machine, argument: int) -> None:
    m.marks.append(len(m.stack))


def _pop(m: Machine, argument: int) -> None:
    m.stack.pop()


def _pop_mark(m: Machine, argument: int) -> None:
    m.since_mark()


def _dup(m: Machine, argument: int) -> None:
    m.stack.append(m.stack[-1])


def _constant(value: Any) -> _Handler:
    return lambda m, argument: m.stack.append(value)


def _unsigned(m: Machine, value: int) -> None:
    m.stack.append(value)


def _signed(m: Machine, value: int) -> None:
    m.stack.append(value - (value >> 31 << 32))


def _long(m: Machine, length: int) -> None:
    m.stack.append(int.from_bytes(m.take(length), "little", signed=True))


def _float(m: Machine, bits: int) -> None:
    # The one big-endian argument.
    m.stack.append(struct.unpack(">d", bits.to_bytes(8, "little"))[0])


def _text(m: Machine, length: int) -> None:
    # Lone surrogates stand as three bytes in a pickle.
    m.stack.append(m.take(length).decode("utf-8", "surrogatepass"))


def _bytes(m: Machine, length: int) -> None:
    # Only those of arrays are of any use.
    m.stack.append(Raw(m.position, length) if length >= _ARRAY else b"")
    m.position += length


def _global(m: Machine, argument: int) -> None:
    module = m.line()
    m.stack.append(Global(module, m.line()))


def _stack_global(m: Machine, argument: int) -> None:
    name, module = m.stack.pop(), m.stack.pop()
    if type(name) is not str or type(module) is not str:
        raise FormatError("its pickle names a global by something that is not text")
    m.stack.append(Global(module, name))


def _memoize(m: Machine, argument: int) -> None:
    m.memo.append(m.stack[-1])


def _put(m: Machine, index: int) -> None:
    memo = m.memo
    if index >= len(memo):
        if index > _MAX_MEMO:
            raise FormatError("its pickle remembers more than any checkpoint needs")
        # Picklers count up by one; the gaps that an optimiser leaves are small.
        memo.extend([_ABSENT] * (index + 1 - len(memo)))
    memo[index] = m.stack[-1]


def _get(m: Machine, index: int) -> None:
    value = m.memo[index]
    if value is _ABSENT:
        raise IndexError
    m.stack.append(value)


def _tuple(m: Machine, argument: int) -> None:
    m.stack.append(tuple(m.since_mark()))


def _tuple_of(count: int) -> _Handler:
    def make(m: Machine, argument: int) -> None:
        if len(m.stack) < count:
            raise IndexError
        m.stack[-count:] = [tuple(m.stack[-count:])]

    return make


def _empty(kind: type) -> _Handler:
    return lambda m, argument: m.stack.append(kind())


def _frozenset(m: Machine, argument: int) -> None:
    m.stack.append(m.since_mark())


def _append(m: Machine, argument: int) -> None:
    value = m.stack.pop()
    _items_of(m.stack[-1]).append(value)


def _appends(m: Machine, argument: int) -> None:
    values = m.since_mark()
    _items_of(m.stack[-1]).extend(values)


def _set_item(m: Machine, argument: int) -> None:
    value, key = m.stack.pop(), m.stack.pop()
    _pairs_of(m.stack[-1]).extend((key, value))


def _set_items(m: Machine, argument: int) -> None:
    values = m.since_mark()
    if len(values) % 2:
        raise FormatError("its pickle has a key without a value")
    _pairs_of(m.stack[-1]).extend(values)


def _items_of(target: Any) -> list[Any]:
    if type(target) is list:
        return target
    if type(target) is not Object:
        raise FormatError("its pickle appends to something that is not a list")
    if target.items is None:
        target.items = []
    return target.items


def _pairs_of(target: Any) -> Pairs:
    if type(target) is Pairs:
        return target
    if type(target) is not Object:
        raise FormatError("its pickle sets an item of something that is not a dict")
    if target.pairs is None:
        target.pairs = Pairs()
    return target.pairs


def _persistent(m: Machine, argument: int) -> None:
    m.stack.append(Persistent(m.stack.pop()))


def _call(m: Machine, argument: int) -> None:
    args, call = m.stack.pop(), m.stack.pop()
    m.stack.append(Object(call, args))


def _call_with_keywords(m: Machine, argument: int) -> None:
    keywords, args, call = m.stack.pop(), m.stack.pop(), m.stack.pop()
    m.stack.append(Object(call, (args, keywords)))


def _build(m: Machine, argument: int) -> None:
    state = m.stack.pop()
    if type(m.stack[-1]) is not Object:
        raise FormatError("its pickle sets the state of something that is not an object")
    m.stack[-1].state = state


_ABSENT = object()

# Opcode: handler, cost, width of the argument in bytes (for texts, that of their length).
_HANDLERS: dict[bytes, tuple[_Handler, int, int]] = {
    b"\x80": (_protocol, 1, 1),
    b"\x95": (_frame, 1, 8),
    b"(": (_mark, 1, 0),
    b"0": (_pop, 1, 0),
    b"1": (_pop_mark, 1, 0),
    b"2": (_dup, 1, 0),
    b"N": (_constant(None), 1, 0),
    b"\x88": (_constant(True), 1, 0),
    b"\x89": (_constant(False), 1, 0),
    b"J": (_signed, _SCALAR, 4),
    b"K": (_unsigned, 1, 1),
    b"M": (_unsigned, _SCALAR, 2),
    b"\x8a": (_long, _SCALAR, 1),
    b"\x8b": (_long, _SCALAR, 4),
    b"G": (_float, _SCALAR, 8),
    b"\x8c": (_text, _SCALAR, 1),
    b"X": (_text, _SCALAR, 4),
    b"\x8d": (_text, _SCALAR, 8),
    b"C": (_bytes, 1, 1),
    b"B": (_bytes, 1, 4),
    b"\x8e": (_bytes, 1, 8),
    b"\x96": (_bytes, 1, 8),
    b"c": (_global, _CONTAINER, 0),
    b"\x93": (_stack_global, _CONTAINER, 0),
    b"q": (_put, 1, 1),
    b"r": (_put, 1, 4),
    b"\x94": (_memoize, 1, 0),
    b"h": (_get, 1, 1),
    b"j": (_get, 1, 4),
    b"t": (_tuple, _CONTAINER, 0),
    b")": (_constant(()), 1, 0),
    b"\x85": (_tuple_of(1), _CONTAINER, 0),
    b"\x86": (_tuple_of(2), _CONTAINER, 0),
    b"\x87": (_tuple_of(3), _CONTAINER, 0),
    b"]": (_empty(list), _CONTAINER, 0),
    b"}": (_empty(Pairs), _CONTAINER, 0),
    b"\x8f": (_empty(list), _CONTAINER, 0),
    b"\x91": (_frozenset, _CONTAINER, 0),
    b"a": (_append, 1, 0),
    b"e": (_appends, 1, 0),
    b"\x90": (_appends, 1, 0),
    b"s": (_set_item, 1, 0),
    b"u": (_set_items, 1, 0),
    b"Q": (_persistent, _CONTAINER, 0),
    b"R": (_call, _CONTAINER, 0),
    b"\x81": (_call, _CONTAINER, 0),
    b"\x92": (_call_with_keywords, 2 * _CONTAINER, 0),
    b"b": (_build, 1, 0),
}
OPCODES = [_HANDLERS.get(bytes((code,)), (_unknown, 0, 0)) for code in range(256)]
