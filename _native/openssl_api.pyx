"""Opens the OpenSSL that Python's own ssl module uses, and fills the table of its functions.

Called once by a gateway whose gRPC edge is to speak TLS. Any thread; idempotent, under the GIL. A process must not have
two OpenSSLs that think they own its state, so Python's is the one to take: dlsym on the handle of the _ssl module finds
what that module is linked to. Where Python has OpenSSL built in, the system's is taken.

Source: openssl/ssl.h, openssl/err.h.
"""

import importlib.util

from libc.string cimport memset

from tensorgate._native.shared_library cimport find_symbol, symbol_of, open_library

from tensorgate._native.shared_library import LibraryError


SYSTEM_LIBRARIES = ("libssl.so.3", "libssl.so.1.1")

memset(&openssl, 0, sizeof(OpensslApi))


cdef void* _open() except NULL:
    """A handle on which dlsym finds OpenSSL's functions."""
    cdef void* handle
    spec = importlib.util.find_spec("_ssl")
    paths = [spec.origin] if spec is not None and spec.has_location else []
    for path in [*paths, *SYSTEM_LIBRARIES]:
        try:
            handle = open_library(path)
        except LibraryError:
            continue
        if find_symbol(handle, b"SSL_CTX_new") is not NULL:
            return handle
    raise LibraryError(f"there is none behind Python's ssl module, nor {' or '.join(SYSTEM_LIBRARIES)}")


def load_library():
    if not openssl.is_loaded:
        _fill(_open())
        openssl.is_loaded = True
    return openssl.version(0).decode()


cdef int _fill(void* handle) except -1:
    openssl.version = <const char* (*)(int) noexcept nogil>symbol_of(handle, b"OpenSSL_version")
    openssl.server_method = <const SSL_METHOD* (*)() noexcept nogil>symbol_of(handle, b"TLS_server_method")
    openssl.ctx_new = <SSL_CTX* (*)(const SSL_METHOD*) noexcept nogil>symbol_of(handle, b"SSL_CTX_new")
    openssl.ctx_free = <void (*)(SSL_CTX*) noexcept nogil>symbol_of(handle, b"SSL_CTX_free")
    openssl.ctx_ctrl = <long (*)(SSL_CTX*, int, long, void*) noexcept nogil>symbol_of(handle, b"SSL_CTX_ctrl")
    openssl.ctx_set_options = <uint64_t (*)(
        SSL_CTX*, uint64_t
    ) noexcept nogil>symbol_of(handle, b"SSL_CTX_set_options")
    openssl.ctx_use_certificate_chain_file = <int (*)(
        SSL_CTX*, const char*
    ) noexcept nogil>symbol_of(handle, b"SSL_CTX_use_certificate_chain_file")
    openssl.ctx_use_private_key_file = <int (*)(
        SSL_CTX*, const char*, int
    ) noexcept nogil>symbol_of(handle, b"SSL_CTX_use_PrivateKey_file")
    openssl.ctx_check_private_key = <int (*)(
        const SSL_CTX*
    ) noexcept nogil>symbol_of(handle, b"SSL_CTX_check_private_key")
    openssl.ctx_load_verify_locations = <int (*)(
        SSL_CTX*, const char*, const char*
    ) noexcept nogil>symbol_of(handle, b"SSL_CTX_load_verify_locations")
    openssl.ctx_set_default_verify_paths = <int (*)(
        SSL_CTX*
    ) noexcept nogil>symbol_of(handle, b"SSL_CTX_set_default_verify_paths")
    openssl.ctx_set_verify = <void (*)(SSL_CTX*, int, void*) noexcept nogil>symbol_of(handle, b"SSL_CTX_set_verify")
    openssl.ctx_set_session_id_context = <int (*)(
        SSL_CTX*, const uint8_t*, unsigned int
    ) noexcept nogil>symbol_of(handle, b"SSL_CTX_set_session_id_context")
    openssl.ctx_set_alpn_select = <void (*)(
        SSL_CTX*, AlpnSelect, void*
    ) noexcept nogil>symbol_of(handle, b"SSL_CTX_set_alpn_select_cb")
    openssl.ssl_new = <SSL* (*)(SSL_CTX*) noexcept nogil>symbol_of(handle, b"SSL_new")
    openssl.ssl_free = <void (*)(SSL*) noexcept nogil>symbol_of(handle, b"SSL_free")
    openssl.set_fd = <int (*)(SSL*, int) noexcept nogil>symbol_of(handle, b"SSL_set_fd")
    openssl.set_accept_state = <void (*)(SSL*) noexcept nogil>symbol_of(handle, b"SSL_set_accept_state")
    openssl.is_init_finished = <int (*)(const SSL*) noexcept nogil>symbol_of(handle, b"SSL_is_init_finished")
    openssl.read = <int (*)(SSL*, void*, int) noexcept nogil>symbol_of(handle, b"SSL_read")
    openssl.write = <int (*)(SSL*, const void*, int) noexcept nogil>symbol_of(handle, b"SSL_write")
    openssl.shutdown = <int (*)(SSL*) noexcept nogil>symbol_of(handle, b"SSL_shutdown")
    openssl.get_error = <int (*)(const SSL*, int) noexcept nogil>symbol_of(handle, b"SSL_get_error")
    openssl.err_clear = <void (*)() noexcept nogil>symbol_of(handle, b"ERR_clear_error")
    openssl.err_get = <unsigned long (*)() noexcept nogil>symbol_of(handle, b"ERR_get_error")
    openssl.err_text = <void (*)(
        unsigned long, char*, size_t
    ) noexcept nogil>symbol_of(handle, b"ERR_error_string_n")
    return 0
