"""Output tensors of a run over examples to the results of Classify and Regress."""

from libc.stdint cimport uint32_t

from tensorgate._native.byte_writer cimport ByteWriter
from tensorgate._native.example_run cimport ExampleRun
from tensorgate._native.inference_plan cimport InferencePlan

# Append a ClassificationResult, or RegressionResult, to out as that field, once the tensors have been found fit. Return
# a canonical status code; for any but OK out is unchanged and the client's text is in message.
cdef int put_classification(
    ByteWriter* out, uint32_t field, const ExampleRun* run, const InferencePlan* plan,
    ByteWriter* message) noexcept nogil
cdef int put_regression(
    ByteWriter* out, uint32_t field, const ExampleRun* run, const InferencePlan* plan,
    ByteWriter* message) noexcept nogil
