"""ONNX models: a protobuf whose graph has initializers, the weights.

An initializer's numbers are a span where they lie as they are: in ``raw_data``, ``float_data`` or
``double_data``. Others, and attributes of nodes, stay in the skeleton. Weights kept in a file
beside the model are that file's. Source: https://github.com/onnx/onnx/blob/main/onnx/onnx.proto.
"""

from __future__ import annotations

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
_IR_VERSION, _GRAPH, _OPSETS = 1, 7, 8
_NEWEST_IR = 64
_INITIALIZER = 5  # of GraphProto
# Of TensorProto.
_DIMS, _DATA_TYPE, _FLOAT_DATA, _NAME, _RAW_DATA, _DOUBLE_DATA = 1, 2, 4, 8, 9, 10
_DATA = (_FLOAT_DATA, _RAW_DATA, _DOUBLE_DATA)
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
            return source.size > 1 and source.read(0, 1) == _FIRST and bool(_graphs(source))
        except FormatError:
            return False

    def scan(self, source: Source) -> Layout:
        """Return where the initializers lie. Raises ``FormatError``."""
        graphs, names, spans = _graphs(source), Names(), []
        messages = Messages(source)
        for graph in graphs:
            for part in messages.fields(graph.start, graph.stop):
                if part.number == _INITIALIZER and part.wire == BYTES:
                    spans += _read(messages, part).spans(names)
        spans.sort(key=lambda span: (span.start, span.length))
        return Layout(self.name, tuple(spans))


FORMAT = _Onnx()


@dataclass(slots=True)
class _Tensor:
    name: str = ""
    kind: int = 0
    dims: list[int] = field(default_factory=list)
    data: list[Field] = field(default_factory=list)

    def spans(self, names: Names) -> list[TensorSpan]:
        """Return its one span; none where its numbers are not in one place, or empty."""
        if len(self.data) != 1 or self.data[0].stop == self.data[0].start:
            return []
        number, _, _, start, stop = self.data[0]
        known = {_FLOAT_DATA: {1: "F32"}, _DOUBLE_DATA: {11: "F64"}}.get(number, _DTYPES)
        kind, name, shape = known.get(self.kind), names.unique(self.name), tuple(self.dims)
        length = stop - start
        if kind is None or element_count(shape) * dtype(kind).bits != 8 * length:
            kind, shape = "U8", (length,)
        return [TensorSpan(name, kind, shape, start, length)]


def _graphs(source: Source) -> list[Field]:
    """Return the graph of a model; ``FormatError`` where that is something else."""
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
    return found[_GRAPH]


def _read(messages: Messages, place: Field) -> _Tensor:
    tensor = _Tensor()
    for part in messages.fields(place.start, place.stop):
        if part.number == _DIMS:
            tensor.dims += messages.numbers(part, MAX_DIMENSIONS)
        elif part.number == _DATA_TYPE and part.wire == VARINT:
            tensor.kind = part.value
        elif part.number == _NAME:
            tensor.name = messages.text(part, MAX_NAME)
        elif part.number in _DATA and part.wire == BYTES:
            tensor.data.append(part)
        # Products of a hostile shape have no end.
        if len(tensor.dims) > MAX_DIMENSIONS or max(tensor.dims, default=0) >= MAX_INT:
            raise FormatError(f"the initializer {quote(tensor.name)} has no valid shape")
    return tensor
