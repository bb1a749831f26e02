"""What the data plane reads of a request without parsing it: its model_spec."""

from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint8_t, uint32_t

from tensorgate._native.proto_wire cimport ProtoReader

cdef enum:
    VERSION_UNSET = 0
    VERSION_NUMBER = 1
    VERSION_LABEL = 2


cdef struct ModelSpecView:
    # Strings point into the scanned message and live as long as it does.
    bint present
    int version_choice  # VERSION_UNSET, VERSION_NUMBER or VERSION_LABEL
    int64_t version
    const uint8_t* name
    size_t name_size
    const uint8_t* version_label
    size_t version_label_size
    const uint8_t* signature_name
    size_t signature_name_size


# False: the bytes are no well-formed message. Repeated model_specs merge as protobuf merges them: last value wins.
cdef bint scan_model_spec_view(const uint8_t* data, size_t size, uint32_t field, ModelSpecView* view) noexcept nogil
# The same for the first of the messages in field 1, the tasks of a MultiInferenceRequest.
cdef bint scan_task_spec_view(const uint8_t* data, size_t size, ModelSpecView* view) noexcept nogil
cdef bint merge_model_spec(ProtoReader body, ModelSpecView* view) noexcept nogil
