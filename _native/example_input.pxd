"""The Input of Classify, Regress and MultiInference: a list of tf.Examples, perhaps with a context for all of them."""

from libc.stddef cimport size_t
from libc.stdint cimport uint32_t

from tensorgate._native.byte_writer cimport ByteWriter
from tensorgate._native.predict_request cimport ScanOutcome, Slice
from tensorgate._native.proto_wire cimport ProtoReader
from tensorgate._native.tf_c_api cimport TF_Tensor, TF_TString


cdef struct ExampleInput:
    # Zeroed before the first merge. The examples point into the request's bytes, which must stay; the array and the
    # context are its own, released by example_input_free.
    uint32_t kind        # the member of the oneof that is set, by its field number; 0: none
    Slice* examples      # serialized Examples, well-formed
    size_t num_examples
    size_t capacity
    ByteWriter context   # a serialized Example, empty for none


# Merges one serialized Input; example_input_free comes after, whatever the outcome.
cdef ScanOutcome merge_example_input(ProtoReader body, ExampleInput* input) noexcept nogil
cdef void example_input_free(ExampleInput* input) noexcept nogil
# Whether a tensor can be made of them: a canonical status code, and for any but OK the client's text in message.
cdef int check_examples(const ExampleInput* input, ByteWriter* message) noexcept nogil
# Writes as many serialized examples, each with the context before it, to initialised strings. False: out of memory.
cdef bint write_examples(const ExampleInput* input, TF_TString* strings) noexcept nogil
# Makes the 1-D string tensor of the serialized examples, each with the context before it; the caller deletes it.
# Returns a canonical status code, and for any but OK has written the client's text to message.
cdef int make_example_tensor(const ExampleInput* input, TF_Tensor** tensor, ByteWriter* message) noexcept nogil
