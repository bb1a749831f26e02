"""Who may wait for a worker, and who goes first; for the thread of the dispatcher's loop."""

from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint8_t

from tensorgate._native.dispatcher_state cimport Line, Request, VersionLine

cdef enum:
    PRIORITY_LOW = -1
    PRIORITY_NORMAL = 0
    PRIORITY_HIGH = 1

cdef enum Bound:
    BOUND_NONE           # there is room
    BOUND_OF_VERSION     # max_queued_requests of the model's settings
    BOUND_OF_WORKER      # requests of all versions
    BOUND_OF_BYTES       # likewise

# What the value of an x-priority header stands for; whatever is none of its three values is normal.
cdef int64_t priority_of(const uint8_t* value, size_t size) noexcept nogil
# The bound that keeps the request from waiting for the line's worker.
cdef Bound full_bound(Line* line, VersionLine* version_line, const Request* request) noexcept nogil
# A request that waits and is to leave for this one, or NULL. It is still in the queue.
cdef Request* who_makes_room(
    Line* line, VersionLine* version_line, const Request* request, Bound bound) noexcept nogil
# Ends a request that there is no room for, and one that has waited until now; the latter leaves the queue.
cdef void end_refused(Line* line, VersionLine* version_line, Request* request, Bound bound) noexcept nogil
cdef void end_displaced(Request* request) noexcept nogil
