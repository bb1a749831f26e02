"""How requests end: with an outcome or an error, at their deadline, cancelled; and where they are taken from then.

Beside the way of a request through the dispatcher, whose every stage may be its last.
"""

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset, strlen

from tensorgate._native.byte_writer cimport ByteWriter, writer_free
from tensorgate._native.dispatcher_state cimport (
    STAGE_ENDED,
    STAGE_HANDED,
    STAGE_QUEUED,
    Dispatcher,
    Line,
    Outcome,
    Request,
    VersionLine,
)
from tensorgate._native.event_loop cimport Timer, timer_cancel, timer_init
from tensorgate._native.posix cimport atomic_add
from tensorgate._native.request_queue cimport list_remove, queue_remove, table_remove, version_line_leave
from tensorgate._native.route_table cimport unpin_version
from tensorgate._native.status_codes cimport DEADLINE_EXCEEDED
from tensorgate._native.worker_frames cimport send_cancel
from tensorgate._native.zmq_api cimport zmq

# TensorFlow's own text for a run that outlives its RunOptions.timeout_in_ms.
cdef const char* DEADLINE_TEXT = "Timed out waiting for notification"
cdef const char* NO_MEMORY_TEXT = "The gateway is out of memory; retry later."


# --- outcomes ---------------------------------------------------------------------------------------------------------


cdef bint settle(Request* request) noexcept nogil:
    if request.is_settled:
        return False
    request.is_settled = True
    timer_cancel(request.dispatcher.loop, &request.timer)
    return True


cdef void tell_error(Request* request, int code, const uint8_t* message, size_t size) noexcept nogil:
    cdef Outcome outcome
    memset(&outcome, 0, sizeof(Outcome))
    outcome.code = code
    outcome.message = message
    outcome.message_size = size
    request.on_done(request, &outcome)


cdef void fail_request(Request* request, int code, const uint8_t* message, size_t size) noexcept nogil:
    if settle(request):
        request.dispatcher.counters.failed += 1
        tell_error(request, code, message, size)


cdef void release_pin(Request* request) noexcept nogil:
    request.stage = STAGE_ENDED
    unpin_version(request.version)


cdef void end_request(Request* request, int code, const uint8_t* message, size_t size) noexcept nogil:
    release_pin(request)
    fail_request(request, code, message, size)
    request_free(request)


cdef void end_with_text(Request* request, int code, const char* text) noexcept nogil:
    end_request(request, code, <const uint8_t*>text, strlen(text))


cdef void end_with(Request* request, int code, ByteWriter* message) noexcept nogil:
    if message.failed:
        end_with_text(request, code, NO_MEMORY_TEXT)
    else:
        end_request(request, code, message.data, message.size)
    writer_free(message)


# --- where it is ------------------------------------------------------------------------------------------------------


cdef void leave_line(Request* request) noexcept nogil:
    cdef Line* line = request.line
    cdef VersionLine* version_line = request.version_line
    if request.stage == STAGE_QUEUED:
        queue_remove(version_line, request)
        line.num_queued -= 1
        line.queued_bytes -= request.payload_size
    else:
        table_remove(line.dispatcher, request)
        list_remove(&line.handed, request)
        line.num_handed -= 1
        version_line.num_handed -= 1
    version_line_leave(line, version_line)
    request.line = NULL
    request.version_line = NULL
    atomic_add(line.outstanding, -1)


cdef bint _withdraw(Request* request) noexcept nogil:
    if request.stage == STAGE_HANDED:
        send_cancel(request.line, request.request_id)
        return False
    if request.stage == STAGE_ENDED:
        return False  # it is being ended, by whoever has it in a list
    if request.stage == STAGE_QUEUED:
        leave_line(request)
    release_pin(request)
    return True


cdef void expire(Request* request) noexcept nogil:
    cdef bint is_ours
    if request.is_settled:
        return
    is_ours = _withdraw(request)
    settle(request)
    request.dispatcher.counters.deadline_exceeded += 1
    tell_error(request, DEADLINE_EXCEEDED, <const uint8_t*>DEADLINE_TEXT, strlen(DEADLINE_TEXT))
    if is_ours:
        request_free(request)


cdef void dispatcher_cancel(Dispatcher* dispatcher, Request* request) noexcept nogil:
    cdef bint is_ours
    if request.is_settled:
        return
    is_ours = _withdraw(request)
    settle(request)
    dispatcher.counters.cancelled += 1
    if is_ours:
        request_free(request)


# --- a request's memory -----------------------------------------------------------------------------------------------


cdef void _on_deadline(Timer* timer) noexcept nogil:
    expire(<Request*>timer.owner)


cdef Request* request_new() noexcept nogil:
    cdef Request* request = <Request*>calloc(1, sizeof(Request))
    if request is NULL:
        return NULL
    zmq.msg_init(&request.payload)
    request.deadline_us = -1
    timer_init(&request.timer, _on_deadline, request)
    return request


cdef void request_free(Request* request) noexcept nogil:
    zmq.msg_close(&request.payload)
    free(request)
