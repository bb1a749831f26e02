"""Turns JSON values into TensorProtos of a known dtype, in both forms a predict request can have them.

Third step of a predict on the REST line; pure, any thread; needs time in proportion to the number of values.
Source: TensorFlow Serving's util/json_tensor.cc (FillTensorProto, AddValueToTensor, AddInstanceItem).

Each conversion exists twice. The quick way works on whole lists and only says yes or no. Where it says no, the careful
way walks the values in the order of the document, finds the first fault, and is what decides.
"""

from collections.abc import Sequence
from itertools import chain

from tensorgate.gateway.rest.json_value import JsonValue, debug_string
from tensorgate.gateway.rest.tensor_values import TensorValue, add_values, convert_value, convert_values
from tensorgate.protos.status_codes import Code, ServingError
from tensorgate.protos.tensorflow.core.framework import tensor_pb2


def tensor_from_json(value: JsonValue, dtype: int) -> tensor_pb2.TensorProto:
    """One tensor from one JSON value (columnar form); its shape is that of the nested lists, and a scalar has rank 0.

    Raises ServingError: INVALID_ARGUMENT for values that do not fit, UNIMPLEMENTED for a dtype JSON cannot carry.
    """
    shape = infer_shape(value)
    values = _quick_values([value], [1, *shape], dtype)
    return _tensor(dtype, shape, _careful_values(value, shape, dtype) if values is None else values)


def tensor_from_rows(rows: Sequence[JsonValue], dtype: int) -> tensor_pb2.TensorProto | None:
    """One tensor from one JSON value for each row, of shape [number of rows, …]; None unless all of them fit together.

    What does not fit is for RowTensor to find out. rows must not be empty.
    """
    shape = [len(rows), *infer_shape(rows[0])]
    values = _quick_values(rows, shape, dtype)
    return None if values is None else _tensor(dtype, shape, values)


class RowTensor:
    """One tensor that grows row by row, and tells what is wrong with a row."""

    def __init__(self, dtype: int) -> None:
        self._dtype = dtype
        self._num_rows = 0
        self._row_shape: list[int] = []
        self._row_size = 0
        self._values: list[TensorValue] = []

    def add(self, row: JsonValue) -> None:
        """Adds a row; raises ServingError as tensor_from_json does, or if its shape is not that of the first row."""
        shape = infer_shape(row)
        values = _careful_values(row, shape, self._dtype)
        if self._num_rows == 0:
            self._row_shape, self._row_size = shape, len(values)
        # The number of values is compared first: that is the error to report when both differ.
        if len(values) != self._row_size:
            raise _invalid(f"Expecting tensor size: {self._row_size} but got: {len(values)}")
        if shape != self._row_shape:
            raise _invalid(f"Expecting shape {_shape_text(self._row_shape)} but got: {_shape_text(shape)}")
        self._values += values
        self._num_rows += 1

    def tensor(self) -> tensor_pb2.TensorProto:
        """The rows added so far as one tensor of shape [number of rows, …]."""
        return _tensor(self._dtype, [self._num_rows, *self._row_shape], self._values)


def infer_shape(value: JsonValue) -> list[int]:
    """The shape that the first elements of nested lists suggest; whether the others agree is checked while filling."""
    shape = []
    while isinstance(value, list):
        shape.append(len(value))
        if not value:
            break
        value = value[0]
    return shape


def _quick_values(rows: Sequence[JsonValue], shape: Sequence[int], dtype: int) -> list[TensorValue] | None:
    """The values of nested lists of exactly this shape, in order; None if anything about them is not plainly right."""
    level = rows
    for size in shape[1:]:
        if not all(type(each) is list and len(each) == size for each in level):
            return None
        level = list(chain.from_iterable(level))  # type: ignore[arg-type]  # the check above has seen to it
    return convert_values(level, dtype)


def _careful_values(value: JsonValue, shape: Sequence[int], dtype: int) -> list[TensorValue]:
    """The values of nested lists in document order; raises ServingError for the first thing that is wrong."""
    rank = len(shape)
    values: list[TensorValue] = []
    # One iterator for each list that is open; a value's level is how many lists enclose it.
    open_lists = [iter([value])]
    while open_lists:
        level = len(open_lists) - 1
        for each in open_lists[-1]:
            if isinstance(each, list):
                if level >= rank:
                    raise _invalid(f"Encountered list at unexpected level: {level} expected < {rank}")
                if len(each) != shape[level]:
                    raise _invalid(
                        f"Encountered list at unexpected size: {len(each)} at level: {level} "
                        f"expected size: {shape[level]}"
                    )
                open_lists.append(iter(each))
                break
            if level != rank:
                raise _invalid(
                    f"JSON Value: {debug_string(each)} found at incorrect level: {level + 1} in the JSON DOM. "
                    f"Expected at level: {rank}"
                )
            values.append(convert_value(each, dtype))
        else:
            open_lists.pop()
    return values


def _tensor(dtype: int, shape: Sequence[int], values: Sequence[TensorValue]) -> tensor_pb2.TensorProto:
    tensor = tensor_pb2.TensorProto()
    # The protobuf API types enum fields by their own int type; a dtype of a signature is one of them.
    tensor.dtype = dtype  # type: ignore[assignment]
    # Present even when empty: a scalar has a shape, of rank 0.
    tensor.tensor_shape.SetInParent()
    for size in shape:
        tensor.tensor_shape.dim.add(size=size)
    add_values(tensor, values)
    return tensor


def _shape_text(shape: Sequence[int]) -> str:
    return f"[{','.join(map(str, shape))}]"


def _invalid(message: str) -> ServingError:
    return ServingError(Code.INVALID_ARGUMENT, message)
