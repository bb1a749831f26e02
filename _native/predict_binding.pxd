"""A PredictRequest held against a signature: upstream's checks in upstream's order, inputs decoded, outputs chosen.

Each function returns a canonical status code, and for any but OK has written the client's text to message.
"""

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t

from tensorgate._native.byte_writer cimport ByteWriter
from tensorgate._native.predict_request cimport RequestView, ScanOutcome, Slice
from tensorgate._native.proto_wire cimport ProtoReader
from tensorgate._native.session cimport Endpoint, Name, Signature
from tensorgate._native.tf_c_api cimport TF_Output, TF_Tensor

cdef enum:
    # Where an error text ends: no client reads more, and the aliases that it lists may be gigabytes.
    MAX_MESSAGE_BYTES = 1 << 20

# Both arrays have room for signature.num_inputs; the tensors made, those before an error too, are the caller's.
cdef int bind_inputs(
    RequestView* request, const Signature* signature, TF_Tensor** tensors, TF_Output* feeds, ByteWriter* message,
) noexcept nogil
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
# Append to an error text.
cdef void say(ByteWriter* message, const char* text) noexcept nogil
cdef void say_bytes(ByteWriter* message, const uint8_t* text, size_t size) noexcept nogil
cdef void say_name(ByteWriter* message, const Name* name) noexcept nogil
