"""The dispatcher of one native thread: gets pinned requests to workers, and their outcomes back to whoever submitted.

Everything here is for the thread of the dispatcher's loop.
"""

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint64_t

from tensorgate._native.dispatcher_state cimport Dispatcher, LineOptions, Request
from tensorgate._native.event_loop cimport EventLoop

cdef bint dispatcher_init(Dispatcher* dispatcher, EventLoop* loop, void* zmq_context) noexcept nogil
# Fails all that is outstanding with UNAVAILABLE and closes the sockets; before the loop's end.
cdef void dispatcher_close(Dispatcher* dispatcher) noexcept nogil
cdef void dispatcher_free(Dispatcher* dispatcher) noexcept nogil
# A worker is up: requests for the versions that it hosts may go to it. False: out of memory or of descriptors.
cdef bint dispatcher_add_line(Dispatcher* dispatcher, const LineOptions* options) noexcept nogil
# A worker has died, for a cause that clients are told (UTF-8, without a full stop). What it answered still counts; what
# else it was handed fails with UNAVAILABLE, what waited for it moves to another worker or fails. Unknown: nothing.
cdef void dispatcher_remove_line(
    Dispatcher* dispatcher, uint64_t number, const uint8_t* cause, size_t cause_size) noexcept nogil
# Never fails: what goes wrong goes to on_done, perhaps before this returns.
cdef void dispatcher_submit(Dispatcher* dispatcher, Request* request) noexcept nogil
