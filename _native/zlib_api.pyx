"""Opens zlib where the system has it, and fills the table of its functions.

Called once by a gateway that is to serve gRPC with its own edge. Any thread; idempotent, under the GIL. Where zlib is
missing the edge serves all the same, but refuses compressed messages.

Source: zlib.h; dlopen(3), dlsym(3).
"""

from libc.string cimport memset


cdef extern from "<dlfcn.h>" nogil:
    void* dlopen(const char* path, int flags)
    void* dlsym(void* handle, const char* name)
    char* dlerror()
    int RTLD_NOW
    int RTLD_LOCAL


LIBRARY = "libz.so.1"

memset(&zlib, 0, sizeof(ZlibApi))


class LibraryError(RuntimeError):
    """zlib is not installed, or lacks what the edge needs."""


cdef void* _symbol(void* handle, const char* name) except NULL:
    cdef void* symbol = dlsym(handle, name)
    if symbol is NULL:
        raise LibraryError(f"{LIBRARY} has no function {name.decode()}")
    return symbol


def load_library():
    cdef void* handle
    if not zlib.is_loaded:
        handle = dlopen(LIBRARY.encode(), RTLD_NOW | RTLD_LOCAL)
        if handle is NULL:
            raise LibraryError(f"cannot open {LIBRARY}: {dlerror().decode(errors='replace')}")
        _fill(handle)
        zlib.is_loaded = True
    return zlib.version().decode()


cdef int _fill(void* handle) except -1:
    zlib.version = <const char* (*)() noexcept nogil>_symbol(handle, b"zlibVersion")
    zlib.inflate_init = <int (*)(
        z_stream*, int, const char*, int
    ) noexcept nogil>_symbol(handle, b"inflateInit2_")
    zlib.inflate = <int (*)(z_stream*, int) noexcept nogil>_symbol(handle, b"inflate")
    zlib.inflate_end = <int (*)(z_stream*) noexcept nogil>_symbol(handle, b"inflateEnd")
    zlib.deflate_init = <int (*)(
        z_stream*, int, int, int, int, int, const char*, int
    ) noexcept nogil>_symbol(handle, b"deflateInit2_")
    zlib.deflate = <int (*)(z_stream*, int) noexcept nogil>_symbol(handle, b"deflate")
    zlib.deflate_end = <int (*)(z_stream*) noexcept nogil>_symbol(handle, b"deflateEnd")
    return 0
