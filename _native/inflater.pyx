"""Inflates large compressed messages beside an event loop, which meanwhile serves everybody else.

Between a gRPC message's last byte and its method: a few compressed kilobytes can hold megabytes, which take
milliseconds. Messages are submitted and handed back on the loop's thread.

Source: pthreads(7).
"""

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset

from tensorgate._native.event_loop cimport EventLoop, Task, loop_post
from tensorgate._native.compressed_messages cimport inflate_message
from tensorgate._native.posix cimport (
    pthread_cond_destroy,
    pthread_cond_init,
    pthread_cond_signal,
    pthread_cond_wait,
    pthread_create,
    pthread_join,
    pthread_mutex_destroy,
    pthread_mutex_init,
    pthread_mutex_lock,
    pthread_mutex_unlock,
)


cdef void _hand_back(Task* task) noexcept nogil:
    """On the loop's thread."""
    cdef Inflation* inflation = <Inflation*>task.owner
    if inflation.owner is NULL:
        free(inflation.out)
    else:
        inflation.on_done(inflation)
    free(inflation)


cdef void* _thread_main(void* argument) noexcept nogil:
    cdef Inflater* inflater = <Inflater*>argument
    cdef Inflation* inflation
    while True:
        pthread_mutex_lock(&inflater.mutex)
        while inflater.first is NULL and not inflater.is_stopping:
            pthread_cond_wait(&inflater.work, &inflater.mutex)
        if inflater.is_stopping:
            pthread_mutex_unlock(&inflater.mutex)
            return NULL
        inflation = inflater.first
        inflater.first = inflation.next
        pthread_mutex_unlock(&inflater.mutex)
        inflation.result = inflate_message(
            inflation.data, inflation.size, inflation.window_bits, inflation.max_size, &inflation.out,
            &inflation.out_size)
        free(<void*>inflation.data)
        inflation.data = NULL
        loop_post(inflation.loop, &inflation.task)


cdef void inflater_init(Inflater* inflater) noexcept nogil:
    memset(inflater, 0, sizeof(Inflater))
    pthread_mutex_init(&inflater.mutex, NULL)
    pthread_cond_init(&inflater.work, NULL)


cdef Inflation* inflater_submit(
    Inflater* inflater, EventLoop* loop, uint8_t* data, size_t size, int window_bits, size_t max_size,
    void (*on_done)(Inflation*) noexcept nogil, void* owner,
) noexcept nogil:
    cdef Inflation* inflation
    if not inflater.has_thread:
        inflater.has_thread = pthread_create(&inflater.thread, NULL, _thread_main, inflater) == 0
        if not inflater.has_thread:
            return NULL
    inflation = <Inflation*>calloc(1, sizeof(Inflation))
    if inflation is NULL:
        return NULL
    inflation.task.run = _hand_back
    inflation.task.owner = inflation
    inflation.loop = loop
    inflation.data = data
    inflation.size = size
    inflation.window_bits = window_bits
    inflation.max_size = max_size
    inflation.on_done = on_done
    inflation.owner = owner
    pthread_mutex_lock(&inflater.mutex)
    if inflater.first is NULL:
        inflater.first = inflation
    else:
        inflater.last.next = inflation
    inflater.last = inflation
    pthread_mutex_unlock(&inflater.mutex)
    pthread_cond_signal(&inflater.work)
    return inflation


cdef void inflater_free(Inflater* inflater) noexcept nogil:
    cdef Inflation* inflation
    if inflater.has_thread:
        pthread_mutex_lock(&inflater.mutex)
        inflater.is_stopping = True
        pthread_mutex_unlock(&inflater.mutex)
        pthread_cond_signal(&inflater.work)
        pthread_join(inflater.thread, NULL)
    while inflater.first is not NULL:
        inflation = inflater.first
        inflater.first = inflation.next
        free(<void*>inflation.data)
        free(inflation)
    pthread_cond_destroy(&inflater.work)
    pthread_mutex_destroy(&inflater.mutex)
