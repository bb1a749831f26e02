"""The gRPC edge as Python sees it: listening sockets, one GrpcServer on each thread of the data plane, handled calls.

Beginning of a request's line: socket → grpc_edge → HTTP/2 → gRPC. The first thread accepts for all, and hands each
connection to the thread with the fewest. Python makes the listening sockets, since binding needs no speed and has many
ways to fail; it serves the methods that the data plane does not know through events and HandledCall.

Source: accept4(2); RFC 9113.
"""

import logging

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.errno cimport EAGAIN, EINTR, EMFILE, ENFILE, ENOBUFS, ENOMEM, errno
from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memset
from posix.unistd cimport close

from tensorgate._native cimport call_events
from tensorgate._native.call_events cimport (
    CallEvent,
    CallHandle,
    EventQueue,
    call_event_free,
    call_handle_hold,
    call_handle_release,
    event_queue_free,
    event_queue_init,
    event_queue_take,
)
from tensorgate._native.data_plane cimport DataPlane
from tensorgate._native.event_loop cimport (
    EventLoop,
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
from tensorgate._native.grpc_call cimport (
    SPEC_IN_REQUEST,
    SPEC_IN_TASKS,
    Budget,
    GrpcCall,
    GrpcLimits,
    GrpcMethod,
    GrpcServer,
    grpc_call_acknowledge,
    grpc_call_finish,
    grpc_call_send,
    grpc_server_init,
)
from tensorgate._native.http2_connection cimport (
    Http2Limits,
    http2_server_adopt,
    http2_server_close,
    http2_server_drain,
    http2_server_free,
    http2_server_open,
)
from tensorgate._native.posix cimport (
    EFD_CLOEXEC,
    EPOLLIN,
    IPPROTO_TCP,
    SOCK_CLOEXEC,
    SOCK_NONBLOCK,
    TCP_NODELAY,
    accept4,
    atomic_add,
    atomic_load,
    eventfd,
    eventfd_read,
    eventfd_write,
    setsockopt,
)

from tensorgate._native import nghttp2_api, zlib_api

logger = logging.getLogger("tensorgate.grpc")

EVENT_START = call_events.EVENT_START
EVENT_MESSAGE = call_events.EVENT_MESSAGE
EVENT_END = call_events.EVENT_END
EVENT_DRAINED = call_events.EVENT_DRAINED
EVENT_CLOSED = call_events.EVENT_CLOSED


cdef enum:
    MAX_ACCEPTED_PER_TURN = 64
    # Without descriptors the clients wait in the kernel's queue; it is asked again after this.
    ACCEPT_PAUSE_US = 100000


cdef struct EdgeThread:
    GrpcServer server
    EventLoop* loop
    int64_t num_coming   # atomic: connections on their way to it


cdef struct Listener:
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
    EventQueue events


# --- accepting, on the first thread -----------------------------------------------------------------------------------


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


cdef void _close_listeners(Edge* edge) noexcept nogil:
    cdef Listener* listener
    while edge.listeners is not NULL:
        listener = edge.listeners
        edge.listeners = listener.next
        timer_cancel(edge.threads[0].loop, &listener.pause)
        loop_unwatch(edge.threads[0].loop, &listener.watch)
        close(listener.watch.fd)
        free(listener)


# --- orders to threads ------------------------------------------------------------------------------------------------


cdef enum Order:
    ORDER_OPEN = 1
    ORDER_LISTEN = 2
    ORDER_STOP_LISTENING = 3
    ORDER_DRAIN = 4
    ORDER_CLOSE = 5


cdef struct OrderTask:
    Task task
    Order order
    Edge* edge
    EdgeThread* thread
    Listener* listener
    bint is_done
    int done_fd     # a blocking eventfd: the order has been carried out


cdef void _carry_out(Task* task) noexcept nogil:
    cdef OrderTask* order = <OrderTask*>task.owner
    if order.order == ORDER_OPEN:
        http2_server_open(&order.thread.server.http2)
    elif order.order == ORDER_LISTEN:
        order.is_done = loop_watch(order.thread.loop, &order.listener.watch, EPOLLIN)
        if order.is_done:
            order.listener.next = order.edge.listeners
            order.edge.listeners = order.listener
    elif order.order == ORDER_STOP_LISTENING:
        _close_listeners(order.edge)
    elif order.order == ORDER_DRAIN:
        http2_server_drain(&order.thread.server.http2)
    else:
        http2_server_close(&order.thread.server.http2)
    eventfd_write(order.done_fd, 1)


cdef bint _give_order(Edge* edge, int thread, Order what, Listener* listener) except -1:
    """Has a thread carry out an order, and waits until it has."""
    cdef OrderTask order
    cdef uint64_t ignored
    memset(&order, 0, sizeof(OrderTask))
    order.task.run = _carry_out
    order.task.owner = &order
    order.order = what
    order.edge = edge
    order.thread = &edge.threads[thread]
    order.listener = listener
    order.is_done = True
    order.done_fd = eventfd(0, EFD_CLOEXEC)
    if order.done_fd < 0:
        raise OSError("eventfd failed: too many open files?")
    with nogil:
        loop_post(order.thread.loop, &order.task)
        while eventfd_read(order.done_fd, &ignored) != 0:
            pass  # interrupted by a signal
        close(order.done_fd)
    return order.is_done


# --- calls that Python serves -----------------------------------------------------------------------------------------


cdef enum CommandKind:
    COMMAND_SEND = 1
    COMMAND_FINISH = 2
    COMMAND_ACKNOWLEDGE = 3


cdef struct Command:
    Task task
    CommandKind kind
    CallHandle* handle
    uint8_t* data
    size_t size
    int code
    bint reports


cdef void _run_command(Task* task) noexcept nogil:
    cdef Command* command = <Command*>task.owner
    cdef GrpcCall* call = <GrpcCall*>command.handle.call
    if call is not NULL:
        if command.kind == COMMAND_SEND:
            grpc_call_send(call, command.data, command.size, command.reports)
            command.data = NULL
        elif command.kind == COMMAND_FINISH:
            grpc_call_finish(call, command.code, command.data, command.size)
        else:
            grpc_call_acknowledge(call, command.size)
    free(command.data)
    call_handle_release(command.handle)
    free(command)


cdef int _post_command(
    CallHandle* handle, CommandKind kind, uint8_t* data, size_t size, int code, bint reports,
) except -1:
    """Takes data over."""
    cdef Command* command = <Command*>malloc(sizeof(Command))
    if command is NULL:
        free(data)
        raise MemoryError
    command.task.run = _run_command
    command.task.owner = command
    command.kind = kind
    command.handle = handle
    command.data = data
    command.size = size
    command.code = code
    command.reports = reports
    call_handle_hold(handle)
    loop_post(handle.loop, &command.task)
    return 0


cdef class HandledCall:
    cdef CallHandle* _handle
    cdef bint _is_over
    cdef readonly int64_t method
    cdef readonly list metadata
    cdef readonly int64_t deadline_us

    def __dealloc__(self):
        if self._handle is not NULL:
            call_handle_release(self._handle)

    def send(self, message, bint reports=False):
        cdef Py_buffer buffer
        cdef uint8_t* data
        cdef size_t size
        if self._is_over or self._handle is NULL:
            return
        PyObject_GetBuffer(message, &buffer, PyBUF_SIMPLE)
        size = <size_t>buffer.len
        data = <uint8_t*>malloc(size if size else 1)
        if data is not NULL:
            memcpy(data, buffer.buf, size)
        PyBuffer_Release(&buffer)
        if data is NULL:
            raise MemoryError
        _post_command(self._handle, COMMAND_SEND, data, size, 0, reports)

    def finish(self, int code, bytes message=b""):
        cdef size_t size = len(message)
        cdef uint8_t* data = NULL
        if self._is_over or self._handle is NULL:
            return
        if size:
            data = <uint8_t*>malloc(size)
            if data is NULL:
                raise MemoryError
            memcpy(data, <const char*>message, size)
        _post_command(self._handle, COMMAND_FINISH, data, size, code, False)

    def acknowledge(self, size_t size):
        if not self._is_over and self._handle is not NULL:
            _post_command(self._handle, COMMAND_ACKNOWLEDGE, NULL, size, 0, False)


def _load_zlib():
    """Without zlib compressed messages are refused, and all else works."""
    try:
        zlib_api.load_library()
    except zlib_api.LibraryError as error:
        logger.warning("gRPC messages compressed with gzip are refused: %s", error)


cdef list _read_metadata(const CallEvent* event):
    cdef list metadata = []
    cdef uint32_t[2] sizes
    cdef size_t at = 0
    # Written by grpc_call: sizes are right.
    while at + 8 <= event.size:
        memcpy(sizes, event.data + at, 8)
        at += 8
        metadata.append((
            PyBytes_FromStringAndSize(<const char*>event.data + at, sizes[0]),
            PyBytes_FromStringAndSize(<const char*>event.data + at + sizes[0], sizes[1]),
        ))
        at += <size_t>sizes[0] + sizes[1]
    return metadata


# --- the edge ---------------------------------------------------------------------------------------------------------


cdef class GrpcEdge:
    cdef Edge edge
    cdef GrpcMethod* _methods
    cdef size_t _num_methods
    cdef DataPlane _plane
    cdef dict _calls
    cdef bint _has_events
    cdef bint _is_open

    def __cinit__(
        self, DataPlane plane not None, methods, *, size_t max_message_size, bint compress_replies=False,
        int64_t max_held_bytes, size_t max_unsent_bytes, uint32_t max_concurrent_streams,
        uint32_t max_header_list_size, int stream_window, int connection_window, int64_t max_connection_age_us=-1,
        int64_t max_connection_age_grace_us=-1, int64_t max_connection_idle_us=-1, int64_t keepalive_time_us=-1,
        int64_t keepalive_timeout_us=20000000,
    ):
        cdef Http2Limits http2_limits
        cdef GrpcLimits limits
        cdef EdgeThread* thread
        cdef int i
        nghttp2_api.load_library()
        _load_zlib()
        if max_message_size > 0xFFFFFFFF or stream_window < 65535 or connection_window < 65535:
            raise ValueError("messages have at most 4 GiB, windows at least 65,535 bytes")
        memset(&self.edge, 0, sizeof(Edge))
        if not plane._is_started or plane.is_closed:
            raise ValueError("the plane's threads must be running")
        self._calls = {}
        self._plane = plane
        self._take_methods(methods)
        self.edge.budget.limit = max_held_bytes
        if not event_queue_init(&self.edge.events):
            raise OSError("eventfd failed: too many open files?")
        self._has_events = True
        http2_limits.max_concurrent_streams = max_concurrent_streams
        http2_limits.max_header_list_size = max_header_list_size
        http2_limits.stream_window = stream_window
        http2_limits.connection_window = connection_window
        http2_limits.max_connection_age_us = max_connection_age_us
        http2_limits.max_connection_age_grace_us = max_connection_age_grace_us
        http2_limits.max_connection_idle_us = max_connection_idle_us
        http2_limits.keepalive_time_us = keepalive_time_us
        http2_limits.keepalive_timeout_us = keepalive_timeout_us
        http2_limits.max_unsent_bytes = max_unsent_bytes
        limits.max_message_size = max_message_size
        limits.compress_replies = compress_replies
        self.edge.threads = <EdgeThread*>calloc(plane.num_threads, sizeof(EdgeThread))
        if self.edge.threads is NULL:
            raise MemoryError
        for i in range(plane.num_threads):
            thread = &self.edge.threads[i]
            thread.loop = &plane.threads[i].loop
            if not grpc_server_init(&thread.server, thread.loop, &plane.threads[i].dispatcher, &http2_limits, &limits):
                raise MemoryError
            thread.server.methods = self._methods
            thread.server.num_methods = self._num_methods
            thread.server.budget = &self.edge.budget
            thread.server.events = &self.edge.events
            self.edge.num_threads += 1
        self._is_open = True
        for i in range(plane.num_threads):
            _give_order(&self.edge, i, ORDER_OPEN, NULL)

    cdef int _take_methods(self, methods) except -1:
        cdef GrpcMethod* method
        cdef bytes encoded
        self._methods = <GrpcMethod*>calloc(len(methods) + 1, sizeof(GrpcMethod))
        if self._methods is NULL:
            raise MemoryError
        for path, number, spec_in_tasks in methods:
            encoded = path.encode("ascii")
            method = &self._methods[self._num_methods]
            method.path = <uint8_t*>malloc(len(encoded) + 1)
            if method.path is NULL:
                raise MemoryError
            memcpy(method.path, <const char*>encoded, len(encoded))
            method.path_size = len(encoded)
            method.number = number
            method.spec_place = SPEC_IN_TASKS if spec_in_tasks else SPEC_IN_REQUEST
            self._num_methods += 1
        return 0

    def __del__(self):
        self.close()

    def __dealloc__(self):
        cdef size_t i
        for i in range(<size_t>self.edge.num_threads):
            http2_server_free(&self.edge.threads[i].server.http2)
        free(self.edge.threads)
        if self._has_events:
            event_queue_free(&self.edge.events)
        for i in range(self._num_methods):
            free(self._methods[i].path)
        free(self._methods)

    def listen(self, int fd):
        cdef Listener* listener
        if not self._is_open:
            raise ValueError("the edge is closed")
        listener = <Listener*>calloc(1, sizeof(Listener))
        if listener is NULL:
            raise MemoryError
        listener.watch.fd = fd
        listener.watch.on_ready = _on_listener_ready
        listener.watch.owner = listener
        listener.edge = &self.edge
        timer_init(&listener.pause, _end_pause, listener)
        try:
            if not _give_order(&self.edge, 0, ORDER_LISTEN, listener):
                raise OSError(f"descriptor {fd} cannot be watched")
        except OSError:
            free(listener)
            raise

    def stop_listening(self):
        if self._is_open:
            _give_order(&self.edge, 0, ORDER_STOP_LISTENING, NULL)

    def drain(self):
        if self._is_open:
            for i in range(self.edge.num_threads):
                _give_order(&self.edge, i, ORDER_DRAIN, NULL)

    def close(self):
        if not self._is_open:
            return
        self._is_open = False
        _give_order(&self.edge, 0, ORDER_STOP_LISTENING, NULL)
        # A connection that was handed over before this has been adopted by the time: tasks keep their order.
        for i in range(self.edge.num_threads):
            _give_order(&self.edge, i, ORDER_CLOSE, NULL)

    def take_events(self):
        cdef CallEvent* event = event_queue_take(&self.edge.events)
        cdef CallEvent* following
        cdef HandledCall call
        cdef list taken = []
        while event is not NULL:
            following = event.next
            key = <size_t>event.handle
            if event.kind == call_events.EVENT_START:
                call = HandledCall.__new__(HandledCall)
                call_handle_hold(event.handle)
                call._handle = event.handle
                call.method = event.number
                call.metadata = _read_metadata(event)
                call.deadline_us = event.deadline_us
                self._calls[key] = call
                taken.append((<int>event.kind, call, b""))
            else:
                call = self._calls[key]
                if event.kind == call_events.EVENT_CLOSED:
                    call._is_over = True
                    del self._calls[key]
                taken.append((
                    <int>event.kind, call, PyBytes_FromStringAndSize(<const char*>event.data, <Py_ssize_t>event.size)
                    if event.size else b""))
            call_event_free(event)
            event = following
        return taken

    @property
    def event_fd(self):
        return self.edge.events.fd

    @property
    def num_connections(self):
        cdef int i
        return sum(
            [atomic_load(&self.edge.threads[i].server.http2.num_connections) for i in range(self.edge.num_threads)])

    @property
    def num_calls(self):
        cdef int i
        return sum([atomic_load(&self.edge.threads[i].server.http2.num_streams) for i in range(self.edge.num_threads)])

    @property
    def held_bytes(self):
        return atomic_load(&self.edge.budget.held)

    @property
    def counters(self):
        cdef GrpcServer* server
        totals = {}
        for i in range(self.edge.num_threads):
            server = &self.edge.threads[i].server
            for counters in (server.http2.counters, server.counters):
                for name, count in counters.items():
                    totals[name] = totals.get(name, 0) + count
        return totals
