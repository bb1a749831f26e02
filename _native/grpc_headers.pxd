"""The headers of a gRPC request; for the thread of the server's loop."""

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t

from tensorgate._native.grpc_state cimport GrpcCall

# Notes what the call wants to know of one header; its bytes are valid during the call only.
cdef void grpc_call_take_header(
    GrpcCall* call, const uint8_t* name, size_t name_size, const uint8_t* value, size_t value_size) noexcept nogil
# All headers are there. False: the call has been refused, and answered.
cdef bint grpc_call_admit(GrpcCall* call) noexcept nogil
