"""Chooses a worker for a request, and hands it over or has it wait; says no when there is no worker or no room.

On a request's line: route → queue → frames ‖ worker. A worker is handed at most its credit: enough that its execution
threads never wait for the gateway, little enough that almost everything is still in the gateway's queue when a cancel,
a deadline or the worker's death needs to reach it.
"""

from libc.stdint cimport int64_t, uint64_t

from tensorgate._native.admission cimport (
    BOUND_NONE,
    Bound,
    end_displaced,
    end_refused,
    full_bound,
    who_makes_room,
)
from tensorgate._native.byte_writer cimport ByteWriter, put_bytes, put_decimal, put_text, writer_init
from tensorgate._native.clocks cimport monotonic_us
from tensorgate._native.dispatcher_state cimport (
    STAGE_HANDED,
    STAGE_NEW,
    STAGE_QUEUED,
    Dispatcher,
    Line,
    Request,
    VersionLine,
    dispatcher_find_line,
    expect_replies,
)
from tensorgate._native.posix cimport atomic_add, atomic_load
from tensorgate._native.request_end cimport NO_MEMORY_TEXT, end_with, end_with_text, expire, leave_line
from tensorgate._native.request_queue cimport (
    credit_of,
    list_append,
    next_waiting,
    queue_push,
    table_add,
    version_line_leave,
    version_line_of,
)
from tensorgate._native.route_table cimport ReplicaSet, version_replicas
from tensorgate._native.status_codes cimport RESOURCE_EXHAUSTED, UNAVAILABLE
from tensorgate._native.worker_frames cimport has_stream, send_request
from tensorgate._native.zmq_api cimport zmq

cdef bint route_request(Dispatcher* dispatcher, Request* request) noexcept nogil:
    cdef const ReplicaSet* replicas = version_replicas(request.version)
    cdef Line* line = NULL
    cdef Line* candidate
    cdef VersionLine* version_line
    cdef Request* displaced = NULL
    cdef Bound bound
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
        end_with_text(request, RESOURCE_EXHAUSTED, NO_MEMORY_TEXT)
        return False
    if (
        version_line.num_queued == 0 and line.num_handed < line.max_handed
        and version_line.num_handed < credit_of(line, version_line)
    ):
        return _hand(line, version_line, request, servable_handle)
    bound = full_bound(line, version_line, request)
    if bound != BOUND_NONE:
        displaced = who_makes_room(line, version_line, request, bound)
        if displaced is NULL:
            end_refused(line, version_line, request, bound)
            return False
    if not queue_push(version_line, request):
        version_line_leave(line, version_line)
        end_with_text(request, RESOURCE_EXHAUSTED, NO_MEMORY_TEXT)
        return False
    line.num_queued += 1
    line.queued_bytes += request.payload_size
    request.stage = STAGE_QUEUED
    request.line = line
    request.version_line = version_line
    atomic_add(line.outstanding, 1)
    if displaced is not NULL:
        end_displaced(displaced)
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
    end_with(request, UNAVAILABLE, &message)


cdef bint _hand(
    Line* line, VersionLine* version_line, Request* request, uint64_t servable_handle,
) noexcept nogil:
    """Sends a NEW request to the worker. False, with the request ended: too late, or the worker cannot be reached."""
    cdef Dispatcher* dispatcher = line.dispatcher
    cdef int64_t remaining_us = -1
    cdef ByteWriter message
    cdef bint is_sent
    if request.deadline_us >= 0:
        remaining_us = request.deadline_us - monotonic_us()
        if remaining_us <= 0:  # it is about to be noticed
            version_line_leave(line, version_line)
            expire(request)
            return False
    # Never reused, so a reply cannot be taken for another request's.
    dispatcher.last_request_id += dispatcher.request_id_step
    request.request_id = dispatcher.last_request_id
    is_sent = send_request(line, request, servable_handle, remaining_us)
    expect_replies(line)
    if not is_sent:
        version_line_leave(line, version_line)
        writer_init(&message)
        put_text(&message, line.name)
        put_text(&message, " cannot be reached: ")
        if has_stream(line):
            put_text(&message, "its socket is closed")
        else:
            put_text(&message, zmq.strerror(zmq.last_error()))
        end_with(request, UNAVAILABLE, &message)
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


cdef void hand_waiting(Line* line) noexcept nogil:
    cdef Dispatcher* dispatcher = line.dispatcher
    cdef const ReplicaSet* replicas
    cdef VersionLine* version_line
    cdef Request* request
    cdef int i
    while line.num_queued and line.num_handed < line.max_handed:
        request = next_waiting(line)
        if request is NULL:
            return
        leave_line(request)
        request.stage = STAGE_NEW
        replicas = version_replicas(request.version)
        for i in range(replicas.num_replicas if replicas is not NULL else 0):
            if replicas.replicas[i].worker == line.number:
                version_line = version_line_of(line, request.version)
                if version_line is NULL:
                    end_with_text(request, RESOURCE_EXHAUSTED, NO_MEMORY_TEXT)
                else:
                    _hand(line, version_line, request, replicas.replicas[i].servable_handle)
                break
        else:
            # The copy has gone from this worker since: another one may have it.
            route_request(dispatcher, request)
