"""Events of calls that Python serves, and the handles that stand for those calls on both sides.

Between grpc_call, on the edge's threads, and grpc_edge's Python face, by way of a wake_queue.
"""

from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint8_t
from libc.stdlib cimport free, malloc

from tensorgate._native.event_loop cimport EventLoop
from tensorgate._native.posix cimport atomic_add
from tensorgate._native.wake_queue cimport wake_queue_close, wake_queue_free, wake_queue_push


cdef bint call_event_push(
    WakeQueue* queue, EventKind kind, CallHandle* handle, uint8_t* data, size_t size, int64_t number,
    int64_t deadline_us,
) noexcept nogil:
    cdef CallEvent* event = <CallEvent*>malloc(sizeof(CallEvent))
    if event is NULL:
        free(data)
        return False
    event.kind = kind
    event.handle = handle
    event.data = data
    event.size = size
    event.number = number
    event.deadline_us = deadline_us
    call_handle_hold(handle)
    return wake_queue_push(queue, &event.link)


cdef void call_events_free(WakeQueue* queue) noexcept nogil:
    cdef QueueLink* link = wake_queue_close(queue)
    cdef QueueLink* following
    while link is not NULL:
        following = link.next
        call_event_free(<CallEvent*>link)
        link = following
    wake_queue_free(queue)


cdef void call_event_free(CallEvent* event) noexcept nogil:
    call_handle_release(event.handle)
    free(event.data)
    free(event)


cdef CallHandle* call_handle_new(void* call, EventLoop* loop) noexcept nogil:
    cdef CallHandle* handle = <CallHandle*>malloc(sizeof(CallHandle))
    if handle is not NULL:
        handle.references = 1
        handle.call = call
        handle.loop = loop
    return handle


cdef void call_handle_hold(CallHandle* handle) noexcept nogil:
    atomic_add(&handle.references, 1)


cdef void call_handle_release(CallHandle* handle) noexcept nogil:
    if atomic_add(&handle.references, -1) == 0:
        free(handle)
