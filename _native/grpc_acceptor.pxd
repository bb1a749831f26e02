"""Accepts connections on the first thread of an edge and hands each to the thread that has the fewest."""

from libc.stdint cimport int64_t

from tensorgate._native.event_loop cimport EventLoop, Timer, Watch
from tensorgate._native.grpc_state cimport Budget, GrpcServer
from tensorgate._native.wake_queue cimport WakeQueue

cdef struct Edge


cdef struct EdgeThread:
    GrpcServer server
    EventLoop* loop
    int64_t num_coming   # atomic: connections on their way to it


cdef struct Listener:
    # A listening socket; owned, as is its descriptor.
    Watch watch
    Timer pause
    Edge* edge
    Listener* next


cdef struct Edge:
    EdgeThread* threads
    int num_threads
    int last_chosen
    Listener* listeners   # the first thread's
    Budget budget
    WakeQueue events


# A zeroed listener for a listening, non-blocking stream socket, which it takes over once it listens.
# NULL: out of memory.
cdef Listener* listener_new(Edge* edge, int fd) noexcept nogil
# On the first thread's loop, as what follows. False: the descriptor cannot be watched, and the listener is freed.
cdef bint acceptor_listen(Listener* listener) noexcept nogil
# Closes all listening sockets.
cdef void acceptor_stop_listening(Edge* edge) noexcept nogil
