"""Runs of a loaded graph, for execution threads."""

from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint64_t

from tensorgate._native.session cimport RunHistory, SessionState
from tensorgate._native.tf_c_api cimport TF_Operation, TF_Output, TF_Status, TF_Tensor

# One run. The outputs are the caller's; a run that fails half-way leaves those it had made. history is that of runs
# like this one, and learns from it; NULL: it always runs on TensorFlow's own threads. deadline_us is of the monotonic
# clock, -1 for none; request_size is in bytes. run_us gets the time in TF_SessionRun.
cdef void run_session(
    SessionState* state, RunHistory* history, size_t request_size, const TF_Output* feeds, TF_Tensor** inputs,
    int num_inputs, const TF_Output* fetches, TF_Tensor** outputs, int num_outputs, TF_Operation** targets,
    int num_targets, int64_t deadline_us, uint64_t* run_us, TF_Status* status) noexcept nogil
# How long a request of that size is expected to run in the calling thread, in µs; 0: it does not run there.
cdef int64_t expected_in_caller_us(
    SessionState* state, const RunHistory* history, size_t request_size) noexcept nogil
# How long a run in the calling thread took that began at began_cpu_us of thread_cpu_us: at most as long as its work
# can have taken, since on a busy machine most of the time may have been somebody else's.
cdef int64_t own_time_us(int64_t took_us, int64_t began_cpu_us) noexcept nogil
