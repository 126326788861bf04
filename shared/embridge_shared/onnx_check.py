"""What an ONNX graph may be before anything opens it: plain tensor arithmetic, whole in its own bytes.

A runtime that opens a graph follows what it says: it reads files it names, loads operators of others, allocates what
its shapes ask for. So the bytes are walked here first, by a table of what a release's graphs are made of. A field the
table does not name is refused, whatever it would mean.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final, NamedTuple

from embridge_shared.errors import ModelError, Reason

MAX_NODES: Final = 20_000
MAX_ELEMENTS: Final = 1 << 27  # of a tensor: 512 MB of float32
_MAX_TEXT: Final = 4096
_MAX_AXES: Final = 8
_DOMAINS: Final = frozenset({"", "ai.onnx"})

# fmt: off
OPERATORS: Final = frozenset((
    "Abs", "Add", "And", "ArgMax", "AveragePool", "BatchNormalization", "Cast", "Ceil", "Clip", "Concat", "Constant",
    "ConstantOfShape", "Conv", "ConvInteger", "Cos", "CumSum", "DequantizeLinear", "Div", "DynamicQuantizeLinear",
    "Einsum", "Elu", "Equal", "Erf", "Exp", "Expand", "Flatten", "Floor", "Gather", "GatherElements", "GatherND",
    "Gelu", "Gemm", "GlobalAveragePool", "Greater", "GreaterOrEqual", "GroupNormalization", "HardSigmoid",
    "HardSwish", "Identity", "InstanceNormalization", "IsInf", "IsNaN", "LayerNormalization", "LeakyRelu", "Less",
    "LessOrEqual", "Log", "LogSoftmax", "LpNormalization", "MatMul", "MatMulInteger", "Max", "MaxPool", "Min", "Mish",
    "Mod", "Mul", "Neg", "Not", "Or", "PRelu", "Pad", "Pow", "QLinearConv", "QLinearMatMul", "QuantizeLinear",
    "RMSNormalization", "Range", "Reciprocal", "ReduceL1", "ReduceL2", "ReduceLogSumExp", "ReduceMax", "ReduceMean",
    "ReduceMin", "ReduceProd", "ReduceSum", "ReduceSumSquare", "Relu", "Reshape", "Round", "Selu", "Shape", "Sigmoid",
    "Sign", "Sin", "Size", "Slice", "Softmax", "Softplus", "Split", "Sqrt", "Squeeze", "Sub", "Swish", "Tanh", "Tile",
    "TopK", "Transpose", "Trilu", "Unsqueeze", "Where",
))
"""Of the default domain: arithmetic alone. Nothing branches, loops, draws at random, or handles text."""
# fmt: on

_BYTES_EACH: Final = {1: 4, 2: 1, 3: 1, 5: 2, 4: 2, 6: 4, 7: 8, 9: 1, 10: 2, 11: 8, 12: 4, 13: 8, 16: 2}
"""Size of an element by its type: floats, integers and truth values of ONNX."""

_VARINT, _FIXED64, _BLOB, _FIXED32 = 0, 1, 2, 5

# Fields of each kind of message. A name is a kind to walk into; `text` is kept; `skip` is of any content.
_MODEL: Final = {1: "int", 2: "skip", 3: "skip", 4: "skip", 5: "int", 6: "skip", 7: "graph", 8: "opset", 14: "skip"}
_GRAPH: Final = {
    **{1: "node", 2: "text", 5: "tensor", 10: "skip", 11: "value", 12: "value", 13: "value", 14: "skip", 16: "skip"},
}
_NODE: Final = {1: "text", 2: "text", 3: "text", 4: "text", 5: "attribute", 6: "skip", 7: "text", 8: "text", 9: "skip"}
_ATTRIBUTE: Final = {
    **{
        1: "text",
        2: "float",
        3: "int",
        4: "text",
        5: "tensor",
        7: "floats",
        8: "ints",
        9: "text",
        13: "skip",
        20: "int",
    },
}
_TENSOR: Final = {
    **{1: "ints", 2: "int", 4: "floats", 5: "ints", 7: "ints", 8: "text", 9: "data", 10: "doubles", 11: "ints"},
    **{12: "skip", 14: "int", 16: "skip"},
}
_FIELDS: Final = {
    "model": _MODEL,
    "graph": _GRAPH,
    "node": _NODE,
    "attribute": _ATTRIBUTE,
    "tensor": _TENSOR,
    "opset": {1: "text", 2: "int"},
    "value": {1: "text", 2: "skip", 3: "skip", 4: "skip"},
}
_WIRE: Final = {
    **{"int": {_VARINT}, "ints": {_VARINT, _BLOB}, "float": {_FIXED32}, "floats": {_FIXED32, _BLOB}},
    "doubles": {_FIXED64, _BLOB},
}
_SAID: Final = {
    ("model", 20): "brings training of its own",
    ("model", 25): "brings functions of its own",
    ("graph", 15): "has sparse tensors",
    ("attribute", 6): "has graphs within",
    ("attribute", 11): "has graphs within",
    ("attribute", 22): "has sparse tensors",
    ("tensor", 6): "has tensors of text",
    ("tensor", 13): "keeps tensors in other files",
}


class _Field(NamedTuple):
    number: int
    kind: str
    value: int
    content: memoryview


def check_model(data: bytes, what: str = "a graph") -> None:
    """Refuse an ONNX graph that is anything but plain arithmetic over tensors it holds itself.

    Args:
        data: A serialised ModelProto.
        what: It is, for people.

    Raises:
        ModelError: MALFORMED: it is no ModelProto; or it has tensors in other files, operators, functions or graphs
            that no release needs, or tensors of another size than they say.
    """
    try:
        graphs = 0
        for field in _walk(memoryview(data), "model"):
            if field.kind == "graph":
                graphs += 1
                _check_graph(field.content)
            elif field.kind == "opset":
                _check_opset(field.content)
        if graphs != 1:
            raise _RefusedError(f"holds {graphs} graphs")
    except _RefusedError as refused:
        raise ModelError(
            f"{what} {refused}.", reason=Reason.MALFORMED, hint="Nothing of it was opened; make the release anew."
        ) from refused


class _RefusedError(Exception):
    """What a graph is that it must not be."""


def _check_graph(graph: memoryview) -> None:
    nodes = 0
    for field in _walk(graph, "graph"):
        if field.kind == "node":
            nodes += 1
            _check_node(field.content)
        elif field.kind == "tensor":
            _check_tensor(field.content)
        elif field.kind == "value":
            for _ in _walk(field.content, "value"):
                pass
    if not 0 < nodes <= MAX_NODES:
        raise _RefusedError(f"has {nodes} operators")


def _check_node(node: memoryview) -> None:
    operator = ""
    for field in _walk(node, "node"):
        if field.number == 4:
            operator = _text(field.content)
            if operator not in OPERATORS:
                raise _RefusedError(f"uses the operator {operator!r}, which no release needs")
        elif field.number == 7 and (domain := _text(field.content)) not in _DOMAINS:
            raise _RefusedError(f"uses operators of {domain!r}")
        elif field.number == 8 and field.content:
            raise _RefusedError("overloads an operator")
        elif field.kind == "attribute":
            for part in _walk(field.content, "attribute"):
                if part.kind == "tensor":
                    _check_tensor(part.content)
    if not operator:
        raise _RefusedError("has an operator without a name")


def _check_opset(opset: memoryview) -> None:
    for field in _walk(opset, "opset"):
        if field.kind == "text" and (domain := _text(field.content)) not in _DOMAINS:
            raise _RefusedError(f"needs operators of {domain!r}")


def _check_tensor(tensor: memoryview) -> None:
    dims: list[int] = []
    kind, raw = 0, -1
    for field in _walk(tensor, "tensor"):
        if field.number == 1:
            dims += _packed(field.content) if field.content.nbytes else [field.value]
            if len(dims) > _MAX_AXES:
                raise _RefusedError(f"has a tensor of more than {_MAX_AXES} axes")
        elif field.number == 2:
            kind = field.value
        elif field.number == 14 and field.value:
            raise _RefusedError("keeps tensors in other files")
        elif field.kind == "data":
            raw = field.content.nbytes
    if kind not in _BYTES_EACH:
        raise _RefusedError(f"has tensors of type {kind}")
    elements = math.prod(dims)
    if elements > MAX_ELEMENTS:
        raise _RefusedError(f"has a tensor of {elements} numbers")
    if raw >= 0 and raw != elements * _BYTES_EACH[kind]:
        raise _RefusedError(f"has a tensor of {elements} numbers in {raw} bytes")


def _walk(message: memoryview, name: str) -> Iterator[_Field]:
    """The fields of a message; every one is known, of the type it should be, and whole."""
    known, at, end = _FIELDS[name], 0, message.nbytes
    while at < end:
        key, at = _varint(message, at)
        number, wire = key >> 3, key & 7
        kind = known.get(number)
        if kind is None:
            raise _RefusedError(
                _SAID.get((name, number), f"has a {name} with a field {number}, which no release needs")
            )
        if wire not in _WIRE.get(kind, {_BLOB}):
            raise _RefusedError(f"is no ONNX: field {number} of a {name} is of another type")
        value, start = 0, at
        if wire == _VARINT:
            value, at = _varint(message, at)
            start = at
        elif wire == _BLOB:
            size, start = _varint(message, at)
            at = start + size
        else:
            at += 8 if wire == _FIXED64 else 4
            start = at
        if at > end:
            raise _RefusedError(f"ends inside a {name}")
        yield _Field(number, kind, value, message[start:at])


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= data.nbytes:
            raise _RefusedError("ends inside a number")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if value >= 1 << 64:
                break
            return value, at
    raise _RefusedError("is no ONNX: it has a number without an end")


def _packed(data: memoryview) -> list[int]:
    """The first few numbers of a packed list, one more than there may be."""
    found: list[int] = []
    at = 0
    while at < data.nbytes and len(found) <= _MAX_AXES:
        value, at = _varint(data, at)
        found.append(value)
    return found


def _text(data: memoryview) -> str:
    if data.nbytes > _MAX_TEXT:
        raise _RefusedError(f"has a name of {data.nbytes} bytes")
    return bytes(data).decode("utf-8", "backslashreplace")
