"""Takes connections off the listening sockets and shares them out among an edge's threads.

Beginning of a request's line: socket → acceptor → HTTP/2 → gRPC. Everything here runs on the edge's first thread; a
connection for another one travels there as a task.

Source: accept4(2).
"""

from libc.errno cimport EAGAIN, EINTR, EMFILE, ENFILE, ENOBUFS, ENOMEM, errno
from libc.stdint cimport int64_t, uint32_t
from libc.stdlib cimport calloc, free, malloc
from posix.unistd cimport close

from tensorgate._native.event_loop cimport (
    Task,
    Timer,
    Watch,
    loop_post,
    loop_unwatch,
    loop_watch,
    timer_cancel,
    timer_init,
    timer_set,
)
from tensorgate._native.http2_connection cimport http2_server_adopt
from tensorgate._native.posix cimport (
    EPOLLIN,
    IPPROTO_TCP,
    SOCK_CLOEXEC,
    SOCK_NONBLOCK,
    TCP_NODELAY,
    accept4,
    atomic_add,
    atomic_load,
    setsockopt,
)


cdef enum:
    MAX_ACCEPTED_PER_TURN = 64
    # Without descriptors the clients wait in the kernel's queue; it is asked again after this.
    ACCEPT_PAUSE_US = 100000


cdef struct Adoption:
    Task task
    EdgeThread* thread
    int fd


cdef void _run_adoption(Task* task) noexcept nogil:
    cdef Adoption* adoption = <Adoption*>task.owner
    http2_server_adopt(&adoption.thread.server.http2, adoption.fd)
    atomic_add(&adoption.thread.num_coming, -1)
    free(adoption)


cdef EdgeThread* _idlest(Edge* edge) noexcept nogil:
    cdef EdgeThread* best = NULL
    cdef EdgeThread* thread
    cdef int64_t fewest = 0, count
    cdef int i
    edge.last_chosen = (edge.last_chosen + 1) % edge.num_threads
    for i in range(edge.num_threads):
        thread = &edge.threads[(edge.last_chosen + i) % edge.num_threads]
        count = atomic_load(&thread.server.http2.num_connections) + atomic_load(&thread.num_coming)
        if best is NULL or count < fewest:
            best = thread
            fewest = count
    return best


cdef void _hand_over(Edge* edge, int fd) noexcept nogil:
    cdef EdgeThread* thread = _idlest(edge)
    cdef Adoption* adoption
    cdef int on = 1
    # Fails on unix sockets, which have no such delay.
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(int))
    if thread is edge.threads:
        http2_server_adopt(&thread.server.http2, fd)
        return
    adoption = <Adoption*>malloc(sizeof(Adoption))
    if adoption is NULL:
        close(fd)
        return
    adoption.task.run = _run_adoption
    adoption.task.owner = adoption
    adoption.thread = thread
    adoption.fd = fd
    atomic_add(&thread.num_coming, 1)
    loop_post(thread.loop, &adoption.task)


cdef void _on_listener_ready(Watch* watch, uint32_t events) noexcept nogil:
    cdef Listener* listener = <Listener*>watch.owner
    cdef Edge* edge = listener.edge
    cdef int fd, _i
    for _i in range(MAX_ACCEPTED_PER_TURN):
        fd = accept4(watch.fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)
        if fd >= 0:
            _hand_over(edge, fd)
            continue
        if errno in (EMFILE, ENFILE, ENOBUFS, ENOMEM):
            # The listener stays ready, so watching it on would only burn a core.
            loop_unwatch(edge.threads[0].loop, watch)
            if not timer_set(
                edge.threads[0].loop, &listener.pause, edge.threads[0].loop.now_us + ACCEPT_PAUSE_US
            ):
                loop_watch(edge.threads[0].loop, watch, EPOLLIN)
            return
        if errno != EINTR and errno != EAGAIN:
            continue  # a client that has gone again
        return


cdef void _end_pause(Timer* timer) noexcept nogil:
    cdef Listener* listener = <Listener*>timer.owner
    loop_watch(listener.edge.threads[0].loop, &listener.watch, EPOLLIN)


cdef void acceptor_stop_listening(Edge* edge) noexcept nogil:
    cdef Listener* listener
    while edge.listeners is not NULL:
        listener = edge.listeners
        edge.listeners = listener.next
        timer_cancel(edge.threads[0].loop, &listener.pause)
        loop_unwatch(edge.threads[0].loop, &listener.watch)
        close(listener.watch.fd)
        free(listener)


cdef Listener* listener_new(Edge* edge, int fd) noexcept nogil:
    cdef Listener* listener = <Listener*>calloc(1, sizeof(Listener))
    if listener is NULL:
        return NULL
    listener.watch.fd = fd
    listener.watch.on_ready = _on_listener_ready
    listener.watch.owner = listener
    listener.edge = edge
    timer_init(&listener.pause, _end_pause, listener)
    return listener


cdef bint acceptor_listen(Listener* listener) noexcept nogil:
    cdef Edge* edge = listener.edge
    if not loop_watch(edge.threads[0].loop, &listener.watch, EPOLLIN):
        free(listener)
        return False
    listener.next = edge.listeners
    edge.listeners = listener
    return True
