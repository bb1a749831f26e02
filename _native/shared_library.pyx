"""Opens shared libraries with dlopen, and finds functions in them.

Under the modules that declare a foreign API and fill the table of its functions: tf_c_api, zmq_api, nghttp2_api,
openssl_api, zlib_api.

Source: dlopen(3), dlsym(3).
"""

import os


cdef extern from "<dlfcn.h>" nogil:
    void* dlopen(const char* path, int flags)
    void* dlsym(void* handle, const char* name)
    char* dlerror()
    int RTLD_NOW
    int RTLD_LOCAL


class LibraryError(RuntimeError):
    """A library is not installed, or lacks what is needed of it."""


cdef void* open_library(str path) except NULL:
    cdef bytes encoded = os.fsencode(path)
    cdef const char* c_path = encoded
    cdef void* handle
    with nogil:  # a large one takes its time
        handle = dlopen(c_path, RTLD_NOW | RTLD_LOCAL)
    if handle is NULL:
        raise LibraryError(f"cannot open {path}: {dlerror().decode(errors='replace')}")
    return handle


cdef void* find_symbol(void* handle, const char* name) noexcept nogil:
    return dlsym(handle, name)


cdef void* symbol_of(void* handle, const char* name) except NULL:
    cdef void* function = dlsym(handle, name)
    if function is NULL:
        # Which names the library and the function.
        raise LibraryError(dlerror().decode(errors="replace"))
    return function
