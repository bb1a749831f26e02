"""Gets pinned requests to workers and their outcomes back, in a native thread and without the GIL.

On a request's line: route → dispatcher → frames ‖ worker. Each native thread of the gateway has one dispatcher, with a
DEALER (requests, replies) and a PUSH socket (cancels) of its own to every worker; its loop's thread owns all of it.

A worker is handed at most its credit: enough that its execution threads never wait for the gateway, little enough that
almost everything is still in the gateway's queue when a cancel, a deadline or the worker's death needs to reach it.

The descriptor behind ZMQ_FD is edge-triggered: it becomes readable when the socket's state may have changed, once, and
both sending and receiving consume that signal. So a socket is drained after every wake-up and after every send, in the
loop's hook; where the hook of the turn has run already, a timer that is due at once brings it round again.

Source: zmq_getsockopt(3) on ZMQ_FD.
"""

from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset, strdup, strlen

from tensorgate._native.byte_writer cimport (
    ByteWriter,
    put_bytes,
    put_decimal,
    put_text,
    writer_free,
    writer_init,
)
from tensorgate._native.event_loop cimport (
    EventLoop,
    Hook,
    Timer,
    Watch,
    loop_add_hook,
    loop_unwatch,
    loop_watch,
    monotonic_now_us,
    timer_cancel,
    timer_init,
    timer_set,
)
from tensorgate._native.frame_header cimport ReplyHeader
from tensorgate._native.posix cimport EPOLLIN, atomic_add, atomic_load, eventfd_write
from tensorgate._native.request_queue cimport (
    list_append,
    list_remove,
    next_waiting,
    queue_push,
    queue_remove,
    table_add,
    table_find,
    table_remove,
    version_line_leave,
    version_line_of,
)
from tensorgate._native.route_table cimport ReplicaSet, unpin_version, version_replicas
from tensorgate._native.status_codes cimport (
    DEADLINE_EXCEEDED,
    LAST_CODE,
    OK,
    RESOURCE_EXHAUSTED,
    UNAVAILABLE,
    UNKNOWN,
)
from tensorgate._native.worker_frames cimport (
    FOUND_FOREIGN,
    FOUND_NOTHING,
    FOUND_REPLY,
    close_sockets,
    flush_requests,
    has_stream,
    open_sockets,
    receive_reply,
    send_cancel,
    send_request,
)
from tensorgate._native.zmq_api cimport socket_fd, zmq, zmq_msg_t


cdef enum:
    FIRST_NUM_BUCKETS = 256
    # Messages taken off one socket before the loop's other work gets its turn.
    MAX_REPLIES_PER_TURN = 256
    # Full credits of a worker: so many versions may be slow before others wait for them.
    MAX_VERSIONS_HANDED = 32

# TensorFlow's own text for a run that outlives its RunOptions.timeout_in_ms.
cdef const char* DEADLINE_TEXT = "Timed out waiting for notification"
cdef const char* SHUTDOWN_TEXT = "The server is shutting down."
cdef const char* NO_MEMORY_TEXT = "The gateway is out of memory; retry later."


# --- the end of a request ---------------------------------------------------------------------------------------------


cdef bint _settle(Request* request) noexcept nogil:
    """Marks a request settled, without a deadline from now on. False if it was settled before."""
    if request.is_settled:
        return False
    request.is_settled = True
    timer_cancel(request.dispatcher.loop, &request.timer)
    return True


cdef void _tell_error(Request* request, int code, const uint8_t* message, size_t size) noexcept nogil:
    cdef Outcome outcome
    memset(&outcome, 0, sizeof(Outcome))
    outcome.code = code
    outcome.message = message
    outcome.message_size = size
    request.on_done(request, &outcome)


cdef void _fail(Request* request, int code, const uint8_t* message, size_t size) noexcept nogil:
    if _settle(request):
        request.dispatcher.counters.failed += 1
        _tell_error(request, code, message, size)


cdef inline void _release_pin(Request* request) noexcept nogil:
    request.stage = STAGE_ENDED
    unpin_version(request.version)


cdef void _end(Request* request, int code, const uint8_t* message, size_t size) noexcept nogil:
    """Ends a request that no worker has."""
    _release_pin(request)
    _fail(request, code, message, size)
    request_free(request)


cdef void _end_with_text(Request* request, int code, const char* text) noexcept nogil:
    _end(request, code, <const uint8_t*>text, strlen(text))


cdef void _end_with(Request* request, int code, ByteWriter* message) noexcept nogil:
    """The same with a text that was put together, which is freed."""
    if message.failed:
        _end_with_text(request, code, NO_MEMORY_TEXT)
    else:
        _end(request, code, message.data, message.size)
    writer_free(message)


cdef void _leave_line(Request* request) noexcept nogil:
    """Takes a request off its line, from the queue or from among those handed."""
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


cdef inline Request* _any_waiting(Line* line) noexcept nogil:
    """Of a line that has some: the version's first in line whose turn it is, credit or not."""
    cdef VersionLine* version_line = line.versions
    while version_line.num_queued == 0:
        version_line = version_line.next
    return version_line.lanes.requests.first


cdef bint _withdraw(Request* request) noexcept nogil:
    """Takes a request back from wherever it is: True if nobody has it any more, so that it is the caller's to free.

    A worker that has it is asked to skip it, and its pin stays.
    """
    if request.stage == STAGE_HANDED:
        send_cancel(request.line, request.request_id)
        return False
    if request.stage == STAGE_ENDED:
        return False  # it is being ended, by whoever has it in a list
    if request.stage == STAGE_QUEUED:
        _leave_line(request)
    _release_pin(request)
    return True


cdef void _expire(Request* request) noexcept nogil:
    cdef bint is_ours
    if request.is_settled:
        return
    is_ours = _withdraw(request)
    _settle(request)
    request.dispatcher.counters.deadline_exceeded += 1
    _tell_error(request, DEADLINE_EXCEEDED, <const uint8_t*>DEADLINE_TEXT, strlen(DEADLINE_TEXT))
    if is_ours:
        request_free(request)


cdef void _on_deadline(Timer* timer) noexcept nogil:
    _expire(<Request*>timer.owner)


# --- a request's way out ----------------------------------------------------------------------------------------------


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


cdef void dispatcher_submit(Dispatcher* dispatcher, Request* request) noexcept nogil:
    request.dispatcher = dispatcher
    dispatcher.counters.submitted += 1
    if dispatcher.is_closed:
        _end_with_text(request, UNAVAILABLE, SHUTDOWN_TEXT)
        return
    if request.deadline_us >= 0:
        if request.deadline_us <= monotonic_now_us():
            _expire(request)
            return
        if not timer_set(dispatcher.loop, &request.timer, request.deadline_us):
            _end_with_text(request, RESOURCE_EXHAUSTED, NO_MEMORY_TEXT)
            return
    _route(dispatcher, request)


cdef void dispatcher_cancel(Dispatcher* dispatcher, Request* request) noexcept nogil:
    cdef bint is_ours
    if request.is_settled:
        return
    is_ours = _withdraw(request)
    _settle(request)
    dispatcher.counters.cancelled += 1
    if is_ours:
        request_free(request)


cdef bint _route(Dispatcher* dispatcher, Request* request) noexcept nogil:
    """Hands a NEW request to the live worker with the fewest outstanding, or queues it there.

    False, with the request ended, if there is none or it has no room.
    """
    cdef const ReplicaSet* replicas = version_replicas(request.version)
    cdef Line* line = NULL
    cdef Line* candidate
    cdef VersionLine* version_line
    cdef uint64_t servable_handle = 0
    cdef int64_t fewest = 0
    cdef int64_t outstanding
    cdef int i, place, first
    if replicas is not NULL:
        # Of those that are equally busy, another one each time.
        first = <int>(dispatcher.next_choice % <uint64_t>replicas.num_replicas)
        if replicas.num_replicas > 1:
            dispatcher.next_choice += 1
        for i in range(replicas.num_replicas):
            place = (first + i) % replicas.num_replicas
            candidate = dispatcher_find_line(dispatcher, replicas.replicas[place].worker)
            if candidate is NULL:
                continue
            outstanding = atomic_load(candidate.outstanding)
            if line is NULL or outstanding < fewest:
                line = candidate
                fewest = outstanding
                servable_handle = replicas.replicas[place].servable_handle
    if line is NULL:
        _end_restarting(request)
        return False
    version_line = version_line_of(line, request.version)
    if version_line is NULL:
        _end_with_text(request, RESOURCE_EXHAUSTED, NO_MEMORY_TEXT)
        return False
    if line.num_handed < line.max_handed and version_line.num_handed < line.credit and version_line.num_queued == 0:
        return _hand(line, version_line, request, servable_handle)
    if line.num_queued >= line.max_queued or request.payload_size > line.max_queued_bytes - line.queued_bytes:
        dispatcher.counters.refused += 1
        version_line_leave(line, version_line)
        _end_refused(line, request)
        return False
    if not queue_push(version_line, request):
        version_line_leave(line, version_line)
        _end_with_text(request, RESOURCE_EXHAUSTED, NO_MEMORY_TEXT)
        return False
    line.num_queued += 1
    line.queued_bytes += request.payload_size
    request.stage = STAGE_QUEUED
    request.line = line
    request.version_line = version_line
    atomic_add(line.outstanding, 1)
    return True


cdef void _end_restarting(Request* request) noexcept nogil:
    cdef ByteWriter message
    writer_init(&message)
    put_text(&message, "{name: ")
    put_bytes(&message, request.version.name, request.version.name_size)
    put_text(&message, " version: ")
    put_decimal(&message, request.version.version)
    put_text(
        &message, "} cannot be served just now: its worker is restarting and will load it again; retry.")
    _end_with(request, UNAVAILABLE, &message)


cdef void _end_refused(Line* line, Request* request) noexcept nogil:
    cdef ByteWriter message
    writer_init(&message)
    put_text(&message, "The queue of ")
    put_text(&message, line.name)
    put_text(&message, " is full: ")
    if line.num_queued >= line.max_queued:
        put_decimal(&message, <int64_t>line.num_queued)
        put_text(&message, " requests wait, max_queued_requests is ")
        put_decimal(&message, <int64_t>line.max_queued)
    else:
        put_decimal(&message, <int64_t>line.queued_bytes)
        put_text(&message, " bytes wait, this request has ")
        put_decimal(&message, <int64_t>request.payload_size)
        put_text(&message, ", max_queued_bytes is ")
        put_decimal(&message, <int64_t>line.max_queued_bytes)
    put_text(&message, "; retry later.")
    _end_with(request, RESOURCE_EXHAUSTED, &message)


cdef bint _hand(
    Line* line, VersionLine* version_line, Request* request, uint64_t servable_handle,
) noexcept nogil:
    """Sends a NEW request to the worker. False, with the request ended: too late, or the worker cannot be reached."""
    cdef Dispatcher* dispatcher = line.dispatcher
    cdef int64_t remaining_us = -1
    cdef ByteWriter message
    cdef bint is_sent
    if request.deadline_us >= 0:
        remaining_us = request.deadline_us - monotonic_now_us()
        if remaining_us <= 0:  # it is about to be noticed
            version_line_leave(line, version_line)
            _expire(request)
            return False
    # Never reused, so a reply cannot be taken for another request's.
    dispatcher.last_request_id += dispatcher.request_id_step
    request.request_id = dispatcher.last_request_id
    is_sent = send_request(line, request, servable_handle, remaining_us)
    _expect_replies(line)
    if not is_sent:
        version_line_leave(line, version_line)
        writer_init(&message)
        put_text(&message, line.name)
        put_text(&message, " cannot be reached: ")
        if has_stream(line):
            put_text(&message, "its socket is closed")
        else:
            put_text(&message, zmq.strerror(zmq.last_error()))
        _end_with(request, UNAVAILABLE, &message)
        return False
    request.stage = STAGE_HANDED
    request.line = line
    request.version_line = version_line
    list_append(&line.handed, request)
    line.num_handed += 1
    version_line.num_handed += 1
    table_add(dispatcher, request)
    atomic_add(line.outstanding, 1)
    return True


cdef void _hand_waiting(Line* line) noexcept nogil:
    cdef Dispatcher* dispatcher = line.dispatcher
    cdef const ReplicaSet* replicas
    cdef VersionLine* version_line
    cdef Request* request
    cdef int i
    while line.num_queued and line.num_handed < line.max_handed:
        request = next_waiting(line)
        if request is NULL:
            return
        _leave_line(request)
        request.stage = STAGE_NEW
        replicas = version_replicas(request.version)
        for i in range(replicas.num_replicas if replicas is not NULL else 0):
            if replicas.replicas[i].worker == line.number:
                version_line = version_line_of(line, request.version)
                if version_line is NULL:
                    _end_with_text(request, RESOURCE_EXHAUSTED, NO_MEMORY_TEXT)
                else:
                    _hand(line, version_line, request, replicas.replicas[i].servable_handle)
                break
        else:
            # The copy has gone from this worker since: another one may have it.
            _route(dispatcher, request)


# --- and back -------------------------------------------------------------------------------------------------------


cdef inline void _expect_replies(Line* line) noexcept nogil:
    """Has the socket drained: in this turn's hook, or in the next one's if that has run already."""
    cdef Dispatcher* dispatcher = line.dispatcher
    line.may_have_replies = True
    if dispatcher.drain_timer.index < 0 and not timer_set(dispatcher.loop, &dispatcher.drain_timer, 0):
        eventfd_write(dispatcher.loop.wake_fd, 1)


cdef bint _receive(Line* line) noexcept nogil:
    """Takes one message off the data socket. False: there is none."""
    cdef zmq_msg_t header_frame, payload
    cdef ReplyHeader header
    cdef int found = receive_reply(line, &header_frame, &header, &payload)
    if found == FOUND_REPLY:
        _take_reply(line, &header, &payload)
    elif found == FOUND_FOREIGN:
        line.dispatcher.counters.foreign_replies += 1
    zmq.msg_close(&payload)
    zmq.msg_close(&header_frame)
    return found != FOUND_NOTHING


cdef void _take_reply(Line* line, const ReplyHeader* header, zmq_msg_t* payload) noexcept nogil:
    cdef Dispatcher* dispatcher = line.dispatcher
    cdef Request* request = table_find(dispatcher, header.request_id)
    cdef Outcome outcome
    if request is NULL or request.line is not line:
        dispatcher.counters.unknown_replies += 1
        return
    _leave_line(request)
    _release_pin(request)
    if not _settle(request):
        dispatcher.counters.late_replies += 1
    elif header.code == OK:
        dispatcher.counters.succeeded += 1
        memset(&outcome, 0, sizeof(Outcome))
        outcome.payload = payload
        outcome.queue_us = header.queue_us
        outcome.run_us = header.run_us
        outcome.batch_rows = header.batch_rows
        outcome.padding_rows = header.padding_rows
        request.on_done(request, &outcome)
    else:
        dispatcher.counters.failed += 1
        _tell_error(
            request, <int>header.code if header.code <= LAST_CODE else UNKNOWN, header.message, header.message_size)
    request_free(request)
    _hand_waiting(line)


cdef void _on_readable(Watch* watch, uint32_t events) noexcept nogil:
    (<Line*>watch.owner).may_have_replies = True


cdef void _on_drain_due(Timer* timer) noexcept nogil:
    pass  # the turn's hook drains


cdef void _drain_lines(Hook* hook) noexcept nogil:
    cdef Dispatcher* dispatcher = <Dispatcher*>hook.owner
    cdef Line* line = dispatcher.lines
    cdef int num_taken
    timer_cancel(dispatcher.loop, &dispatcher.drain_timer)
    while line is not NULL:
        num_taken = 0
        line.may_have_replies |= line.stream.may_have
        # Sending on the way sets the flag again.
        while line.may_have_replies and num_taken < MAX_REPLIES_PER_TURN:
            line.may_have_replies = False
            while num_taken < MAX_REPLIES_PER_TURN and _receive(line):
                num_taken += 1
        if num_taken == MAX_REPLIES_PER_TURN:
            line.may_have_replies = True
        line = line.next
    # The flags that stand now are of lines that have more than their share, or were sent to by another line's replies.
    timer_cancel(dispatcher.loop, &dispatcher.drain_timer)
    line = dispatcher.lines
    while line is not NULL:
        # After the replies, which may have made room for more requests.
        flush_requests(line)
        if line.may_have_replies:
            _expect_replies(line)
        line = line.next


# --- lines ------------------------------------------------------------------------------------------------------------


cdef Line* dispatcher_find_line(Dispatcher* dispatcher, uint64_t number) noexcept nogil:
    cdef Line* line = dispatcher.lines
    while line is not NULL and line.number != number:
        line = line.next
    return line


cdef void _free_line(Line* line) noexcept nogil:
    """Closes what is open; the line may be half-built."""
    if line.watch.fd >= 0:
        loop_unwatch(line.dispatcher.loop, &line.watch)
    close_sockets(line)
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
    line.watch.fd = -1
    line.watch.on_ready = _on_readable
    line.watch.owner = line
    line.name = strdup(options.name)
    if line.name is NULL or not open_sockets(
        line, options.data_endpoint, options.cancel_endpoint, options.stream_path
    ):
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
    _expect_replies(line)  # what the socket signalled before it was watched
    return True


cdef void _end_line(Line* line, int code, const uint8_t* message, size_t size) noexcept nogil:
    """Ends all that the worker was handed. Callbacks may cancel what is still in the list, and submit anew."""
    cdef RequestList lost
    cdef Request* request
    lost.first = NULL
    lost.last = NULL
    while line.handed.first is not NULL:
        request = line.handed.first
        _leave_line(request)
        _release_pin(request)
        list_append(&lost, request)
    while lost.first is not NULL:
        request = lost.first
        list_remove(&lost, request)
        _fail(request, code, message, size)
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
    while _receive(line):
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
        _leave_line(request)
        request.stage = STAGE_NEW
        if _route(dispatcher, request):
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
    writer_init(&dispatcher.header)
    timer_init(&dispatcher.drain_timer, _on_drain_due, dispatcher)
    dispatcher.drain_hook.run = _drain_lines
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
            _leave_line(request)
            _end_with_text(request, UNAVAILABLE, SHUTDOWN_TEXT)
        _free_line(line)
    timer_cancel(dispatcher.loop, &dispatcher.drain_timer)


cdef void dispatcher_free(Dispatcher* dispatcher) noexcept nogil:
    free(dispatcher.by_id)
    dispatcher.by_id = NULL
    writer_free(&dispatcher.header)
