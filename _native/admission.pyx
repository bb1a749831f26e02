"""Admission: which requests may wait for a worker, and which one leaves when there is room for no more.

On a request's line: route → admission → queue → frames ‖ worker. The queue is the gateway's, and not the worker's: what
has not been handed over can still be cancelled, expire, be overtaken and move to another worker, and costs the worker
nothing. A queue that is full refuses at once, which is cheap, so that those it has taken are served in good time.

A full queue gives up its youngest request of the lowest priority for one of a higher. Among those of one priority the
version that has most of the queue, by its weight, makes room for one that has less of it.
"""

from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint8_t

from tensorgate._native.byte_writer cimport ByteWriter, put_bytes, put_decimal, put_text, writer_init
from tensorgate._native.dispatcher_state cimport STAGE_NEW, Lane, Line, Request, VersionLine
from tensorgate._native.posix cimport atomic_load
from tensorgate._native.request_end cimport end_with, leave_line
from tensorgate._native.request_queue cimport version_line_leave
from tensorgate._native.status_codes cimport RESOURCE_EXHAUSTED


# --- priorities -------------------------------------------------------------------------------------------------------


cdef inline bint _equals(const uint8_t* value, size_t size, const char* word, size_t word_size) noexcept nogil:
    """In any case of letters; the word is in lower case."""
    cdef size_t i
    if size != word_size:
        return False
    for i in range(size):
        if value[i] | 0x20 != <uint8_t>word[i]:
            return False
    return True


cdef int64_t priority_of(const uint8_t* value, size_t size) noexcept nogil:
    if _equals(value, size, "high", 4):
        return PRIORITY_HIGH
    if _equals(value, size, "low", 3):
        return PRIORITY_LOW
    # Other systems have headers of that name: their clients are to be served all the same.
    return PRIORITY_NORMAL


# --- room -------------------------------------------------------------------------------------------------------------


cdef Bound full_bound(Line* line, VersionLine* version_line, const Request* request) noexcept nogil:
    cdef int64_t max_queued = atomic_load(&version_line.version.max_queued)
    if 0 <= max_queued <= <int64_t>version_line.num_queued:
        return BOUND_OF_VERSION
    if line.num_queued >= line.max_queued:
        return BOUND_OF_WORKER
    if request.payload_size > line.max_queued_bytes - line.queued_bytes:
        return BOUND_OF_BYTES
    return BOUND_NONE


cdef inline Lane* _lowest(const VersionLine* version_line) noexcept nogil:
    cdef Lane* lane = version_line.lanes
    while lane is not NULL and lane.next is not NULL:
        lane = lane.next
    return lane


cdef inline bint _has_more(const VersionLine* one, const VersionLine* other, size_t others_more) noexcept nogil:
    """Whether one has more of the queue than the other would have with so many requests more, each by its weight."""
    return one.num_queued * <size_t>other.weight > (other.num_queued + others_more) * <size_t>one.weight


cdef Request* who_makes_room(
    Line* line, VersionLine* version_line, const Request* request, Bound bound,
) noexcept nogil:
    cdef VersionLine* each = version_line if bound == BOUND_OF_VERSION else line.versions
    cdef VersionLine* whose = NULL
    cdef Lane* lowest = NULL
    cdef Lane* lane
    if bound == BOUND_OF_BYTES:
        return NULL  # it might take many to make room for one
    while each is not NULL:
        lane = _lowest(each)
        if lane is not NULL and (
            lowest is NULL or lane.priority < lowest.priority
            or (lane.priority == lowest.priority and _has_more(each, whose, 0))
        ):
            lowest = lane
            whose = each
        each = NULL if bound == BOUND_OF_VERSION else each.next
    if lowest is NULL or lowest.priority > request.priority:
        return NULL
    if lowest.priority == request.priority and not _has_more(whose, version_line, 1):
        return NULL
    return lowest.requests.last


# --- refusals ---------------------------------------------------------------------------------------------------------


cdef void end_refused(Line* line, VersionLine* version_line, Request* request, Bound bound) noexcept nogil:
    cdef ByteWriter message
    writer_init(&message)
    put_text(&message, "The queue of ")
    if bound == BOUND_OF_VERSION:
        put_bytes(&message, request.version.name, request.version.name_size)
        put_text(&message, " is full: ")
        put_decimal(&message, <int64_t>version_line.num_queued)
        put_text(&message, " requests wait for ")
        put_text(&message, line.name)
        put_text(&message, ", max_queued_requests of its settings is ")
        put_decimal(&message, atomic_load(&request.version.max_queued))
    else:
        put_text(&message, line.name)
        put_text(&message, " is full: ")
        if bound == BOUND_OF_WORKER:
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
    line.dispatcher.counters.refused += 1
    version_line_leave(line, version_line)
    end_with(request, RESOURCE_EXHAUSTED, &message)


cdef void end_displaced(Request* request) noexcept nogil:
    cdef ByteWriter message
    writer_init(&message)
    put_text(&message, "The queue of ")
    put_text(&message, request.line.name)
    put_text(&message, " is full, and a request has come that goes before this one; retry later.")
    request.dispatcher.counters.refused += 1
    leave_line(request)
    request.stage = STAGE_NEW
    end_with(request, RESOURCE_EXHAUSTED, &message)


# --- for Python -------------------------------------------------------------------------------------------------------

def priority(bytes value not None):
    return priority_of(<const uint8_t*><const char*>value, <size_t>len(value))
