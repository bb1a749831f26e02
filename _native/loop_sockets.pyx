"""What the data loop hears from: its ZeroMQ sockets, the listener of direct links, the bell of what has run.

Opened when a DataLoop is made and closed at its end, both while the loop's thread does not run.

Source: zmq_getsockopt(3) on ZMQ_FD, zmq_setsockopt(3), eventfd(2).
"""

import os

from libc.errno cimport errno
from libc.stdint cimport uint32_t, uint64_t
from posix.unistd cimport close

from tensorgate._native.event_loop cimport Watch, loop_watch
from tensorgate._native.frame_stream cimport listen_on_path
from tensorgate._native.loop_links cimport links_listen
from tensorgate._native.loop_state cimport LoopState
from tensorgate._native.posix cimport EFD_CLOEXEC, EFD_NONBLOCK, EPOLLIN, eventfd, eventfd_read
from tensorgate._native.zmq_api cimport (
    ZMQ_LINGER,
    ZMQ_PULL,
    ZMQ_ROUTER,
    ZMQ_ROUTER_MANDATORY,
    ZMQ_SNDHWM,
    open_socket,
    set_option,
    socket_fd,
    use_curve_as_server,
    zmq,
)


cdef enum:
    # Replies handed to ZeroMQ may take that long to leave once the sockets are closed.
    LINGER_MS = 1000


cdef void _on_data(Watch* watch, uint32_t events) noexcept nogil:
    (<LoopState*>watch.owner).data_may_have = True


cdef void _on_cancels(Watch* watch, uint32_t events) noexcept nogil:
    (<LoopState*>watch.owner).cancels_may_have = True


cdef void _on_done(Watch* watch, uint32_t events) noexcept nogil:
    cdef uint64_t ignored
    eventfd_read(watch.fd, &ignored)  # the hook does the rest


cdef _zmq_error(str endpoint=""):
    text = zmq.strerror(zmq.last_error()).decode()
    return OSError(zmq.last_error(), f"{endpoint}: {text}" if endpoint else text)


cdef void* _open(void* context, int kind) except NULL:
    cdef void* socket = open_socket(context, kind)
    if socket is NULL:
        raise _zmq_error()
    return socket


cdef int _bind(void* socket, str endpoint) except -1:
    encoded = endpoint.encode()
    if zmq.bind(socket, <const char*><bytes>encoded) != 0:
        raise _zmq_error(endpoint)
    return 0


cdef int _watch(
    LoopState* state, Watch* watch, int fd, void (*on_ready)(Watch*, uint32_t) noexcept nogil,
) except -1:
    watch.fd = fd
    watch.on_ready = on_ready
    watch.owner = state
    if fd < 0 or not loop_watch(&state.loop, watch, EPOLLIN):
        raise OSError("the data loop has no descriptors: too many open files?")
    return 0


cdef void init_sockets(LoopState* state) noexcept nogil:
    state.done_watch.fd = -1
    state.listener.fd = -1


cdef int open_sockets(
    LoopState* state, void* context, str data_endpoint, str cancel_endpoint, int send_high_water_mark,
    bytes secret_key,
) except -1:
    state.data = _open(context, ZMQ_ROUTER)
    state.cancels = _open(context, ZMQ_PULL)
    if not (
        set_option(state.data, ZMQ_ROUTER_MANDATORY, 1)
        and set_option(state.data, ZMQ_SNDHWM, send_high_water_mark)
    ):
        raise _zmq_error()
    if secret_key and not (
        use_curve_as_server(state.data, secret_key) and use_curve_as_server(state.cancels, secret_key)
    ):
        raise ValueError("the key is none of CURVE, or libzmq has no CURVE")
    _bind(state.data, data_endpoint)
    _bind(state.cancels, cancel_endpoint)
    _watch(state, &state.data_watch, socket_fd(state.data), _on_data)
    _watch(state, &state.cancels_watch, socket_fd(state.cancels), _on_cancels)
    _watch(state, &state.done_watch, eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC), _on_done)
    return 0


cdef int open_listener(LoopState* state, str path) except -1:
    cdef bytes encoded = os.fsencode(path)
    cdef int fd = listen_on_path(encoded)
    if fd < 0:
        raise OSError(errno, f"{path}: {os.strerror(errno)}")
    if not links_listen(state, fd):
        raise OSError("the data loop has no descriptors: too many open files?")
    return 0


cdef void close_sockets(LoopState* state) noexcept nogil:
    if state.done_watch.fd >= 0:
        close(state.done_watch.fd)
        state.done_watch.fd = -1
    if state.data is not NULL:
        set_option(state.data, ZMQ_LINGER, LINGER_MS)
        zmq.close(state.data)
        state.data = NULL
    if state.cancels is not NULL:
        zmq.close(state.cancels)
        state.cancels = NULL
