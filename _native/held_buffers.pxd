"""Buffers of Python's that messages use, and that a thread with the GIL releases once no message does.

In the gateway, under completion_queue: a large payload is sent from where Python has it. A message may go on any
thread, so what it used is put aside there; whoever drains a queue, and data_plane at its end, releases what lies aside.
"""

from cpython.buffer cimport PyBuffer_Release
from libc.stdlib cimport free

from tensorgate._native.posix cimport (
    pthread_mutex_destroy,
    pthread_mutex_init,
    pthread_mutex_lock,
    pthread_mutex_t,
    pthread_mutex_unlock,
)


cdef struct HeldBuffer:
    # On malloc's memory.
    HeldBuffer* next
    HeldBuffers* released   # where it goes when no message needs it any more
    void* queue             # is rung then: whoever drains it has the GIL
    Py_buffer view


cdef struct HeldBuffers:
    # Those that messages no longer need.
    pthread_mutex_t mutex
    HeldBuffer* first


cdef inline void held_buffers_init(HeldBuffers* buffers) noexcept nogil:
    pthread_mutex_init(&buffers.mutex, NULL)
    buffers.first = NULL


cdef inline void held_buffers_free(HeldBuffers* buffers) noexcept nogil:
    """Once they have been released."""
    pthread_mutex_destroy(&buffers.mutex)


cdef inline void put_aside(HeldBuffer* held) noexcept nogil:
    """Any thread; the buffer may be gone afterwards."""
    cdef HeldBuffers* buffers = held.released
    pthread_mutex_lock(&buffers.mutex)
    held.next = buffers.first
    buffers.first = held
    pthread_mutex_unlock(&buffers.mutex)


cdef inline void release_all(HeldBuffers* buffers) noexcept:
    cdef HeldBuffer* held
    cdef HeldBuffer* following
    if buffers.first is NULL:
        return
    pthread_mutex_lock(&buffers.mutex)
    held = buffers.first
    buffers.first = NULL
    pthread_mutex_unlock(&buffers.mutex)
    while held is not NULL:
        following = held.next
        PyBuffer_Release(&held.view)
        free(held)
        held = following
