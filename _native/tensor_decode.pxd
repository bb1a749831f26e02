"""TensorProto bytes to TensorFlow tensors, in two steps: scan (validates, notes where things are), then decode."""

from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint8_t

from tensorgate._native.proto_wire cimport ProtoReader
from tensorgate._native.tf_c_api cimport TF_Tensor

cdef enum:
    MAX_DIMS = 254           # TensorShape::MaxDimensions
    MAX_TENSOR_BYTES = 0x7FFFFFFF  # a short *_val list must not claim more memory than a whole message could carry

cdef enum DecodeOutcome:
    DECODED = 0
    DECODE_INVALID = 1       # a tensor TensorFlow would refuse to parse
    DECODE_NO_MEMORY = 2


cdef struct TensorScan:
    ProtoReader body         # the serialized TensorProto; the request's bytes
    int dtype
    int num_dims             # MAX_DIMS + 1: more than are allowed
    int64_t dims[MAX_DIMS]
    const uint8_t* content   # tensor_content, NULL when absent
    size_t content_size


# Walks the whole TensorProto; False when its bytes are malformed. The scan points into body, which must stay.
cdef bint scan_tensor(ProtoReader body, TensorScan* scan) noexcept nogil
# Makes the tensor in memory of its own (one copy from the request). *tensor is NULL unless DECODED; the caller
# deletes it.
cdef DecodeOutcome decode_tensor(const TensorScan* scan, TF_Tensor** tensor) noexcept nogil
