"""Gets pinned requests to workers and their outcomes back, in a native thread and without the GIL.

On a request's line: route → dispatcher → frames ‖ worker. Each native thread of the gateway has one dispatcher, with a
line of its own to every worker; its loop's thread owns all of it. Here are the way in, the lines, and the life cycle;
request_route hands requests over, worker_replies takes answers in, request_end has all the ways to end.
"""

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset, strdup, strlen

from tensorgate._native.byte_writer cimport ByteWriter, put_bytes, put_text, writer_free, writer_init
from tensorgate._native.clocks cimport monotonic_us
from tensorgate._native.dispatcher_state cimport (
    STAGE_NEW,
    Dispatcher,
    Line,
    LineOptions,
    Request,
    RequestList,
    VersionLine,
    expect_replies,
)
from tensorgate._native.event_loop cimport (
    EventLoop,
    Timer,
    Watch,
    loop_add_hook,
    loop_unwatch,
    loop_watch,
    timer_cancel,
    timer_init,
    timer_set,
)
from tensorgate._native.posix cimport EPOLLIN
from tensorgate._native.reply_memory cimport reply_arena_drop, reply_arena_hold
from tensorgate._native.request_account cimport account_free, account_new
from tensorgate._native.request_end cimport (
    NO_MEMORY_TEXT,
    choose_for_log,
    end_with_text,
    expire,
    fail_request,
    leave_line,
    release_pin,
    request_free,
)
from tensorgate._native.request_queue cimport list_append, list_remove
from tensorgate._native.request_route cimport route_request
from tensorgate._native.status_codes cimport RESOURCE_EXHAUSTED, UNAVAILABLE
from tensorgate._native.worker_frames cimport close_sockets, has_stream, open_sockets
from tensorgate._native.worker_replies cimport drain_lines, take_message
from tensorgate._native.zmq_api cimport socket_fd


cdef enum:
    FIRST_NUM_BUCKETS = 256
    # Full credits of a worker: so many versions may be slow before others wait for them.
    MAX_VERSIONS_HANDED = 32

cdef const char* SHUTDOWN_TEXT = "The server is shutting down."


cdef inline Request* _any_waiting(Line* line) noexcept nogil:
    """Of a line that has some: the version's first in line whose turn it is, credit or not."""
    cdef VersionLine* version_line = line.versions
    while version_line.num_queued == 0:
        version_line = version_line.next
    return version_line.lanes.requests.first


cdef void dispatcher_submit(Dispatcher* dispatcher, Request* request) noexcept nogil:
    request.dispatcher = dispatcher
    request.submitted_us = monotonic_us()
    dispatcher.counters.submitted += 1
    if dispatcher.is_closed:
        end_with_text(request, UNAVAILABLE, SHUTDOWN_TEXT)
        return
    if request.deadline_us >= 0:
        if request.deadline_us <= request.submitted_us:
            expire(request)
            return
        if not timer_set(dispatcher.loop, &request.timer, request.deadline_us):
            end_with_text(request, RESOURCE_EXHAUSTED, NO_MEMORY_TEXT)
            return
    choose_for_log(request)
    route_request(dispatcher, request)


cdef void _on_readable(Watch* watch, uint32_t events) noexcept nogil:
    (<Line*>watch.owner).may_have_replies = True


cdef void _on_drain_due(Timer* timer) noexcept nogil:
    pass  # the turn's hook drains


# --- lines ------------------------------------------------------------------------------------------------------------


cdef void _free_line(Line* line) noexcept nogil:
    """Closes what is open; the line may be half-built."""
    if line.watch.fd >= 0:
        loop_unwatch(line.dispatcher.loop, &line.watch)
    close_sockets(line)
    if line.replies is not NULL:
        reply_arena_drop(line.replies)
    free(line.name)
    free(line)


cdef bint dispatcher_add_line(Dispatcher* dispatcher, const LineOptions* options) noexcept nogil:
    cdef Line* line
    cdef int fd
    if dispatcher.is_closed:
        return True
    line = <Line*>calloc(1, sizeof(Line))
    if line is NULL:
        return False
    line.dispatcher = dispatcher
    line.number = options.number
    line.epoch = options.epoch
    line.credit = options.credit
    line.max_handed = MAX_VERSIONS_HANDED * options.credit
    line.max_queued = options.max_queued
    line.max_queued_bytes = options.max_queued_bytes
    line.outstanding = options.outstanding if options.outstanding is not NULL else &line.own_outstanding
    if options.replies is not NULL:
        reply_arena_hold(options.replies)
        line.replies = options.replies
    line.watch.fd = -1
    line.watch.on_ready = _on_readable
    line.watch.owner = line
    line.name = strdup(options.name)
    if line.name is NULL or not open_sockets(line, options):
        _free_line(line)
        return False
    if not has_stream(line):
        fd = socket_fd(line.data)
        if fd >= 0:
            line.watch.fd = fd
            if not loop_watch(dispatcher.loop, &line.watch, EPOLLIN):
                line.watch.fd = -1
        if line.watch.fd < 0:
            _free_line(line)
            return False
    line.next = dispatcher.lines
    dispatcher.lines = line
    expect_replies(line)  # what the socket signalled before it was watched
    return True


cdef void _end_line(Line* line, int code, const uint8_t* message, size_t size) noexcept nogil:
    """Ends all that the worker was handed. Callbacks may cancel what is still in the list, and submit anew."""
    cdef RequestList lost
    cdef Request* request
    lost.first = NULL
    lost.last = NULL
    while line.handed.first is not NULL:
        request = line.handed.first
        leave_line(request)
        release_pin(request)
        list_append(&lost, request)
    while lost.first is not NULL:
        request = lost.first
        list_remove(&lost, request)
        fail_request(request, code, message, size)
        request_free(request)


cdef void dispatcher_remove_line(
        Dispatcher* dispatcher, uint64_t number, const uint8_t* cause, size_t cause_size) noexcept nogil:
    cdef Line** place = &dispatcher.lines
    cdef Line* line
    cdef Request* request
    cdef ByteWriter message
    while place[0] is not NULL and place[0].number != number:
        place = &place[0].next
    line = place[0]
    if line is NULL:
        return
    line.max_handed = 0  # what it answered before it died is as good as any answer, but it is handed nothing more
    while take_message(line):
        pass
    place = &dispatcher.lines
    while place[0] is not line:
        place = &place[0].next
    place[0] = line.next
    dispatcher.counters.worker_deaths += 1
    writer_init(&message)
    put_text(&message, "The request was lost: ")
    put_bytes(&message, cause, cause_size)
    put_text(&message, ". It may have run in part; it can be retried.")
    if message.failed:
        _end_line(line, UNAVAILABLE, <const uint8_t*>NO_MEMORY_TEXT, strlen(NO_MEMORY_TEXT))
    else:
        _end_line(line, UNAVAILABLE, message.data, message.size)
    writer_free(&message)
    while line.num_queued:
        request = _any_waiting(line)
        leave_line(request)
        request.stage = STAGE_NEW
        if route_request(dispatcher, request):
            dispatcher.counters.rerouted += 1
    _free_line(line)


# --- the life cycle ---------------------------------------------------------------------------------------------------


cdef bint dispatcher_init(Dispatcher* dispatcher, EventLoop* loop, void* zmq_context) noexcept nogil:
    memset(dispatcher, 0, sizeof(Dispatcher))
    dispatcher.loop = loop
    dispatcher.context = zmq_context
    dispatcher.request_id_step = 1
    dispatcher.num_buckets = FIRST_NUM_BUCKETS
    dispatcher.by_id = <Request**>calloc(FIRST_NUM_BUCKETS, sizeof(Request*))
    if dispatcher.by_id is NULL:
        return False
    dispatcher.account = account_new(<uint64_t>monotonic_us() ^ <uint64_t><size_t>dispatcher)
    if dispatcher.account is NULL:
        free(dispatcher.by_id)
        dispatcher.by_id = NULL
        return False
    writer_init(&dispatcher.header)
    timer_init(&dispatcher.drain_timer, _on_drain_due, dispatcher)
    dispatcher.drain_hook.run = drain_lines
    dispatcher.drain_hook.owner = dispatcher
    loop_add_hook(loop, &dispatcher.drain_hook)
    return True


cdef void dispatcher_close(Dispatcher* dispatcher) noexcept nogil:
    cdef Line* line
    cdef Request* request
    dispatcher.is_closed = True
    while dispatcher.lines is not NULL:
        line = dispatcher.lines
        dispatcher.lines = line.next
        _end_line(line, UNAVAILABLE, <const uint8_t*>SHUTDOWN_TEXT, strlen(SHUTDOWN_TEXT))
        while line.num_queued:
            request = _any_waiting(line)
            leave_line(request)
            end_with_text(request, UNAVAILABLE, SHUTDOWN_TEXT)
        _free_line(line)
    timer_cancel(dispatcher.loop, &dispatcher.drain_timer)


cdef void dispatcher_free(Dispatcher* dispatcher) noexcept nogil:
    free(dispatcher.by_id)
    dispatcher.by_id = NULL
    account_free(dispatcher.account)
    dispatcher.account = NULL
    writer_free(&dispatcher.header)
