"""A PredictRequest held against a signature: upstream's checks in upstream's order, inputs decoded, outputs chosen.

Each function returns a canonical status code, and for any but OK has written the client's text to message.
"""

from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint8_t, uint64_t

from tensorgate._native.byte_writer cimport ByteWriter
from tensorgate._native.predict_request cimport RequestView, ScanOutcome, Slice
from tensorgate._native.proto_wire cimport ProtoReader
from tensorgate._native.session cimport Endpoint, Name, RunHistory, SessionState, Signature
from tensorgate._native.tensor_decode cimport TensorValues
from tensorgate._native.tensor_scan cimport TensorScan
from tensorgate._native.tf_c_api cimport TF_Operation, TF_Output, TF_Tensor

cdef enum:
    # Where an error text ends: no client reads more, and the aliases that it lists may be gigabytes.
    MAX_MESSAGE_BYTES = 1 << 20

# What is done with the TensorProto found for the signature's input of that index; name is what the client calls it.
ctypedef int (*TakeInput)(
    void* owner, int index, ProtoReader body, Slice name, ByteWriter* message) noexcept nogil

# Calls take for each input of the signature in turn, until there is an error.
cdef int bind_inputs(
    RequestView* request, const Signature* signature, TakeInput take, void* owner, ByteWriter* message) noexcept nogil
# chosen has room for signature.num_outputs; without an output filter it gets all of them.
cdef int choose_outputs(
    const RequestView* request, const Signature* signature, Endpoint** chosen, int* num_chosen, ByteWriter* message,
) noexcept nogil
# INVALID_ARGUMENT when the signature names a tensor that its graph does not have.
cdef int check_in_graph(const Endpoint* endpoint, ByteWriter* message) noexcept nogil
# Why a request could not be read; outcome is not SCANNED.
cdef int refuse_scan(ScanOutcome outcome, ByteWriter* message) noexcept nogil
# The tensor of a serialized TensorProto, the caller's; name is what the client calls it.
cdef int decode_input(ProtoReader body, Slice name, TF_Tensor** tensor, ByteWriter* message) noexcept nogil
# The same, but decodes nothing yet: fills scan and values.
cdef int measure_input(
    ProtoReader body, Slice name, TensorScan* scan, TensorValues* values, ByteWriter* message) noexcept nogil
# run_session, TensorFlow's own code and text included.
cdef int run_or_say(
    SessionState* state, RunHistory* history, size_t request_size, const TF_Output* feeds, TF_Tensor** inputs,
    int num_inputs, const TF_Output* fetches, TF_Tensor** outputs, int num_outputs, TF_Operation** targets,
    int num_targets, int64_t deadline_us, uint64_t* run_us, ByteWriter* message) noexcept nogil
# Append to an error text.
cdef void say(ByteWriter* message, const char* text) noexcept nogil
cdef void say_bytes(ByteWriter* message, const uint8_t* text, size_t size) noexcept nogil
cdef void say_name(ByteWriter* message, const Name* name) noexcept nogil
