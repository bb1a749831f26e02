"""The part of libzmq that the data plane uses, as a table of function pointers; declarations only.

Filled by zmq_api.load_library from the libzmq that pyzmq carries, so native threads and Python share one library and
may share a context. Every function may be called without the GIL. Contexts and messages may cross threads; a socket
belongs to one thread at a time. Errors are told by the return value; ``zmq.last_error()`` then says which.

Source: zmq.h of libzmq 4.3 (declared here by hand: no header is needed to build).
"""

from libc.stddef cimport size_t

cdef extern from *:
    """
    #ifndef TENSORGATE_ZMQ_API_TYPES
    #define TENSORGATE_ZMQ_API_TYPES
    /* 64 bytes, aligned as a pointer; only ever touched through the zmq_msg functions. */
    typedef struct { void* raw[64 / sizeof(void*)]; } zmq_msg_t;
    #endif
    """
    ctypedef struct zmq_msg_t:
        pass

cdef enum:
    ZMQ_PUSH = 8
    ZMQ_PULL = 7
    ZMQ_DEALER = 5
    ZMQ_ROUTER = 6
    # Socket options.
    ZMQ_FD = 14
    ZMQ_LINGER = 17
    ZMQ_RECONNECT_IVL = 18
    ZMQ_SNDHWM = 23
    ZMQ_RCVHWM = 24
    ZMQ_LAST_ENDPOINT = 32
    ZMQ_ROUTER_MANDATORY = 33
    ZMQ_CURVE_SERVER = 47
    ZMQ_CURVE_PUBLICKEY = 48
    ZMQ_CURVE_SECRETKEY = 49
    ZMQ_CURVE_SERVERKEY = 50
    # Flags of sending and receiving.
    ZMQ_DONTWAIT = 1
    ZMQ_SNDMORE = 2

cdef struct ZmqApi:
    int (*last_error)() noexcept nogil
    const char* (*strerror)(int) noexcept nogil
    void* (*ctx_new)() noexcept nogil
    int (*ctx_term)(void* context) noexcept nogil
    void* (*socket)(void* context, int kind) noexcept nogil
    int (*close)(void* socket) noexcept nogil
    int (*bind)(void* socket, const char* endpoint) noexcept nogil
    int (*connect)(void* socket, const char* endpoint) noexcept nogil
    int (*setsockopt)(void* socket, int option, const void* value, size_t size) noexcept nogil
    int (*getsockopt)(void* socket, int option, void* value, size_t* size) noexcept nogil
    int (*msg_init)(zmq_msg_t*) noexcept nogil
    int (*msg_init_size)(zmq_msg_t*, size_t) noexcept nogil
    # release(data, hint) is called once, on whatever thread drops the last reference.
    int (*msg_init_data)(
        zmq_msg_t*, void* data, size_t size, void (*release)(void* data, void* hint) noexcept nogil,
        void* hint) noexcept nogil
    int (*msg_close)(zmq_msg_t*) noexcept nogil
    int (*msg_move)(zmq_msg_t* to, zmq_msg_t* source) noexcept nogil
    # The number of bytes, or -1. Then the message stays the caller's; else it is the socket's, and empty here.
    int (*msg_send)(zmq_msg_t*, void* socket, int flags) noexcept nogil
    int (*msg_recv)(zmq_msg_t*, void* socket, int flags) noexcept nogil
    void* (*msg_data)(zmq_msg_t*) noexcept nogil
    size_t (*msg_size)(const zmq_msg_t*) noexcept nogil
    int (*msg_more)(const zmq_msg_t*) noexcept nogil

cdef ZmqApi zmq

# A socket without high-water marks and lingering: the callers' own bounds decide. NULL: see zmq.last_error().
cdef void* open_socket(void* context, int kind) noexcept nogil
cdef bint set_option(void* socket, int option, int value) noexcept nogil
# CURVE, before the socket connects or is bound: keys as text, one pair for both sides. False: they are no keys.
cdef bint use_curve_as_client(void* socket, const char* public_key, const char* secret_key) noexcept nogil
cdef bint use_curve_as_server(void* socket, const char* secret_key) noexcept nogil
# The descriptor behind ZMQ_FD: edge-triggered, to be watched for reading only; -1 on failure.
cdef int socket_fd(void* socket) noexcept nogil
# A message whose content is the malloc'd data, to be freed with it; False leaves data the caller's.
cdef bint message_of_malloc(zmq_msg_t* message, void* data, size_t size) noexcept nogil
# A message with a copy of the bytes.
cdef bint message_of_copy(zmq_msg_t* message, const void* data, size_t size) noexcept nogil
