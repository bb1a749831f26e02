"""One Predict, from request bytes to response bytes."""

from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint8_t, uint64_t

from tensorgate._native.byte_writer cimport ByteWriter
from tensorgate._native.predict_request cimport RequestView
from tensorgate._native.session cimport SessionState, Signature


cdef struct RunResult:
    int code              # canonical status code
    ByteWriter message    # error text when code is not OK; owned
    ByteWriter response   # serialized response when code is OK; owned
    uint64_t run_us
    uint64_t batch_rows   # of the batch that it ran in, padding included; 0: it ran alone
    uint64_t padding_rows


# How long a request with its model_spec in field 1 is expected to run, in µs, if it would run in the calling thread; 0
# when it would not, or when nothing is known. Reads no more than the model_spec.
cdef int64_t expected_request_us(SessionState* state, const uint8_t* payload, size_t size) noexcept nogil
cdef void run_result_init(RunResult* result) noexcept nogil
cdef void run_result_free(RunResult* result) noexcept nogil
# The code of a response that has been written: not OK when it did not fit into memory, or into a message.
cdef int end_response(RunResult* result) noexcept nogil
# The signature that a Predict asks for; NULL: result says why there is none.
cdef Signature* predict_signature(SessionState* state, const RequestView* request, RunResult* result) noexcept nogil
# Never raises and never keeps payload. deadline_us: monotonic clock, -1 for none.
cdef void predict(
    SessionState* state, const uint8_t* payload, size_t size, int64_t deadline_us, RunResult* result) noexcept nogil
