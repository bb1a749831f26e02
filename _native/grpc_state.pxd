"""A gRPC server and its calls on one native thread: what the stages of a call share.

Everything here is for the thread of the server's loop. The stages: grpc_headers (what the client asks for), grpc_call
(its messages, and a call's life), grpc_submit (to the dispatcher and back), grpc_answer (what the client gets).
"""

from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from tensorgate._native.access_tokens cimport TokenTable
from tensorgate._native.byte_writer cimport ByteWriter
from tensorgate._native.call_events cimport CallHandle
from tensorgate._native.dispatcher_state cimport MAX_TRACEPARENT, Dispatcher, Request
from tensorgate._native.event_loop cimport Timer
from tensorgate._native.grpc_message cimport Message, MessageAssembler, assembler_held
from tensorgate._native.http2_state cimport Http2Server, Http2Stream
from tensorgate._native.inflater cimport Inflater, Inflation
from tensorgate._native.posix cimport atomic_add, atomic_load
from tensorgate._native.wake_queue cimport WakeQueue
from tensorgate._native.zmq_api cimport zmq_msg_t


cdef enum SpecPlace:
    SPEC_IN_REQUEST = 0  # model_spec is field 1 of the request
    SPEC_IN_TASKS = 1    # and here of the first element of its field 1


cdef struct GrpcMethod:
    uint8_t* path
    size_t path_size
    uint64_t number      # dispatch.call.Method; 0: Python serves it
    SpecPlace spec_place
    uint32_t roles       # a call needs a token of one of them; 0: it needs none


cdef struct GrpcLimits:
    size_t max_message_size
    bint compress_replies


cdef struct Budget:
    # Of the process: bytes of requests that have come and of replies that have not gone.
    int64_t held         # atomic
    int64_t limit


cdef struct GrpcCounters:
    # Written by the loop's thread, read by any: a value may be a moment old.
    uint64_t started
    uint64_t succeeded
    uint64_t failed
    uint64_t cancelled           # by the client, or with its connection
    uint64_t refused_for_memory
    uint64_t received_bytes      # of messages, as they came
    uint64_t sent_bytes


cdef struct GrpcServer:
    Http2Server http2
    Dispatcher* dispatcher
    const GrpcMethod* methods    # the set's, as are the budget and the events
    size_t num_methods
    const TokenTable* tokens     # NULL: nobody is asked for one
    GrpcLimits limits
    Budget* budget
    WakeQueue* events
    Inflater inflater
    GrpcCounters counters


cdef struct OutMessage:
    OutMessage* next
    uint8_t prefix[5]
    zmq_msg_t payload
    size_t payload_size
    size_t offset                # what has gone, prefix included
    bint reports                 # EVENT_DRAINED when it has gone


cdef struct GrpcCall:
    Http2Stream stream           # first: it is the connection's name for the call
    GrpcServer* server
    const GrpcMethod* method     # NULL: nobody serves it
    # Of the request's headers.
    bint is_post
    bint is_grpc
    bint has_bad_timeout
    bint has_authorization
    bint is_started              # the headers are complete
    int encoding
    int accepted_encodings
    size_t header_bytes
    uint32_t roles               # of its token
    int64_t timeout_us           # -1: none
    ByteWriter metadata          # for Python: [u32 name size][u32 value size][name][value]…
    uint8_t traceparent[MAX_TRACEPARENT]
    size_t traceparent_size
    int64_t priority
    # Of the messages.
    MessageAssembler assembler
    Message message              # the request of a unary call
    size_t message_size          # of it, as the budget has it: also while the dispatcher has the message
    bint has_message             # or it is being inflated
    Inflation* inflation
    bint has_ended               # the client has
    int64_t deadline_us          # -1: none
    Timer timer
    # Where it is.
    Request* request             # the dispatcher has it
    CallHandle* handle           # Python has it
    size_t unacknowledged        # bytes of messages that Python has not taken yet
    size_t withheld              # of the stream's window, until it has
    # The answer.
    OutMessage* first_out
    OutMessage* last_out
    size_t out_bytes
    bint has_headers             # submitted
    bint is_deferred             # nghttp2 waits for stream_resume
    bint is_answered             # its status is known
    int code
    ByteWriter status_message    # as grpc-message has it
    size_t held_bytes            # its part of the budget


# --- budget -----------------------------------------------------------------------------------------------------------

cdef inline void count_held(GrpcCall* call) noexcept nogil:
    """Brings the budget up to date with what the call holds."""
    cdef size_t held = assembler_held(&call.assembler) + call.message_size + call.unacknowledged + call.out_bytes
    if held != call.held_bytes:
        atomic_add(&call.server.budget.held, <int64_t>held - <int64_t>call.held_bytes)
        call.held_bytes = held


cdef inline bint is_over_budget(GrpcServer* server) noexcept nogil:
    return atomic_load(&server.budget.held) > server.budget.limit
