"""The queue of events of calls that Python serves.

Between grpc_call, on the edge's threads, and grpc_edge's Python face. A push wakes Python only if the queue was empty,
so that a burst costs one wake-up.

Source: eventfd(2).
"""

from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.stdlib cimport free, malloc
from posix.unistd cimport close

from tensorgate._native.event_loop cimport EventLoop
from tensorgate._native.posix cimport (
    EFD_CLOEXEC,
    EFD_NONBLOCK,
    atomic_add,
    eventfd,
    eventfd_read,
    eventfd_write,
    pthread_mutex_destroy,
    pthread_mutex_init,
    pthread_mutex_lock,
    pthread_mutex_unlock,
)


cdef bint event_queue_init(EventQueue* queue) noexcept nogil:
    queue.first = NULL
    queue.last = NULL
    queue.fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)
    if queue.fd < 0:
        return False
    pthread_mutex_init(&queue.mutex, NULL)
    return True


cdef void event_queue_free(EventQueue* queue) noexcept nogil:
    cdef CallEvent* event = queue.first
    cdef CallEvent* following
    while event is not NULL:
        following = event.next
        call_event_free(event)
        event = following
    queue.first = NULL
    queue.last = NULL
    close(queue.fd)
    pthread_mutex_destroy(&queue.mutex)


cdef bint event_queue_push(
    EventQueue* queue, EventKind kind, CallHandle* handle, uint8_t* data, size_t size, int64_t number,
    int64_t deadline_us,
) noexcept nogil:
    cdef CallEvent* event = <CallEvent*>malloc(sizeof(CallEvent))
    cdef bint was_empty
    if event is NULL:
        free(data)
        return False
    event.next = NULL
    event.kind = kind
    event.handle = handle
    event.data = data
    event.size = size
    event.number = number
    event.deadline_us = deadline_us
    call_handle_hold(handle)
    pthread_mutex_lock(&queue.mutex)
    was_empty = queue.last is NULL
    if was_empty:
        queue.first = event
    else:
        queue.last.next = event
    queue.last = event
    pthread_mutex_unlock(&queue.mutex)
    if was_empty:
        eventfd_write(queue.fd, 1)
    return True


cdef CallEvent* event_queue_take(EventQueue* queue) noexcept nogil:
    cdef CallEvent* first
    cdef uint64_t ignored
    eventfd_read(queue.fd, &ignored)
    pthread_mutex_lock(&queue.mutex)
    first = queue.first
    queue.first = NULL
    queue.last = NULL
    pthread_mutex_unlock(&queue.mutex)
    return first


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
