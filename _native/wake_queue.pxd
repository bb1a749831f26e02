"""A queue in C between threads, with a descriptor that can be read while there may be something in it; any thread."""

from tensorgate._native.posix cimport pthread_mutex_t


cdef struct QueueLink:
    # The first member of whatever is queued.
    QueueLink* next


cdef struct WakeQueue:
    int fd                 # eventfd
    pthread_mutex_t mutex  # guards the rest
    bint is_closed
    QueueLink* first
    QueueLink* last


# False: out of descriptors.
cdef bint wake_queue_init(WakeQueue* queue) noexcept nogil
# For an empty queue that nobody pushes to any more.
cdef void wake_queue_free(WakeQueue* queue) noexcept nogil
# Takes the link over. False: the queue is closed, and the link stays the caller's.
cdef bint wake_queue_push(WakeQueue* queue, QueueLink* link) noexcept nogil
# All that is there, in the order of pushing; the caller's.
cdef QueueLink* wake_queue_take(WakeQueue* queue) noexcept nogil
# The same, and nothing is taken over from now on.
cdef QueueLink* wake_queue_close(WakeQueue* queue) noexcept nogil
