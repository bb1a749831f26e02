"""A thread that inflates compressed messages for one event loop, one after the other, in order of arrival."""

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t

from tensorgate._native.event_loop cimport EventLoop, Task
from tensorgate._native.compressed_messages cimport InflateResult
from tensorgate._native.posix cimport pthread_cond_t, pthread_mutex_t, pthread_t


cdef struct Inflation:
    # One message; the inflater's until on_done, but for the owner.
    Inflation* next
    Task task
    EventLoop* loop
    const uint8_t* data      # compressed, owned
    size_t size
    int window_bits
    size_t max_size
    InflateResult result
    uint8_t* out             # as inflate_message has it
    size_t out_size
    # On the loop's thread, once; takes out over. Not called when the owner has left.
    void (*on_done)(Inflation* inflation) noexcept nogil
    void* owner              # set to NULL, on the loop's thread, by an owner that leaves


cdef struct Inflater:
    pthread_mutex_t mutex    # guards what follows
    pthread_cond_t work
    Inflation* first
    Inflation* last
    bint is_stopping
    bint has_thread
    pthread_t thread


cdef void inflater_init(Inflater* inflater) noexcept nogil
# Takes data, malloc'd, over. NULL: out of memory or of threads, and data is still the caller's. The thread starts with
# the first message.
cdef Inflation* inflater_submit(
    Inflater* inflater, EventLoop* loop, uint8_t* data, size_t size, int window_bits, size_t max_size,
    void (*on_done)(Inflation*) noexcept nogil, void* owner) noexcept nogil
# Ends the thread; blocks until the message it is at is inflated. What waits is dropped: all owners must have left.
cdef void inflater_free(Inflater* inflater) noexcept nogil
