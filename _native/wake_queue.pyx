"""Queues from native threads to Python's event loops, which wait for an eventfd.

Between call_events or completion_queue and the loop that drains them. Only a push to an empty queue wakes the loop, so
that a burst costs one wake-up.

Source: eventfd(2).
"""

from libc.stdint cimport uint64_t
from posix.unistd cimport close

from tensorgate._native.posix cimport (
    EFD_CLOEXEC,
    EFD_NONBLOCK,
    eventfd,
    eventfd_read,
    eventfd_write,
    pthread_mutex_destroy,
    pthread_mutex_init,
    pthread_mutex_lock,
    pthread_mutex_unlock,
)


cdef bint wake_queue_init(WakeQueue* queue) noexcept nogil:
    queue.is_closed = False
    queue.first = NULL
    queue.last = NULL
    queue.fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)
    if queue.fd < 0:
        return False
    pthread_mutex_init(&queue.mutex, NULL)
    return True


cdef void wake_queue_free(WakeQueue* queue) noexcept nogil:
    close(queue.fd)
    pthread_mutex_destroy(&queue.mutex)


cdef bint wake_queue_push(WakeQueue* queue, QueueLink* link) noexcept nogil:
    cdef bint is_open
    pthread_mutex_lock(&queue.mutex)
    is_open = not queue.is_closed
    if is_open:
        link.next = NULL
        if queue.last is NULL:
            queue.first = link
            # With the mutex: whoever drains the queue might else free it before this.
            eventfd_write(queue.fd, 1)
        else:
            queue.last.next = link
        queue.last = link
    pthread_mutex_unlock(&queue.mutex)
    return is_open


cdef QueueLink* _take(WakeQueue* queue, bint closes) noexcept nogil:
    cdef QueueLink* first
    pthread_mutex_lock(&queue.mutex)
    queue.is_closed = queue.is_closed or closes
    first = queue.first
    queue.first = NULL
    queue.last = NULL
    pthread_mutex_unlock(&queue.mutex)
    return first


cdef QueueLink* wake_queue_take(WakeQueue* queue) noexcept nogil:
    cdef uint64_t ignored
    # First: what is pushed after it rings again.
    eventfd_read(queue.fd, &ignored)
    return _take(queue, False)


cdef QueueLink* wake_queue_close(WakeQueue* queue) noexcept nogil:
    return _take(queue, True)
