"""Opens zlib where the system has it, and fills the table of its functions.

Called once by a gateway that is to serve gRPC with its own edge. Any thread; idempotent, under the GIL. Where zlib is
missing the edge serves all the same, but refuses compressed messages.

Source: zlib.h.
"""

from libc.string cimport memset

from tensorgate._native.shared_library cimport symbol_of, open_library


LIBRARY = "libz.so.1"

memset(&zlib, 0, sizeof(ZlibApi))


def load_library():
    if not zlib.is_loaded:
        _fill(open_library(LIBRARY))
        zlib.is_loaded = True
    return zlib.version().decode()


cdef int _fill(void* handle) except -1:
    zlib.version = <const char* (*)() noexcept nogil>symbol_of(handle, b"zlibVersion")
    zlib.inflate_init = <int (*)(
        z_stream*, int, const char*, int
    ) noexcept nogil>symbol_of(handle, b"inflateInit2_")
    zlib.inflate = <int (*)(z_stream*, int) noexcept nogil>symbol_of(handle, b"inflate")
    zlib.inflate_end = <int (*)(z_stream*) noexcept nogil>symbol_of(handle, b"inflateEnd")
    zlib.deflate_init = <int (*)(
        z_stream*, int, int, int, int, int, const char*, int
    ) noexcept nogil>symbol_of(handle, b"deflateInit2_")
    zlib.deflate = <int (*)(z_stream*, int) noexcept nogil>symbol_of(handle, b"deflate")
    zlib.deflate_end = <int (*)(z_stream*) noexcept nogil>symbol_of(handle, b"deflateEnd")
    return 0
