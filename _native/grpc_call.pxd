"""gRPC calls of one native thread: HTTP/2 streams in, requests to the dispatcher or events to Python, answers out.

Everything here is for the thread of the server's loop.
"""

from libc.stddef cimport size_t

from tensorgate._native.dispatcher_state cimport Dispatcher
from tensorgate._native.event_loop cimport EventLoop
from tensorgate._native.grpc_state cimport GrpcCall, GrpcLimits, GrpcServer
from tensorgate._native.http2_state cimport Http2Limits

# Needs nghttp2_api and zmq_api loaded; methods, budget and events must outlive the server. False: out of memory.
cdef bint grpc_server_init(
    GrpcServer* server, EventLoop* loop, Dispatcher* dispatcher, const Http2Limits* http2_limits,
    const GrpcLimits* limits) noexcept nogil
# All else of a server's is its http2's: http2_server_open, _adopt, _drain and _close (before dispatcher_close), _free;
# and its inflater's: inflater_free, after _close and before the loop's end.

# Python has taken this many bytes of messages.
cdef void grpc_call_acknowledge(GrpcCall* call, size_t size) noexcept nogil
