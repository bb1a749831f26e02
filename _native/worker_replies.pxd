"""Replies of workers; for the thread of the dispatcher's loop."""

from tensorgate._native.dispatcher_state cimport Line
from tensorgate._native.event_loop cimport Hook

# Takes one message off the line's data socket. False: there is none.
cdef bint take_message(Line* line) noexcept nogil
# The hook of a dispatcher, its owner: drains and flushes the sockets of all its lines.
cdef void drain_lines(Hook* hook) noexcept nogil
