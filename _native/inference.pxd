"""One Classify, Regress or MultiInference, from request bytes to response bytes."""

from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint8_t

from tensorgate._native.predict cimport RunResult
from tensorgate._native.session cimport SessionState

# They never raise and never keep payload. deadline_us: monotonic clock, -1 for none.
cdef void classify(
    SessionState* state, const uint8_t* payload, size_t size, int64_t deadline_us, RunResult* result) noexcept nogil
cdef void regress(
    SessionState* state, const uint8_t* payload, size_t size, int64_t deadline_us, RunResult* result) noexcept nogil
cdef void multi_inference(
    SessionState* state, const uint8_t* payload, size_t size, int64_t deadline_us, RunResult* result) noexcept nogil
