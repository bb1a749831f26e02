"""Scanned TensorProtos to TensorFlow tensors."""

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t

from tensorgate._native.proto_wire cimport ProtoReader
from tensorgate._native.tensor_scan cimport TensorScan
from tensorgate._native.tf_c_api cimport TF_Tensor

cdef enum:
    # A few values, the last of them repeated, must not claim more memory than a whole message could carry.
    MAX_TENSOR_BYTES = 0x7FFFFFFF

cdef enum DecodeOutcome:
    DECODED = 0
    DECODE_INVALID = 1       # a tensor TensorFlow would refuse to parse
    DECODE_NO_MEMORY = 2


cdef struct TensorValues:
    # The elements of a TensorProto that TensorFlow would parse; points into the request's bytes, which must stay.
    ProtoReader body
    const uint8_t* content   # of content_size bytes, which may be none
    size_t content_size
    int dtype
    size_t num_elements
    size_t element_size


# Checks all that decode_values relies on, and fills values; DECODED or DECODE_INVALID.
cdef DecodeOutcome measure_tensor(const TensorScan* scan, TensorValues* values) noexcept nogil
# Writes the elements to target, which has room for them all; strings there are initialised.
cdef void decode_values(const TensorValues* values, uint8_t* target) noexcept nogil
# Makes the tensor in memory of its own (one copy from the request). *tensor is NULL unless DECODED; the caller
# deletes it.
cdef DecodeOutcome decode_tensor(const TensorScan* scan, TF_Tensor** tensor) noexcept nogil
