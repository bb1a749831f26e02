"""The outputs of a PredictResponse, each with where its values are in the message."""

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t

from tensorgate._native.proto_wire cimport ProtoReader
from tensorgate._native.tensor_scan cimport TensorScan
from tensorgate._native.tf_c_api cimport (
    DT_DOUBLE,
    DT_FLOAT,
    DT_INT16,
    DT_INT32,
    DT_INT64,
    DT_UINT32,
    DT_UINT64,
)


cdef struct Output:
    const uint8_t* name
    size_t name_size
    TensorScan scan
    size_t num_elements
    bint is_content     # the values are the tensor's own bytes, and not a list of the dtype's field
    bint is_base64      # strings are written as {"b64": …}
    ProtoReader values  # those not written yet: of a list; of strings, the TensorProto's fields


# Finds all outputs; False for anything unusual. They are in malloc'ed memory, which is the caller's either way.
cdef bint read_outputs(ProtoReader message, Output** outputs, size_t* num_outputs) noexcept nogil
# Sorts pointers to the outputs by name; False if two have the same one.
cdef bint sort_outputs(const Output* outputs, size_t num_outputs, Output** sorted_outputs) noexcept nogil


cdef inline size_t content_size(int dtype) noexcept nogil:
    """Bytes of a value in tensor_content."""
    if dtype in (DT_DOUBLE, DT_INT64, DT_UINT64):
        return 8
    if dtype in (DT_FLOAT, DT_INT32, DT_UINT32):
        return 4
    return 2 if dtype == DT_INT16 else 1
