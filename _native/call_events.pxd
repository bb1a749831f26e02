"""What happens to calls that Python serves, on its way from the native threads to Python's event loop.

Any thread. A CallHandle stands for one call on both sides: it outlives the call, and says so.
"""

from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint8_t

from tensorgate._native.event_loop cimport EventLoop
from tensorgate._native.wake_queue cimport QueueLink, WakeQueue

cdef enum EventKind:
    EVENT_START = 1    # data: the metadata, see grpc_call; number: the method's index; deadline_us
    EVENT_MESSAGE = 2  # data: one message of the client's
    EVENT_END = 3      # the client sends no more messages
    EVENT_DRAINED = 4  # a message that asked for it has been handed to the connection
    EVENT_CLOSED = 5   # the call is over: nothing that is sent arrives any more


cdef struct CallHandle:
    int64_t references   # atomic
    void* call           # the call's own thread only; NULL when it is over
    EventLoop* loop      # of that thread


cdef struct CallEvent:
    QueueLink link
    EventKind kind
    CallHandle* handle   # one reference is the event's
    uint8_t* data        # malloc'd, the event's; may be NULL
    size_t size
    int64_t number
    int64_t deadline_us  # monotonic clock, -1: none


# Takes data over. False: out of memory; then data is freed.
cdef bint call_event_push(
    WakeQueue* queue, EventKind kind, CallHandle* handle, uint8_t* data, size_t size, int64_t number,
    int64_t deadline_us) noexcept nogil
# For whoever took it from the queue.
cdef void call_event_free(CallEvent* event) noexcept nogil
# Frees the queue with the events that are left.
cdef void call_events_free(WakeQueue* queue) noexcept nogil

cdef CallHandle* call_handle_new(void* call, EventLoop* loop) noexcept nogil
cdef void call_handle_hold(CallHandle* handle) noexcept nogil
cdef void call_handle_release(CallHandle* handle) noexcept nogil
