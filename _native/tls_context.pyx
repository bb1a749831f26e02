"""A server's certificate, key and authorities for the gRPC edge: made once, used by the connections of all threads.

Beside a request's line: http2_socket makes each connection's TLS of it. Python makes it, under the GIL.

Source: RFC 7301 (ALPN), RFC 9113 9.2 (what HTTP/2 asks of TLS); SSL_CTX_new(3) and the pages it names.
"""

from libc.stdint cimport uint8_t
from libc.string cimport memcmp

from tensorgate._native.openssl_api cimport (
    SSL,
    SSL_CTRL_MODE,
    SSL_CTRL_SET_MIN_PROTO_VERSION,
    SSL_FILETYPE_PEM,
    SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER,
    SSL_MODE_ENABLE_PARTIAL_WRITE,
    SSL_MODE_RELEASE_BUFFERS,
    SSL_OP_NO_COMPRESSION,
    SSL_OP_NO_RENEGOTIATION,
    SSL_TLSEXT_ERR_ALERT_FATAL,
    SSL_TLSEXT_ERR_OK,
    SSL_VERIFY_FAIL_IF_NO_PEER_CERT,
    SSL_VERIFY_PEER,
    TLS1_2_VERSION,
    openssl,
)

from tensorgate._native import openssl_api


cdef uint8_t[3] H2 = [2, c"h", c"2"]
cdef const char* SESSION_NAME = b"tensorgate"


cdef int _select_protocol(
    SSL* ssl, const uint8_t** chosen, uint8_t* chosen_size, const uint8_t* offered, unsigned int offered_size,
    void* user,
) noexcept nogil:
    """A list of names, each behind its length; only HTTP/2 is spoken here."""
    cdef unsigned int at = 0
    while at < offered_size and at + 1 + offered[at] <= offered_size:
        if offered[at] == 2 and memcmp(offered + at, H2, 3) == 0:
            chosen[0] = offered + at + 1
            chosen_size[0] = 2
            return SSL_TLSEXT_ERR_OK
        at += 1 + <unsigned int>offered[at]
    return SSL_TLSEXT_ERR_ALERT_FATAL


cdef object _error(str what):
    cdef char[256] text
    openssl.err_text(openssl.err_get(), text, sizeof(text))
    openssl.err_clear()
    return ValueError(f"{what}: {text.decode('utf-8', 'replace')}")


cdef class TlsContext:
    def __cinit__(self, str certificate_path not None, str key_path not None, str ca_path=None, *, bint client_verify):
        cdef bytes path
        openssl_api.load_library()
        openssl.err_clear()
        self.context = openssl.ctx_new(openssl.server_method())
        if self.context is NULL:
            raise MemoryError
        openssl.ctx_ctrl(self.context, SSL_CTRL_SET_MIN_PROTO_VERSION, TLS1_2_VERSION, NULL)
        openssl.ctx_set_options(self.context, SSL_OP_NO_COMPRESSION | SSL_OP_NO_RENEGOTIATION)
        # What is written may come again from another address, and an idle connection needs no buffers.
        openssl.ctx_ctrl(
            self.context, SSL_CTRL_MODE,
            SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER | SSL_MODE_RELEASE_BUFFERS, NULL)
        # A client with a certificate can take a session up again only under a name.
        openssl.ctx_set_session_id_context(self.context, <const uint8_t*>SESSION_NAME, 10)
        openssl.ctx_set_alpn_select(self.context, _select_protocol, NULL)
        path = certificate_path.encode()
        if openssl.ctx_use_certificate_chain_file(self.context, path) != 1:
            raise _error("the server's certificate cannot be used")
        path = key_path.encode()
        if openssl.ctx_use_private_key_file(self.context, path, SSL_FILETYPE_PEM) != 1:
            raise _error("the server's key cannot be used")
        if openssl.ctx_check_private_key(self.context) != 1:
            raise _error("the server's key is not that of its certificate")
        if not client_verify:
            return
        if ca_path is None:
            if openssl.ctx_set_default_verify_paths(self.context) != 1:
                raise _error("the system's authorities cannot be read")
        else:
            path = ca_path.encode()
            if openssl.ctx_load_verify_locations(self.context, path, NULL) != 1:
                raise _error("the authorities' certificates cannot be used")
        openssl.ctx_set_verify(self.context, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL)

    def __dealloc__(self):
        if self.context is not NULL:
            openssl.ctx_free(self.context)
