"""One Classify, Regress or MultiInference, from request bytes to response bytes."""

from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint8_t, uint64_t

from tensorgate._native.example_input cimport ExampleInput
from tensorgate._native.example_run cimport ExampleRun
from tensorgate._native.inference_plan cimport InferencePlan
from tensorgate._native.predict cimport RunResult
from tensorgate._native.proto_scan cimport ModelSpecView
from tensorgate._native.session cimport SessionState, Signature


cdef struct InferenceTask:
    # What one signature is run for: all of a Classify or Regress, one task of a MultiInference.
    ModelSpecView spec
    Signature* signature
    InferencePlan plan


cdef struct Inference:
    # A request that has been read and found fit to run. Points into the request's bytes; the rest is its own.
    ExampleInput input
    InferenceTask* tasks   # one, or as many as a MultiInference has: no more than signatures
    int num_tasks
    bint is_multi
    ExampleRun run         # what is to be fed and fetched


# Reads a request of that method (METHOD_CLASSIFY and so on). Whatever the code, inference_free comes after; for any but
# OK the text is in result.
cdef int begin_inference(
    SessionState* state, uint64_t method, const uint8_t* payload, size_t size, Inference* inference,
    RunResult* result) noexcept nogil
# Writes the response from what the run has put out; a canonical status code.
cdef int end_inference(SessionState* state, const Inference* inference, RunResult* result) noexcept nogil
cdef void inference_free(Inference* inference) noexcept nogil
# All of it. Never raises and never keeps payload. deadline_us: monotonic clock, -1 for none.
cdef void infer(
    SessionState* state, uint64_t method, const uint8_t* payload, size_t size, int64_t deadline_us,
    RunResult* result) noexcept nogil
