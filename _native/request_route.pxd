"""Where requests go; for the thread of the dispatcher's loop."""

from tensorgate._native.dispatcher_state cimport Dispatcher, Line, Request

# Hands a NEW request to the live worker with the fewest outstanding, or queues it there. False, with the request ended,
# if there is none or it has no room.
cdef bint route_request(Dispatcher* dispatcher, Request* request) noexcept nogil
# Hands over what waits on the line, as far as its credit goes.
cdef void hand_waiting(Line* line) noexcept nogil
