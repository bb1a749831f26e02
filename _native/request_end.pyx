"""How requests end: with an outcome or an error, at their deadline, cancelled; and where they are taken from then.

Beside the way of a request through the dispatcher, whose every stage may be its last.
"""

from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcpy, memset, strlen

from tensorgate._native.byte_writer cimport ByteWriter, writer_free
from tensorgate._native.clocks cimport monotonic_us
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
from tensorgate._native.posix cimport atomic_add, atomic_load
from tensorgate._native.request_account cimport (
    MAX_RECORDED_NAME,
    RequestAccount,
    RequestRecord,
    account_log,
    next_random,
    record_place,
    record_push,
)
from tensorgate._native.request_queue cimport list_remove, queue_remove, table_remove, version_line_leave
from tensorgate._native.request_stats cimport NUM_CODES, MethodStats, count_success, stats_place
from tensorgate._native.route_table cimport unpin_version
from tensorgate._native.status_codes cimport CANCELLED, DEADLINE_EXCEEDED, OK, UNKNOWN
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


cdef inline bint _asks_for_trace(const Request* request) noexcept nogil:
    """Whether the lowest bit of the last hexadecimal digit of its traceparent, the sampled flag, is set."""
    cdef uint8_t digit
    if request.traceparent_size < 55:
        return False
    digit = request.traceparent[54]
    return ((digit - 48 if digit < 58 else digit - 87) & 1) != 0


cdef void _record(Request* request, int code, const Outcome* outcome, int64_t now_us) noexcept nogil:
    cdef RequestAccount* account = request.dispatcher.account
    cdef RequestRecord* record
    cdef bint is_traced = account.records_traces and _asks_for_trace(request)
    cdef bint is_sampled = account.sample_below != 0 and next_random(account) <= account.sample_below
    if not (is_traced or is_sampled):
        return
    record = record_place(account)
    if record is NULL:
        return
    record.ended_us = now_us
    record.version = request.version.version
    record.method = request.method
    record.request_id = request.request_id
    record.code = code
    record.is_native = request.is_native
    record.is_sampled = is_sampled
    record.total_us = <uint64_t>(now_us - request.submitted_us)
    record.queue_us = outcome.queue_us
    record.run_us = outcome.run_us
    record.batch_rows = outcome.batch_rows
    record.padding_rows = outcome.padding_rows
    record.request_bytes = request.payload_size
    record.reply_bytes = zmq.msg_size(outcome.payload) if outcome.payload is not NULL else 0
    record.name_size = min(request.version.name_size, <size_t>MAX_RECORDED_NAME)
    memcpy(record.name, request.version.name, record.name_size)
    record.traceparent_size = request.traceparent_size
    memcpy(record.traceparent, request.traceparent, request.traceparent_size)
    record_push(account)


cdef inline MethodStats* _stats_of(Request* request) noexcept nogil:
    """NULL: its version's requests are not counted, or there is no memory for it."""
    if request.version.stats is NULL:
        return NULL
    return stats_place(
        &request.version.stats[request.dispatcher.index], request.signature, request.is_native, request.method)


cdef void _count_error(Request* request, int code, const Outcome* outcome) noexcept nogil:
    cdef MethodStats* stats = _stats_of(request)
    if stats is not NULL:
        stats.by_code[code if 0 <= code < NUM_CODES else UNKNOWN] += 1
    if request.dispatcher.account.ring is not NULL:
        _record(request, code, outcome, monotonic_us())


cdef void choose_for_log(Request* request) noexcept nogil:
    cdef uint64_t below = <uint64_t>atomic_load(&request.version.log_below)
    if below == 0 or next_random(request.dispatcher.account) > below:
        return
    request.logged = <uint8_t*>malloc(request.version.name_size + request.payload_size + 1)
    if request.logged is not NULL:
        memcpy(request.logged, request.version.name, request.version.name_size)
        memcpy(request.logged + request.version.name_size, zmq.msg_data(&request.payload), request.payload_size)


cdef void _log(Request* request, const Outcome* outcome, int64_t now_us) noexcept nogil:
    cdef size_t reply_size = zmq.msg_size(outcome.payload)
    cdef size_t size = request.version.name_size + request.payload_size
    cdef uint8_t* grown = <uint8_t*>realloc(request.logged, size + reply_size + 1)
    if grown is NULL:
        return  # request_free frees what there is
    request.logged = NULL
    memcpy(grown + size, zmq.msg_data(outcome.payload), reply_size)
    account_log(
        request.dispatcher.account, now_us, request.version.version, request.method, grown, request.version.name_size,
        request.payload_size, reply_size)


cdef void tell_success(Request* request, const Outcome* outcome) noexcept nogil:
    cdef MethodStats* stats = _stats_of(request)
    cdef int64_t now_us = monotonic_us()
    if stats is not NULL:
        count_success(
            stats, <uint64_t>(now_us - request.submitted_us), outcome.queue_us, outcome.run_us, outcome.batch_rows,
            outcome.padding_rows, request.payload_size, zmq.msg_size(outcome.payload))
    if request.dispatcher.account.ring is not NULL:
        _record(request, OK, outcome, now_us)
    if request.logged is not NULL:
        _log(request, outcome, now_us)
    request.on_done(request, outcome)


cdef void tell_error(Request* request, int code, const uint8_t* message, size_t size) noexcept nogil:
    cdef Outcome outcome
    memset(&outcome, 0, sizeof(Outcome))
    outcome.code = code
    outcome.message = message
    outcome.message_size = size
    _count_error(request, code, &outcome)
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
    cdef Outcome outcome
    cdef bint is_ours
    if request.is_settled:
        return
    is_ours = _withdraw(request)
    settle(request)
    dispatcher.counters.cancelled += 1
    memset(&outcome, 0, sizeof(Outcome))
    _count_error(request, CANCELLED, &outcome)
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
    free(request.logged)
    free(request)
