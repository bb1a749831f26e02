"""One session run over an Input's examples, for one signature or several."""

from libc.stddef cimport size_t
from libc.stdint cimport int64_t

from tensorgate._native.example_input cimport ExampleInput
from tensorgate._native.predict cimport RunResult
from tensorgate._native.session cimport Endpoint, RunHistory, SessionState
from tensorgate._native.tf_c_api cimport TF_Output, TF_Tensor


cdef struct ExampleRun:
    # The arrays are its own. Those of endpoints are in the order of the tensors' names, each tensor once.
    const Endpoint** fed
    int num_fed
    const Endpoint** fetched
    int num_fetched
    TF_Output* feeds
    TF_Output* fetches
    TF_Tensor** inputs      # num_fed times the same tensor, examples
    TF_Tensor** outputs     # owned; NULL where there is none (yet)
    TF_Tensor* examples     # owned; NULL before the run
    int64_t num_examples


# Room for that many endpoints. False: out of memory; example_run_free comes after, all the same.
cdef bint example_run_init(ExampleRun* run, int max_fed, int max_fetched) noexcept nogil
cdef void example_run_free(ExampleRun* run) noexcept nogil
# Before the run; an endpoint may be NULL, and is then left out.
cdef void feed_examples_to(ExampleRun* run, const Endpoint* endpoint) noexcept nogil
cdef void fetch_from(ExampleRun* run, const Endpoint* endpoint) noexcept nogil
# Feeds all of input's examples, once. Returns a canonical status code; for any but OK the client's text is in
# result.message. history, request_size and deadline_us: as run_session has them.
cdef int run_examples(
    SessionState* state, RunHistory* history, size_t request_size, const ExampleInput* input, ExampleRun* run,
    int64_t deadline_us, RunResult* result) noexcept nogil
# The tensor that was fetched from the endpoint; the run's.
cdef TF_Tensor* output_of(const ExampleRun* run, const Endpoint* endpoint) noexcept nogil
