"""A version whose requests Python answers."""

from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint8_t, uint64_t

from tensorgate._native.predict cimport RunResult


cdef class PythonServable:
    cdef object _answer


# Has the PythonServable answer one request. Takes the GIL for it: for threads without it. Never raises and never
# keeps payload. The caller keeps servable alive. deadline_us: monotonic clock, -1 for none.
cdef void answer_in_python(
    void* servable, uint64_t method, const uint8_t* payload, size_t size, int64_t deadline_us,
    RunResult* result) noexcept nogil
