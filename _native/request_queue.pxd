"""Where the dispatcher keeps requests: a line's queue by priority, and the table of those that were handed over.

Inline parts of dispatcher.pyx, for the thread of its loop. Larger priorities leave first, in the order of arrival
within one; taking a request out of the middle costs no search but for its priority's lane.
"""

from libc.stddef cimport size_t
from libc.stdint cimport uint64_t
from libc.stdlib cimport calloc, free

from tensorgate._native.dispatcher_state cimport Dispatcher, Lane, Line, Request, RequestList, VersionLine
from tensorgate._native.posix cimport atomic_load
from tensorgate._native.route_table cimport VersionState


# --- lists of requests ------------------------------------------------------------------------------------------------


cdef inline void list_append(RequestList* requests, Request* request) noexcept nogil:
    request.previous = requests.last
    request.next = NULL
    if requests.last is NULL:
        requests.first = request
    else:
        requests.last.next = request
    requests.last = request


cdef inline void list_remove(RequestList* requests, Request* request) noexcept nogil:
    if request.previous is NULL:
        requests.first = request.next
    else:
        request.previous.next = request.next
    if request.next is NULL:
        requests.last = request.previous
    else:
        request.next.previous = request.previous
    request.previous = NULL
    request.next = NULL


# --- the queue of a line ----------------------------------------------------------------------------------------------


cdef inline VersionLine* version_line_of(Line* line, VersionState* version) noexcept nogil:
    """Found or made; NULL: out of memory. Those that have nothing do not stay, so there are few to look through."""
    cdef VersionLine** place = &line.versions
    cdef VersionLine* found
    while place[0] is not NULL:
        if place[0].version is version:
            return place[0]
        place = &place[0].next
    found = <VersionLine*>calloc(1, sizeof(VersionLine))
    if found is not NULL:
        found.version = version
        found.weight = atomic_load(&version.weight)
        line.heaviest = max(line.heaviest, found.weight)
        place[0] = found
    return found


cdef inline void use_weights(Line* line) noexcept nogil:
    """As they are now."""
    cdef VersionLine* each = line.versions
    line.heaviest = 0
    while each is not NULL:
        each.weight = atomic_load(&each.version.weight)
        line.heaviest = max(line.heaviest, each.weight)
        each = each.next


cdef inline void version_line_leave(Line* line, VersionLine* version_line) noexcept nogil:
    """Forgets one that has nothing any more."""
    cdef VersionLine** place = &line.versions
    if version_line.num_handed or version_line.num_queued:
        return
    while place[0] is not version_line:
        place = &place[0].next
    place[0] = version_line.next
    if line.heaviest > 1:
        use_weights(line)
    free(version_line)


cdef inline size_t credit_of(const Line* line, const VersionLine* version_line) noexcept nogil:
    """Requests of the version that the worker may have: less where a version of more weight wants it too, since a
    worker serves in the order of arrival."""
    cdef size_t credit = <size_t>atomic_load(&version_line.version.max_handed)
    if credit == 0:
        credit = line.credit
    if version_line.weight == line.heaviest:
        return credit
    return max(credit * <size_t>version_line.weight // <size_t>line.heaviest, <size_t>1)


cdef inline Request* next_waiting(Line* line) noexcept nogil:
    """The request to hand over next, or NULL; versions that wait and have credit take turns."""
    cdef VersionLine** place = &line.versions
    cdef VersionLine* found
    while place[0] is not NULL and (place[0].num_queued == 0 or place[0].num_handed >= credit_of(line, place[0])):
        place = &place[0].next
    found = place[0]
    if found is NULL:
        return NULL
    # To the end.
    place[0] = found.next
    while place[0] is not NULL:
        place = &place[0].next
    place[0] = found
    found.next = NULL
    return found.lanes.requests.first


cdef inline bint queue_push(VersionLine* version_line, Request* request) noexcept nogil:
    """Appends to the lane of the request's priority. False: out of memory."""
    cdef Lane** place = &version_line.lanes
    cdef Lane* lane
    while place[0] is not NULL and place[0].priority > request.priority:
        place = &place[0].next
    lane = place[0]
    if lane is NULL or lane.priority != request.priority:
        lane = <Lane*>calloc(1, sizeof(Lane))
        if lane is NULL:
            return False
        lane.priority = request.priority
        lane.next = place[0]
        place[0] = lane
    list_append(&lane.requests, request)
    version_line.num_queued += 1
    return True


cdef inline void queue_remove(VersionLine* version_line, Request* request) noexcept nogil:
    """Takes a request out that waits here."""
    cdef Lane** place = &version_line.lanes
    cdef Lane* lane
    while place[0].priority != request.priority:
        place = &place[0].next
    lane = place[0]
    list_remove(&lane.requests, request)
    version_line.num_queued -= 1
    # Priorities are the clients' to choose: an empty lane must not stay behind.
    if lane.requests.first is NULL:
        place[0] = lane.next
        free(lane)


# --- the table of handed requests -------------------------------------------------------------------------------------


cdef inline size_t _bucket(const Dispatcher* dispatcher, uint64_t request_id) noexcept nogil:
    return <size_t>((request_id * <uint64_t>0x9E3779B97F4A7C15) >> 32) & (dispatcher.num_buckets - 1)


cdef inline void _grow_table(Dispatcher* dispatcher) noexcept nogil:
    cdef size_t former = dispatcher.num_buckets
    cdef Request** old = dispatcher.by_id
    cdef Request** made = <Request**>calloc(2 * former, sizeof(Request*))
    cdef Request* request
    cdef Request* following
    cdef size_t i, bucket
    if made is NULL:
        return  # longer chains do too
    dispatcher.by_id = made
    dispatcher.num_buckets = 2 * former
    for i in range(former):
        request = old[i]
        while request is not NULL:
            following = request.next_by_id
            bucket = _bucket(dispatcher, request.request_id)
            request.next_by_id = made[bucket]
            made[bucket] = request
            request = following
    free(old)


cdef inline void table_add(Dispatcher* dispatcher, Request* request) noexcept nogil:
    cdef size_t bucket
    if dispatcher.num_handed >= dispatcher.num_buckets:
        _grow_table(dispatcher)
    bucket = _bucket(dispatcher, request.request_id)
    request.next_by_id = dispatcher.by_id[bucket]
    dispatcher.by_id[bucket] = request
    dispatcher.num_handed += 1


cdef inline void table_remove(Dispatcher* dispatcher, Request* request) noexcept nogil:
    cdef Request** place = &dispatcher.by_id[_bucket(dispatcher, request.request_id)]
    while place[0] is not request:
        place = &place[0].next_by_id
    place[0] = request.next_by_id
    request.next_by_id = NULL
    dispatcher.num_handed -= 1


cdef inline Request* table_find(Dispatcher* dispatcher, uint64_t request_id) noexcept nogil:
    cdef Request* request = dispatcher.by_id[_bucket(dispatcher, request_id)]
    while request is not NULL and request.request_id != request_id:
        request = request.next_by_id
    return request
