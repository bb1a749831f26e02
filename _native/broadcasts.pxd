"""Broadcasts to the gateway's native threads."""

from libc.stdint cimport uint64_t

from tensorgate._native.data_thread cimport DataThread
from tensorgate._native.dispatcher_state cimport LineOptions
from tensorgate._native.event_loop cimport Task
from tensorgate._native.posix cimport pthread_cond_t, pthread_mutex_t
from tensorgate._native.route_table cimport RouteSnapshot


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


# Once for each thread; the order stays where it is.
cdef void order_init(Order* order, DataThread* thread) noexcept nogil
# Has every order's thread run it, and waits for that; a thread that does not run yet: at once, here. run and its
# arguments are the caller's to set, all else is set here. One at a time.
cdef void broadcast_to(Broadcast* broadcast, Order* orders, int num_orders) noexcept nogil

# Each is for a broadcast's run, on the thread; what it takes of the arguments follows.
cdef void use_routes(DataThread* thread, Broadcast* broadcast) noexcept nogil  # routes
cdef void add_line(DataThread* thread, Broadcast* broadcast) noexcept nogil  # line; sets failed
cdef void remove_line(DataThread* thread, Broadcast* broadcast) noexcept nogil  # number, cause
# The limits of its requests have changed.
cdef void use_limits(DataThread* thread, Broadcast* broadcast) noexcept nogil
cdef void close_dispatcher(DataThread* thread, Broadcast* broadcast) noexcept nogil
# Whatever the thread was at has ended.
cdef void do_nothing(DataThread* thread, Broadcast* broadcast) noexcept nogil
