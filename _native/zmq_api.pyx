"""Fills the table of libzmq's functions from the libzmq that pyzmq carries.

First thing a process does that has a native data plane. pyzmq's own extension module is opened again with dlopen: a
look-up on its handle also searches the libraries it depends on, which is where libzmq is, whatever the wheel calls it.
Any thread; idempotent, under the GIL.

Source: zmq.h, zmq_getsockopt(3) on ZMQ_FD.
"""

import zmq.backend.cython._zmq as pyzmq_extension

from libc.stddef cimport size_t
from libc.stdlib cimport free
from libc.string cimport memcpy, memset, strlen

from tensorgate._native.shared_library cimport symbol_of, open_library


memset(&zmq, 0, sizeof(ZmqApi))
cdef bint _loaded = False


def load_library():
    global _loaded
    cdef void* handle
    if _loaded:
        return
    handle = open_library(pyzmq_extension.__file__)
    zmq.last_error = <int (*)() noexcept nogil>symbol_of(handle, b"zmq_errno")
    zmq.strerror = <const char* (*)(int) noexcept nogil>symbol_of(handle, b"zmq_strerror")
    zmq.ctx_new = <void* (*)() noexcept nogil>symbol_of(handle, b"zmq_ctx_new")
    zmq.ctx_term = <int (*)(void*) noexcept nogil>symbol_of(handle, b"zmq_ctx_term")
    zmq.socket = <void* (*)(void*, int) noexcept nogil>symbol_of(handle, b"zmq_socket")
    zmq.close = <int (*)(void*) noexcept nogil>symbol_of(handle, b"zmq_close")
    zmq.bind = <int (*)(void*, const char*) noexcept nogil>symbol_of(handle, b"zmq_bind")
    zmq.connect = <int (*)(void*, const char*) noexcept nogil>symbol_of(handle, b"zmq_connect")
    zmq.setsockopt = <int (*)(void*, int, const void*, size_t) noexcept nogil>symbol_of(handle, b"zmq_setsockopt")
    zmq.getsockopt = <int (*)(void*, int, void*, size_t*) noexcept nogil>symbol_of(handle, b"zmq_getsockopt")
    zmq.msg_init = <int (*)(zmq_msg_t*) noexcept nogil>symbol_of(handle, b"zmq_msg_init")
    zmq.msg_init_size = <int (*)(zmq_msg_t*, size_t) noexcept nogil>symbol_of(handle, b"zmq_msg_init_size")
    zmq.msg_init_data = <int (*)(
        zmq_msg_t*, void*, size_t, void (*)(void*, void*) noexcept nogil, void*
    ) noexcept nogil>symbol_of(handle, b"zmq_msg_init_data")
    zmq.msg_close = <int (*)(zmq_msg_t*) noexcept nogil>symbol_of(handle, b"zmq_msg_close")
    zmq.msg_move = <int (*)(zmq_msg_t*, zmq_msg_t*) noexcept nogil>symbol_of(handle, b"zmq_msg_move")
    zmq.msg_send = <int (*)(zmq_msg_t*, void*, int) noexcept nogil>symbol_of(handle, b"zmq_msg_send")
    zmq.msg_recv = <int (*)(zmq_msg_t*, void*, int) noexcept nogil>symbol_of(handle, b"zmq_msg_recv")
    zmq.msg_data = <void* (*)(zmq_msg_t*) noexcept nogil>symbol_of(handle, b"zmq_msg_data")
    zmq.msg_size = <size_t (*)(const zmq_msg_t*) noexcept nogil>symbol_of(handle, b"zmq_msg_size")
    zmq.msg_more = <int (*)(const zmq_msg_t*) noexcept nogil>symbol_of(handle, b"zmq_msg_more")
    _loaded = True


cdef bint set_option(void* socket, int option, int value) noexcept nogil:
    return zmq.setsockopt(socket, option, &value, sizeof(int)) == 0


cdef bint _set_key(void* socket, int option, const char* key) noexcept nogil:
    return zmq.setsockopt(socket, option, key, strlen(key) + 1) == 0


cdef bint use_curve_as_client(void* socket, const char* public_key, const char* secret_key) noexcept nogil:
    return (
        _set_key(socket, ZMQ_CURVE_SERVERKEY, public_key)
        and _set_key(socket, ZMQ_CURVE_PUBLICKEY, public_key)
        and _set_key(socket, ZMQ_CURVE_SECRETKEY, secret_key)
    )


cdef bint use_curve_as_server(void* socket, const char* secret_key) noexcept nogil:
    return set_option(socket, ZMQ_CURVE_SERVER, 1) and _set_key(socket, ZMQ_CURVE_SECRETKEY, secret_key)


cdef void* open_socket(void* context, int kind) noexcept nogil:
    cdef void* socket = zmq.socket(context, kind)
    if socket is NULL:
        return NULL
    if not (
        set_option(socket, ZMQ_LINGER, 0) and set_option(socket, ZMQ_SNDHWM, 0) and set_option(socket, ZMQ_RCVHWM, 0)
    ):
        zmq.close(socket)
        return NULL
    return socket


cdef int socket_fd(void* socket) noexcept nogil:
    cdef int fd = -1
    cdef size_t size = sizeof(int)
    if zmq.getsockopt(socket, ZMQ_FD, &fd, &size) != 0:
        return -1
    return fd


cdef void _free_content(void* data, void* hint) noexcept nogil:
    free(data)


cdef bint message_of_malloc(zmq_msg_t* message, void* data, size_t size) noexcept nogil:
    return zmq.msg_init_data(message, data, size, _free_content, NULL) == 0


cdef bint message_of_copy(zmq_msg_t* message, const void* data, size_t size) noexcept nogil:
    if zmq.msg_init_size(message, size) != 0:
        return False
    if size:
        memcpy(zmq.msg_data(message), data, size)
    return True
