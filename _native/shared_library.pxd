"""Shared libraries of the system and of other packages, and their functions; under the GIL, any thread."""

# Its handle, which is never closed. Raises LibraryError, with the loader's reason.
cdef void* open_library(str path) except NULL
# A function, or NULL where there is none of that name.
cdef void* find_symbol(void* handle, const char* name) noexcept nogil
# Raises LibraryError instead.
cdef void* symbol_of(void* handle, const char* name) except NULL
