"""The gateway's native threads as the control plane and the edges see them: one event loop and one dispatcher each."""

from libc.stdint cimport int64_t, uint64_t

from tensorgate._native.dispatcher_state cimport Dispatcher, LineOptions
from tensorgate._native.event_loop cimport EventLoop, Task
from tensorgate._native.posix cimport pthread_cond_t, pthread_mutex_t
from tensorgate._native.request_memory cimport RequestMemory
from tensorgate._native.route_table cimport PublishedVersion, RouteSnapshot, Routes


cdef struct HeldBuffers


cdef struct DataThread:
    int index
    EventLoop loop
    Dispatcher dispatcher  # its routes are the snapshot in use: NULL before the first


cdef struct Broadcast:
    # Something that every thread is to do, and that its giver waits for.
    pthread_mutex_t mutex
    pthread_cond_t done
    int num_left
    bint failed
    void (*run)(DataThread* thread, Broadcast* broadcast) noexcept nogil
    # Arguments of one or the other.
    const RouteSnapshot* routes
    const LineOptions* line
    uint64_t number
    const char* cause


cdef struct Order:
    # A broadcast on its way to one thread.
    Task task
    DataThread* thread
    Broadcast* broadcast


cdef struct HeldBuffer:
    # A buffer of Python's that a message uses, see completion_queue.
    HeldBuffer* next
    HeldBuffers* released   # where it goes when no message needs it any more
    void* queue             # is rung then: whoever drains it has the GIL
    Py_buffer view


cdef struct HeldBuffers:
    # Those that messages no longer need, for a thread with the GIL to release.
    pthread_mutex_t mutex
    HeldBuffer* first


cdef class DataPlane:
    # Edges reach a thread by index: &plane.threads[i]. Its loop runs from start to close; tasks that are posted to it
    # after close are not run. An edge stops before the plane is closed.
    cdef DataThread* threads
    cdef readonly int num_threads
    cdef Order* _orders
    cdef void* _context
    cdef HeldBuffers _held
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
    cdef void _release_buffers(self)
    cdef void _post(self, DataThread* thread, Task* task)
    cdef void _tear_down(self)
    cdef void _forget_counter(self, uint64_t number)
