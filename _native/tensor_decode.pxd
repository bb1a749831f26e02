"""Scanned TensorProtos to TensorFlow tensors."""

from tensorgate._native.tensor_scan cimport TensorScan
from tensorgate._native.tf_c_api cimport TF_Tensor

cdef enum:
    # A few values, the last of them repeated, must not claim more memory than a whole message could carry.
    MAX_TENSOR_BYTES = 0x7FFFFFFF

cdef enum DecodeOutcome:
    DECODED = 0
    DECODE_INVALID = 1       # a tensor TensorFlow would refuse to parse
    DECODE_NO_MEMORY = 2


# Makes the tensor in memory of its own (one copy from the request). *tensor is NULL unless DECODED; the caller
# deletes it.
cdef DecodeOutcome decode_tensor(const TensorScan* scan, TF_Tensor** tensor) noexcept nogil
