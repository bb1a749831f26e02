"""The gateway's native threads as the control plane and the edges see them: one event loop and one dispatcher each."""

from libc.stdint cimport int64_t, uint64_t

from tensorgate._native.broadcasts cimport Broadcast, Order
from tensorgate._native.data_thread cimport DataThread
from tensorgate._native.held_buffers cimport HeldBuffers
from tensorgate._native.request_memory cimport RequestMemory
from tensorgate._native.route_table cimport PublishedVersion, Routes


cdef class DataPlane:
    # Edges reach a thread by index: &plane.threads[i]. Its loop runs from start to close; tasks that are posted to it
    # after close are not run. An edge stops before the plane is closed.
    cdef DataThread* threads
    cdef readonly int num_threads
    cdef Order* _orders
    cdef void* _context
    cdef HeldBuffers held    # of payloads that were submitted here
    cdef bint _made
    cdef bint _is_started
    cdef readonly bint is_closed
    cdef object _lock        # one broadcast at a time
    cdef Routes _routes      # the snapshot in use
    cdef set _versions       # all that may have a pin, or be in a snapshot
    cdef list _retired       # what was counted of versions that are gone, until request_stats tells
    cdef readonly RequestMemory request_memory
    cdef dict _reply_memories  # of live lines, by their numbers
    cdef int64_t _replies_full  # how often lines that are gone had no room
    cdef dict _outstanding   # line number to the counter that its dispatchers share
    cdef int _next_thread

    cdef int _broadcast(self, Broadcast* broadcast) except -1
    cdef int _barrier(self) except -1
    cdef int _retire(self, PublishedVersion version) except -1
    cdef void _tear_down(self)
    cdef void _forget_counter(self, uint64_t number)
