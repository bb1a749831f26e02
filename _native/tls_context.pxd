"""A server's certificate, key and authorities, as OpenSSL has them; shared by the connections of all threads."""

from tensorgate._native.openssl_api cimport SSL_CTX


cdef class TlsContext:
    # Connections hold it too: it may go while they last.
    cdef SSL_CTX* context
