"""The way of a unary request from its call to the dispatcher; for the thread of the server's loop."""

from tensorgate._native.grpc_state cimport GrpcCall

# Routes the call's message, which the dispatcher takes over, and answers the call, perhaps before this returns. From
# now on the dispatcher watches the deadline.
cdef void grpc_call_submit(GrpcCall* call) noexcept nogil
