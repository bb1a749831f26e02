"""One SessionRun, from request bytes to response bytes."""

from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint8_t

from tensorgate._native.predict cimport RunResult
from tensorgate._native.session cimport SessionState

# Never raises and never keeps payload. deadline_us: monotonic clock, -1 for none.
cdef void run_for_client(
    SessionState* state, const uint8_t* payload, size_t size, int64_t deadline_us, RunResult* result) noexcept nogil
