"""ONNX models: a protobuf whose graph has initializers, the weights.

An initializer's numbers are a span where they lie as they are: in ``raw_data``, ``float_data`` or
``double_data``. Others, and attributes of nodes, stay in the skeleton. Weights kept in a file
beside the model are that file's. Source: https://github.com/onnx/onnx/blob/main/onnx/onnx.proto.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from git_theta.core.dtypes import dtype, element_count
from git_theta.core.layout import Layout, Source, TensorSpan
from git_theta.errors import FormatError
from git_theta.formats.checks import MAX_DIMENSIONS, MAX_INT, MAX_NAME, quote
from git_theta.formats.fixed import FixedStructure
from git_theta.formats.names import Names
from git_theta.formats.protobuf import BYTES, VARINT, Field, Messages

# The fields of ModelProto by number, with their wire types.
_MODEL = {1: VARINT, 5: VARINT, **dict.fromkeys((2, 3, 4, 6, 7, 8, 14, 20, 25, 26), BYTES)}
_IR_VERSION, _GRAPH, _OPSETS, _TRAINING, _FUNCTIONS = 1, 7, 8, 20, 25
_NEWEST_IR = 64
_NODE, _INITIALIZER, _SPARSE = 1, 5, 15  # of GraphProto
# Of TensorProto.
_DIMS, _DATA_TYPE, _FLOAT_DATA, _NAME, _RAW_DATA, _DOUBLE_DATA = 1, 2, 4, 8, 9, 10
_DATA = (_FLOAT_DATA, _RAW_DATA, _DOUBLE_DATA)
_NUMBERS = (*_DATA, 5, 7, 11)  # int32_data, in which there are 16-bit floats too, and so on
# AttributeProto.type: a tensor, a graph, several of them, sparse ones.
_ATTRIBUTES = re.compile(rb"\xa0\x01[\x04\x05\x09-\x0c]")
# A node of fewer bytes has no tensor of any size, and one of more has nothing else.
_LONG, _LONGEST = 64, 64 << 10
_FIRST = b"\x08"  # ir_version: protobuf writes fields in the order of their numbers
# TensorProto.DataType; those below 8 bits are packed, texts are none.
_DTYPES = {
    1: "F32",
    2: "U8",
    3: "I8",
    4: "U16",
    5: "I16",
    6: "I32",
    7: "I64",
    9: "BOOL",
    10: "F16",
    11: "F64",
    12: "U32",
    13: "U64",
    14: "C64",
    15: "C128",
    16: "BF16",
    17: "F8_E4M3",
    18: "F8_E4M3FNUZ",
    19: "F8_E5M2",
    20: "F8_E5M2FNUZ",
    23: "F4",
    24: "F8_E8M0",
}


class _Onnx(FixedStructure):
    name = "onnx"
    suffixes = (".onnx",)
    cannot = "tensors cannot be added to an ONNX graph"
    hint = "merge the models before they are exported"

    def matches(self, source: Source) -> bool:
        """Return whether it is a message with the fields of a model, from its first byte on."""
        try:
            return source.size > 1 and source.read(0, 1) == _FIRST and bool(_model(source))
        except FormatError:
            return False

    def scan(self, source: Source) -> Layout:
        """Return where the initializers lie. Raises ``FormatError``."""
        names, messages = Names(), Messages(source)
        spans: list[TensorSpan | None] = []
        model = _model(source)
        for part in messages.fields(model[_GRAPH][0].start, model[_GRAPH][0].stop):
            if part.number == _INITIALIZER and part.wire == BYTES:
                spans += _read(messages, part).spans(names)
            elif part.number == _SPARSE or (part.number == _NODE and _keeps(source, part)):
                spans.append(None)
        hides = None in spans or any(_keeps(source, part) for part in model.get(_FUNCTIONS, ()))
        found = sorted(filter(None, spans), key=lambda span: (span.start, span.length))
        return Layout(self.name, tuple(found), hides=hides or _TRAINING in model)


FORMAT = _Onnx()


@dataclass(slots=True)
class _Tensor:
    name: str = ""
    kind: int = 0
    dims: list[int] = field(default_factory=list)
    data: list[Field] = field(default_factory=list)

    def spans(self, names: Names) -> list[TensorSpan | None]:
        """Return its one span, ``None`` where its numbers are listed otherwise; none of none."""
        if all(part.stop == part.start for part in self.data):
            return []
        number, wire, _, start, stop = self.data[0]
        if len(self.data) > 1 or number not in _DATA or wire != BYTES:
            return [None]
        known = {_FLOAT_DATA: {1: "F32"}, _DOUBLE_DATA: {11: "F64"}}.get(number, _DTYPES)
        kind, name, shape = known.get(self.kind), names.unique(self.name), tuple(self.dims)
        length = stop - start
        if kind is None or element_count(shape) * dtype(kind).bits != 8 * length:
            kind, shape = "U8", (length,)
        return [TensorSpan(name, kind, shape, start, length)]


def _model(source: Source) -> dict[int, list[Field]]:
    """Return the fields of a model of one graph; ``FormatError`` where it is something else."""
    found: dict[int, list[Field]] = {}
    for part in Messages(source).fields(0, source.size):
        if _MODEL.get(part.number) != part.wire:
            raise FormatError(f"an ONNX model has no field {part.number} at byte {part.start}")
        found.setdefault(part.number, []).append(part)
    versions = [part.value for part in found.get(_IR_VERSION, ())]
    if len(versions) != 1 or not 0 < versions[0] <= _NEWEST_IR or _OPSETS not in found:
        raise FormatError("it does not say which version of ONNX it is")
    if len(found.get(_GRAPH, ())) != 1:
        raise FormatError("it does not have exactly one graph")
    return found


def _keeps(source: Source, node: Field) -> bool:
    """Return whether there may be a tensor or a graph among the attributes of a node.

    It is looked for by the bytes that say so, as each field takes 5 us to read.
    """
    length = node.stop - node.start
    if not _LONG <= length < _LONGEST:
        return length >= _LONGEST
    return _ATTRIBUTES.search(source.read(node.start, length)) is not None


def _read(messages: Messages, place: Field) -> _Tensor:
    tensor = _Tensor()
    for part in messages.fields(place.start, place.stop):
        if part.number == _DIMS:
            tensor.dims += messages.numbers(part, MAX_DIMENSIONS)
        elif part.number == _DATA_TYPE and part.wire == VARINT:
            tensor.kind = part.value
        elif part.number == _NAME:
            tensor.name = messages.text(part, MAX_NAME)
        elif part.number in _NUMBERS:
            tensor.data.append(part)
        # Products of a hostile shape have no end.
        if len(tensor.dims) > MAX_DIMENSIONS or max(tensor.dims, default=0) >= MAX_INT:
            raise FormatError(f"the initializer {quote(tensor.name)} has no valid shape")
    return tensor
