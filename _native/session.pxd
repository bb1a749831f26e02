"""A loaded SavedModel as the execution threads see it: a session, and its signatures bound to graph endpoints."""

from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint8_t

from tensorgate._native.tf_c_api cimport TF_Graph, TF_Operation, TF_Output, TF_Session


cdef struct Name:
    uint8_t* data  # NUL-terminated, owned
    size_t size


cdef struct Endpoint:
    Name alias            # the client's name for it
    Name tensor_name      # the graph's name, such as "x:0"
    TF_Output output
    int rank              # how many endpoints of its list have smaller tensor names
    bint in_graph         # False: the signature names a tensor that the graph does not have
    uint8_t* default_value  # inputs: a serialized TensorProto, owned; NULL when there is no default
    size_t default_size
    uint8_t* pad_value      # inputs: an element (of a string, its bytes), owned; NULL: each tensor's own first one
    size_t pad_size


cdef struct RunHistory:
    # Typical time of one run in µs, 0 before the first, and the largest request that ran so: they decide where the
    # next one runs. Written by any execution thread without a lock, since a lost update only delays the decision.
    int64_t typical_run_us
    size_t largest_request


cdef struct Signature:
    Name name
    Name method_name      # what the model says it is for; anything
    Name description      # the SignatureDef as text, for error messages
    Endpoint* inputs      # sorted by alias
    int num_inputs
    int num_defaults
    Endpoint* outputs     # sorted by alias
    int num_outputs
    RunHistory history
    bint is_batchable     # every input and output has a first dimension that the model leaves open


cdef struct SessionState:
    TF_Session* session
    TF_Graph* graph
    int64_t version
    bint may_run_long     # the graph has loops or waits: see proto_scan.may_run_long
    bint checks_method_names  # a signature serves only the API that its method_name is of
    bint outputs_as_content   # PredictResponses carry tensor_content rather than typed values
    Signature* signatures
    int num_signatures


cdef class Session:
    cdef SessionState state
    cdef readonly bytes signature_def_map
    cdef readonly str path

    # Who may run on it: data loops that serve it, calls under way. Under the GIL. While there is anybody, the session
    # cannot be closed.
    cdef int num_uses

    # Raises RuntimeError on a session that is closed (or was never loaded).
    cdef int begin_use(self) except -1
    cdef void end_use(self) noexcept
    cdef int _load(self, bytes path, list tags, bytes session_config) except -1


# What a signature's method_name can be.
cdef const char* PREDICT_METHOD
cdef const char* CLASSIFY_METHOD
cdef const char* REGRESS_METHOD

cdef bint has_method(const Signature* signature, const char* method_name) noexcept nogil
# The signature of that name, or NULL.
cdef Signature* find_signature(SessionState* state, const uint8_t* name, size_t size) noexcept nogil
# The tensor of a name such as "x:0" or "x", which is its output 0. False: the graph has none of that name.
cdef bint find_tensor(TF_Graph* graph, const uint8_t* name, size_t size, TF_Output* output) noexcept nogil
# The operation of that name, or NULL.
cdef TF_Operation* find_operation(TF_Graph* graph, const uint8_t* name, size_t size) noexcept nogil
