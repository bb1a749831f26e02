"""A gRPC call's answer: replies and messages, then a status; everything here is for the thread of the server's loop.

After a status (finish, fail, reply, abandon) the call takes no more; a second one does nothing.
"""

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t

from tensorgate._native.grpc_state cimport GrpcCall
from tensorgate._native.zmq_api cimport zmq_msg_t

# The one reply of a unary call, and the status OK behind it. The payload is moved out of its message.
cdef void grpc_call_reply(GrpcCall* call, zmq_msg_t* payload) noexcept nogil
# One message of several. Takes data, malloc'd, over; compressing is done here, if the client takes it. False: out of
# memory, and the call has failed.
cdef bint grpc_call_send(GrpcCall* call, uint8_t* data, size_t size, bint reports) noexcept nogil
# The status, after what was sent.
cdef void grpc_call_finish(GrpcCall* call, int code, const uint8_t* message, size_t size) noexcept nogil
cdef void grpc_call_fail(GrpcCall* call, int code, const char* message) noexcept nogil
# More bytes are held than may be.
cdef void grpc_call_fail_for_memory(GrpcCall* call) noexcept nogil
# For what is no gRPC: an HTTP status, three digits.
cdef void grpc_call_fail_http(GrpcCall* call, const char* status) noexcept nogil
# Without a status: resets the stream, where what waits to go may wait for ever.
cdef void grpc_call_abandon(GrpcCall* call) noexcept nogil
# Frees what has not gone; the stream is over.
cdef void grpc_call_drop_answer(GrpcCall* call) noexcept nogil
