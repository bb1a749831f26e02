"""Headers of the frames that travel between gateway and worker; the layout is written at the structs."""

from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint8_t, uint64_t
from tensorgate._native.byte_writer cimport ByteWriter
from tensorgate._native.shared_memory cimport Place

cdef enum:
    C_WIRE_VERSION = 1
    C_KIND_REQUEST = 1
    C_KIND_REPLY = 2
    C_KIND_CANCEL = 3


cdef struct RequestHeader:
    # msgpack array [wire version, kind, epoch, request id, method, servable handle, remaining deadline, priority,
    #                sampled, traceparent] and, where the payload is in shared memory, its [offset, size, generation]
    uint64_t epoch                 # incarnation of the worker it is meant for
    uint64_t request_id            # never reused within a gateway's life
    uint64_t method                # dispatch.call.Method
    uint64_t servable_handle       # given out by the gateway in the load command
    int64_t remaining_deadline_us  # at the time of sending; -1: none
    int64_t priority               # larger is more urgent
    bint sampled                   # the request is traced or logged
    const uint8_t* traceparent     # W3C traceparent; points into the scanned header
    size_t traceparent_size
    bint has_place
    Place place                    # of the payload, if it has one; the payload frame is empty then


cdef struct ReplyHeader:
    # msgpack array [wire version, kind, epoch, request id, code, message, queue, run, batch rows, padding rows] and,
    #                where the payload is in shared memory, its [offset, size, generation]
    uint64_t epoch
    uint64_t request_id
    uint64_t code               # canonical status code
    const uint8_t* message      # empty when the code is OK; points into the scanned header
    size_t message_size
    uint64_t queue_us           # in the worker, until execution began
    uint64_t run_us             # in TF_SessionRun
    uint64_t batch_rows         # rows of the batch it ran in; 0 when not batched
    uint64_t padding_rows
    bint has_place
    Place place                 # as a request's


cdef bint read_request_header(const uint8_t* data, size_t size, RequestHeader* header) noexcept nogil
cdef bint read_reply_header(const uint8_t* data, size_t size, ReplyHeader* header) noexcept nogil
cdef bint read_cancel_header(const uint8_t* data, size_t size, uint64_t* epoch, uint64_t* request_id) noexcept nogil
# Writers append to out.
cdef void write_request_header(ByteWriter* out, const RequestHeader* header) noexcept nogil
cdef void write_reply_header(ByteWriter* out, const ReplyHeader* header) noexcept nogil
cdef void write_cancel_header(ByteWriter* out, uint64_t epoch, uint64_t request_id) noexcept nogil
