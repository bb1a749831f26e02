"""The part of OpenSSL that the gRPC edge uses, as a table of function pointers; declarations only.

Filled by openssl_api.load_library. A context may be used by many threads once it has been set up, a connection (SSL)
belongs to one; no function needs the GIL.

Source: openssl/ssl.h, openssl/err.h of OpenSSL 1.1.1 and 3 (declared here by hand: no header is needed to build). There
SSL_CTX_set_mode and SSL_CTX_set_min_proto_version are macros for SSL_CTX_ctrl.
"""

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint64_t

cdef extern from *:
    """
    #ifndef TENSORGATE_OPENSSL_TYPES
    #define TENSORGATE_OPENSSL_TYPES
    typedef struct ssl_st SSL;
    typedef struct ssl_ctx_st SSL_CTX;
    typedef struct ssl_method_st SSL_METHOD;
    #endif
    """
    ctypedef struct SSL:
        pass
    ctypedef struct SSL_CTX:
        pass
    ctypedef struct SSL_METHOD:
        pass

cdef enum:
    SSL_FILETYPE_PEM = 1
    SSL_VERIFY_NONE = 0
    SSL_VERIFY_PEER = 1
    SSL_VERIFY_FAIL_IF_NO_PEER_CERT = 2
    SSL_ERROR_WANT_READ = 2
    SSL_ERROR_WANT_WRITE = 3
    SSL_ERROR_ZERO_RETURN = 6
    SSL_CTRL_MODE = 33
    SSL_CTRL_SET_MIN_PROTO_VERSION = 123
    SSL_MODE_ENABLE_PARTIAL_WRITE = 1
    SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER = 2
    SSL_MODE_RELEASE_BUFFERS = 16
    TLS1_2_VERSION = 0x0303
    SSL_TLSEXT_ERR_OK = 0
    SSL_TLSEXT_ERR_ALERT_FATAL = 2

# 1.1.1's options are unsigned long, 3's uint64_t: the same on every 64-bit Linux.
cdef enum:
    SSL_OP_NO_COMPRESSION = 0x00020000
    SSL_OP_NO_RENEGOTIATION = 0x40000000

ctypedef int (*AlpnSelect)(
    SSL*, const uint8_t** chosen, uint8_t* chosen_size, const uint8_t* offered, unsigned int offered_size, void* user
) noexcept nogil

cdef struct OpensslApi:
    bint is_loaded
    const char* (*version)(int) noexcept nogil
    const SSL_METHOD* (*server_method)() noexcept nogil
    SSL_CTX* (*ctx_new)(const SSL_METHOD*) noexcept nogil
    void (*ctx_free)(SSL_CTX*) noexcept nogil
    long (*ctx_ctrl)(SSL_CTX*, int command, long number, void* parameter) noexcept nogil
    uint64_t (*ctx_set_options)(SSL_CTX*, uint64_t options) noexcept nogil
    int (*ctx_use_certificate_chain_file)(SSL_CTX*, const char* path) noexcept nogil
    int (*ctx_use_private_key_file)(SSL_CTX*, const char* path, int type) noexcept nogil
    int (*ctx_check_private_key)(const SSL_CTX*) noexcept nogil
    int (*ctx_load_verify_locations)(SSL_CTX*, const char* file, const char* folder) noexcept nogil
    int (*ctx_set_default_verify_paths)(SSL_CTX*) noexcept nogil
    void (*ctx_set_verify)(SSL_CTX*, int mode, void* callback) noexcept nogil
    int (*ctx_set_session_id_context)(SSL_CTX*, const uint8_t* name, unsigned int size) noexcept nogil
    void (*ctx_set_alpn_select)(SSL_CTX*, AlpnSelect, void* user) noexcept nogil
    SSL* (*ssl_new)(SSL_CTX*) noexcept nogil
    void (*ssl_free)(SSL*) noexcept nogil
    int (*set_fd)(SSL*, int fd) noexcept nogil
    void (*set_accept_state)(SSL*) noexcept nogil
    int (*is_init_finished)(const SSL*) noexcept nogil
    int (*read)(SSL*, void* buffer, int size) noexcept nogil
    int (*write)(SSL*, const void* buffer, int size) noexcept nogil
    int (*shutdown)(SSL*) noexcept nogil
    int (*get_error)(const SSL*, int result) noexcept nogil
    void (*err_clear)() noexcept nogil
    unsigned long (*err_get)() noexcept nogil
    void (*err_text)(unsigned long error, char* text, size_t size) noexcept nogil

cdef OpensslApi openssl
