"""Finds the outputs of a serialized PredictResponse, and their values where a worker puts them in the ordinary way.

First step of json_reply, without the GIL, on any thread. Strict: lists in several pieces, lists that are shorter than
their shape says and the like make it give up.

Source: tensorflow_serving/apis/predict.proto; tensorflow/core/framework/tensor.proto.
"""

from libc.stddef cimport size_t
from libc.stdint cimport INT64_MAX, int64_t, uint32_t
from libc.stdlib cimport realloc
from libc.string cimport memcmp, memset

from tensorgate._native.proto_wire cimport (
    WIRE_BYTES,
    ProtoReader,
    bytes_left,
    is_utf8,
    next_bytes_field,
    read_bytes,
    read_tag,
    reader_of,
    skip_field,
)
from tensorgate._native.tensor_scan cimport (
    FIELD_BOOL_VAL,
    FIELD_DOUBLE_VAL,
    FIELD_FLOAT_VAL,
    FIELD_INT64_VAL,
    FIELD_INT_VAL,
    FIELD_STRING_VAL,
    FIELD_UINT32_VAL,
    FIELD_UINT64_VAL,
    MAX_DIMS,
    TensorScan,
    scan_tensor,
)
from tensorgate._native.tf_c_api cimport (
    DT_BOOL,
    DT_DOUBLE,
    DT_FLOAT,
    DT_INT8,
    DT_INT16,
    DT_INT32,
    DT_INT64,
    DT_STRING,
    DT_UINT8,
    DT_UINT32,
    DT_UINT64,
)

cdef enum:
    MAX_OUTPUTS = 1024


cdef uint32_t _value_field(int dtype) noexcept nogil:
    """The field that has the values of a dtype; 0 for what JSON cannot carry."""
    if dtype == DT_FLOAT:
        return FIELD_FLOAT_VAL
    if dtype == DT_DOUBLE:
        return FIELD_DOUBLE_VAL
    if dtype in (DT_INT32, DT_INT16, DT_INT8, DT_UINT8):
        return FIELD_INT_VAL
    if dtype == DT_STRING:
        return FIELD_STRING_VAL
    if dtype == DT_INT64:
        return FIELD_INT64_VAL
    if dtype == DT_BOOL:
        return FIELD_BOOL_VAL
    if dtype == DT_UINT32:
        return FIELD_UINT32_VAL
    if dtype == DT_UINT64:
        return FIELD_UINT64_VAL
    return 0


cdef bint _count_elements(const TensorScan* scan, size_t* num_elements) noexcept nogil:
    cdef int64_t product = 1
    cdef int axis
    if scan.num_dims > MAX_DIMS:
        return False
    for axis in range(scan.num_dims):
        if scan.dims[axis] < 0 or (scan.dims[axis] > 0 and product > INT64_MAX // scan.dims[axis]):
            return False
        product *= scan.dims[axis]
    num_elements[0] = <size_t>product
    return True


cdef bint _count_strings(ProtoReader body, size_t* count) noexcept nogil:
    cdef uint32_t field, wire_type
    cdef ProtoReader inner
    while bytes_left(&body):
        if not read_tag(&body, &field, &wire_type):
            return False
        if field == FIELD_STRING_VAL and wire_type == WIRE_BYTES:
            if not read_bytes(&body, &inner):
                return False
            count[0] += 1
        elif field == FIELD_STRING_VAL or not skip_field(&body, field, wire_type):
            return False
    return True


cdef bint _find_list(ProtoReader body, uint32_t value_field, ProtoReader* values) noexcept nogil:
    """The one packed list of the field; False if there is none, or the values are in several pieces."""
    cdef uint32_t field, wire_type
    cdef bint is_found = False
    while bytes_left(&body):
        if not read_tag(&body, &field, &wire_type):
            return False
        if field == value_field:
            if is_found or wire_type != WIRE_BYTES or not read_bytes(&body, values):
                return False
            is_found = True
        elif not skip_field(&body, field, wire_type):
            return False
    return is_found


cdef size_t _count_varints(const ProtoReader* values) noexcept nogil:
    """How many whole ones there are."""
    cdef size_t count = 0, i
    for i in range(bytes_left(values)):
        count += values.pos[i] < 0x80
    return count


cdef bint _prepare(Output* output) noexcept nogil:
    """Finds an output's values; False if they are not one for each element, or in no ordinary form."""
    cdef TensorScan* scan = &output.scan
    cdef uint32_t field = _value_field(scan.dtype)
    cdef size_t width = content_size(scan.dtype), count = 0
    output.is_base64 = (
        output.name_size >= 6 and memcmp(output.name + output.name_size - 6, b"_bytes", 6) == 0
    )
    if field == 0 or not _count_elements(scan, &output.num_elements):
        return False
    if output.num_elements == 0:
        return True
    if scan.content_size:
        output.is_content = True
        output.values = reader_of(scan.content, scan.content_size)
        return (
            scan.dtype != DT_STRING and scan.content_size % width == 0
            and scan.content_size // width == output.num_elements
        )
    if field == FIELD_STRING_VAL:
        output.values = scan.body
        return _count_strings(scan.body, &count) and count == output.num_elements
    if not _find_list(scan.body, field, &output.values):
        return False
    if field == FIELD_FLOAT_VAL or field == FIELD_DOUBLE_VAL:
        output.is_content = True  # the list's bytes are the same
        return bytes_left(&output.values) // width == output.num_elements
    return _count_varints(&output.values) == output.num_elements


cdef bint _read_entry(ProtoReader body, Output* output) noexcept nogil:
    """Reads an entry of PredictResponse.outputs."""
    cdef uint32_t field, wire_type
    cdef ProtoReader inner
    cdef bint has_tensor = False
    while bytes_left(&body):
        if not read_tag(&body, &field, &wire_type) or wire_type != WIRE_BYTES or not read_bytes(&body, &inner):
            return False
        if field == 1 and output.name is NULL and is_utf8(inner.pos, bytes_left(&inner)):
            output.name = inner.pos
            output.name_size = bytes_left(&inner)
        elif field == 2 and not has_tensor and scan_tensor(inner, &output.scan):
            has_tensor = True
        else:
            return False
    return has_tensor and output.name is not NULL


cdef int _compare_names(const Output* one, const Output* other) noexcept nogil:
    cdef int order = memcmp(one.name, other.name, min(one.name_size, other.name_size))
    if order:
        return order
    return (one.name_size > other.name_size) - (one.name_size < other.name_size)


cdef bint read_outputs(ProtoReader message, Output** outputs, size_t* num_outputs) noexcept nogil:
    cdef uint32_t field
    cdef ProtoReader inner
    cdef size_t capacity = 0
    cdef Output* moved
    while next_bytes_field(&message, &field, &inner):
        if field != 1:
            continue
        if num_outputs[0] == capacity:
            capacity = 2 * capacity if capacity else 1
            if capacity > MAX_OUTPUTS:
                return False
            moved = <Output*>realloc(outputs[0], capacity * sizeof(Output))
            if moved is NULL:
                return False
            outputs[0] = moved
        memset(&outputs[0][num_outputs[0]], 0, sizeof(Output))
        if not _read_entry(inner, &outputs[0][num_outputs[0]]) or not _prepare(&outputs[0][num_outputs[0]]):
            return False
        num_outputs[0] += 1
    return bytes_left(&message) == 0 and num_outputs[0] > 0


cdef bint sort_outputs(const Output* outputs, size_t num_outputs, Output** sorted_outputs) noexcept nogil:
    cdef size_t i, j
    cdef int order
    for i in range(num_outputs):
        j = i
        while j:
            order = _compare_names(sorted_outputs[j - 1], &outputs[i])
            if order == 0:
                return False
            if order < 0:
                break
            sorted_outputs[j] = sorted_outputs[j - 1]
            j -= 1
        sorted_outputs[j] = <Output*>&outputs[i]
    return True
