"""Replies of the data loop; for its thread."""

from tensorgate._native.loop_state cimport LoopState, Run

# NULL: out of memory.
cdef Run* run_new() noexcept nogil
cdef void run_free(Run* run) noexcept nogil
# Makes it the result; the message is copied.
cdef void set_error(Run* run, int code, const char* message) noexcept nogil
# The result is final; the run is gone once its reply is.
cdef void reply(LoopState* state, Run* run) noexcept nogil
# Tries again what ZeroMQ did not take.
cdef void retry_unsent(LoopState* state) noexcept nogil
