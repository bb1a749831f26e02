"""Broadcasts to the gateway's native threads: what each of them is to do once, between two turns of its loop.

Beside a request's line: how data_plane has routes and lines change under running threads. The giver waits, without the
GIL, until every thread has done it.
"""

from libc.stdint cimport uint8_t
from libc.string cimport strlen

from tensorgate._native.dispatcher cimport dispatcher_add_line, dispatcher_close, dispatcher_remove_line
from tensorgate._native.dispatcher_state cimport Line
from tensorgate._native.event_loop cimport Task, loop_post
from tensorgate._native.posix cimport (
    pthread_cond_destroy,
    pthread_cond_init,
    pthread_cond_signal,
    pthread_cond_wait,
    pthread_mutex_destroy,
    pthread_mutex_init,
    pthread_mutex_lock,
    pthread_mutex_unlock,
)
from tensorgate._native.request_queue cimport use_weights
from tensorgate._native.request_route cimport hand_waiting


cdef void _obey(Task* task) noexcept nogil:
    cdef Order* order = <Order*>task.owner
    cdef Broadcast* broadcast = order.broadcast
    broadcast.run(order.thread, broadcast)
    pthread_mutex_lock(&broadcast.mutex)
    broadcast.num_left -= 1
    if broadcast.num_left == 0:
        pthread_cond_signal(&broadcast.done)
    # Its giver goes on, and the broadcast with it, once the mutex is free.
    pthread_mutex_unlock(&broadcast.mutex)


cdef void order_init(Order* order, DataThread* thread) noexcept nogil:
    order.thread = thread
    order.task.owner = order
    order.task.run = _obey


cdef void broadcast_to(Broadcast* broadcast, Order* orders, int num_orders) noexcept nogil:
    cdef int i
    broadcast.num_left = num_orders
    pthread_mutex_init(&broadcast.mutex, NULL)
    pthread_cond_init(&broadcast.done, NULL)
    for i in range(num_orders):
        orders[i].broadcast = broadcast
    for i in range(num_orders):
        if orders[i].thread.loop.is_running:
            loop_post(&orders[i].thread.loop, &orders[i].task)
        else:
            _obey(&orders[i].task)
    pthread_mutex_lock(&broadcast.mutex)
    while broadcast.num_left:
        pthread_cond_wait(&broadcast.done, &broadcast.mutex)
    pthread_mutex_unlock(&broadcast.mutex)
    pthread_cond_destroy(&broadcast.done)
    pthread_mutex_destroy(&broadcast.mutex)


# --- what can be broadcast --------------------------------------------------------------------------------------------


cdef void use_routes(DataThread* thread, Broadcast* broadcast) noexcept nogil:
    thread.dispatcher.routes = broadcast.routes


cdef void add_line(DataThread* thread, Broadcast* broadcast) noexcept nogil:
    if not dispatcher_add_line(&thread.dispatcher, broadcast.line):
        broadcast.failed = True


cdef void remove_line(DataThread* thread, Broadcast* broadcast) noexcept nogil:
    dispatcher_remove_line(
        &thread.dispatcher, broadcast.number, <const uint8_t*>broadcast.cause, strlen(broadcast.cause))


cdef void use_limits(DataThread* thread, Broadcast* broadcast) noexcept nogil:
    cdef Line* line = thread.dispatcher.lines
    while line is not NULL:
        use_weights(line)
        hand_waiting(line)
        line = line.next


cdef void close_dispatcher(DataThread* thread, Broadcast* broadcast) noexcept nogil:
    dispatcher_close(&thread.dispatcher)


cdef void do_nothing(DataThread* thread, Broadcast* broadcast) noexcept nogil:
    pass
