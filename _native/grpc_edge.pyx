"""The gRPC edge as Python sees it: listening sockets, one GrpcServer on each thread of the data plane, handled calls.

Beginning of a request's line: socket → grpc_edge → HTTP/2 → gRPC. Python makes the listening sockets, since binding
needs no speed and has many ways to fail; it serves the methods that the data plane does not know, see handled_call.

Source: RFC 9113.
"""

import logging

from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint8_t, uint32_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memset

from tensorgate._native.access_tokens cimport AccessTokens, TokenTable
from tensorgate._native.call_events cimport call_events_free
from tensorgate._native.data_plane cimport DataPlane
from tensorgate._native.event_loop cimport loop_call
from tensorgate._native.grpc_acceptor cimport (
    Edge,
    EdgeThread,
    Listener,
    acceptor_listen,
    acceptor_stop_listening,
    listener_new,
)
from tensorgate._native.grpc_call cimport grpc_server_init
from tensorgate._native.grpc_state cimport SPEC_IN_REQUEST, SPEC_IN_TASKS, GrpcLimits, GrpcMethod, GrpcServer
from tensorgate._native.handled_call cimport take_call_events
from tensorgate._native.http2_ages cimport http2_server_drain
from tensorgate._native.http2_connection cimport http2_server_close, http2_server_free, http2_server_open
from tensorgate._native.http2_state cimport Http2Limits
from tensorgate._native.inflater cimport inflater_free
from tensorgate._native.openssl_api cimport SSL_CTX
from tensorgate._native.posix cimport atomic_load
from tensorgate._native.tls_context cimport TlsContext
from tensorgate._native.wake_queue cimport wake_queue_init

from tensorgate._native import nghttp2_api, zlib_api
from tensorgate._native.shared_library import LibraryError

logger = logging.getLogger("tensorgate.grpc")


# --- on the threads ---------------------------------------------------------------------------------------------------


cdef struct Listening:
    Listener* listener
    bint is_done


cdef void _open(void* thread) noexcept nogil:
    http2_server_open(&(<EdgeThread*>thread).server.http2)


cdef void _drain(void* thread) noexcept nogil:
    http2_server_drain(&(<EdgeThread*>thread).server.http2)


cdef void _close(void* thread) noexcept nogil:
    http2_server_close(&(<EdgeThread*>thread).server.http2)


cdef void _listen(void* listening) noexcept nogil:
    (<Listening*>listening).is_done = acceptor_listen((<Listening*>listening).listener)


cdef struct TlsChange:
    EdgeThread* thread
    SSL_CTX* context


cdef void _set_tls(void* change) noexcept nogil:
    (<TlsChange*>change).thread.server.http2.tls = (<TlsChange*>change).context


cdef struct TokensChange:
    EdgeThread* thread
    const TokenTable* table


cdef void _set_tokens(void* change) noexcept nogil:
    (<TokensChange*>change).thread.server.tokens = (<TokensChange*>change).table


cdef void _stop_listening(void* edge) noexcept nogil:
    acceptor_stop_listening(<Edge*>edge)


# --- the edge ---------------------------------------------------------------------------------------------------------


def _load_zlib():
    """Without zlib compressed messages are refused, and all else works."""
    try:
        zlib_api.load_library()
    except LibraryError as error:
        logger.warning("compressed gRPC messages are refused: %s", error)


cdef class GrpcEdge:
    cdef Edge edge
    cdef GrpcMethod* _methods
    cdef size_t _num_methods
    cdef DataPlane _plane
    cdef dict _calls
    cdef bint _has_events
    cdef bint _is_open
    cdef TlsContext _tls
    cdef AccessTokens _tokens

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
        if not wake_queue_init(&self.edge.events):
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
        self._call_all(_open)

    cdef void _call_all(self, void (*run)(void* thread) noexcept nogil):
        """Has each thread run it, and waits for that."""
        cdef int i
        with nogil:
            for i in range(self.edge.num_threads):
                loop_call(self.edge.threads[i].loop, run, &self.edge.threads[i])

    cdef int _take_methods(self, methods) except -1:
        cdef GrpcMethod* method
        cdef bytes encoded
        self._methods = <GrpcMethod*>calloc(len(methods) + 1, sizeof(GrpcMethod))
        if self._methods is NULL:
            raise MemoryError
        for path, number, spec_in_tasks, roles in methods:
            encoded = path.encode("ascii")
            method = &self._methods[self._num_methods]
            method.path = <uint8_t*>malloc(len(encoded) + 1)
            if method.path is NULL:
                raise MemoryError
            memcpy(method.path, <const char*>encoded, len(encoded))
            method.path_size = len(encoded)
            method.number = number
            method.roles = roles
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
            call_events_free(&self.edge.events)
        for i in range(self._num_methods):
            free(self._methods[i].path)
        free(self._methods)

    def listen(self, int fd):
        cdef Listening listening
        if not self._is_open:
            raise ValueError("the edge is closed")
        listening.listener = listener_new(&self.edge, fd)
        if listening.listener is NULL:
            raise MemoryError
        with nogil:
            loop_call(self.edge.threads[0].loop, _listen, &listening)
        if not listening.is_done:
            raise OSError(f"descriptor {fd} cannot be watched")

    def set_tls(self, TlsContext context not None):
        cdef TlsChange change
        cdef int i
        if not self._is_open:
            raise ValueError("the edge is closed")
        change.context = context.context
        with nogil:
            for i in range(self.edge.num_threads):
                change.thread = &self.edge.threads[i]
                loop_call(change.thread.loop, _set_tls, &change)
        # The one before is let go when no thread makes connections of it any more.
        self._tls = context

    def set_tokens(self, AccessTokens tokens not None):
        cdef TokensChange change
        cdef int i
        if not self._is_open:
            raise ValueError("the edge is closed")
        change.table = &tokens.table
        with nogil:
            for i in range(self.edge.num_threads):
                change.thread = &self.edge.threads[i]
                loop_call(change.thread.loop, _set_tokens, &change)
        # As with certificates: no thread reads those before any more.
        self._tokens = tokens

    def stop_listening(self):
        if self._is_open:
            with nogil:
                loop_call(self.edge.threads[0].loop, _stop_listening, &self.edge)

    def drain(self):
        if self._is_open:
            self._call_all(_drain)

    def close(self):
        cdef int i
        if not self._is_open:
            return
        self.stop_listening()
        self._is_open = False
        # A connection that was handed over before this has been adopted by the time: tasks keep their order.
        self._call_all(_close)
        with nogil:
            for i in range(self.edge.num_threads):
                inflater_free(&self.edge.threads[i].server.inflater)

    def take_events(self):
        return take_call_events(&self.edge.events, self._calls)

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
