"""Loads a SavedModel through the C API, binds its signatures to the graph, and finds what requests name in it.

Stands at the end of both lines in the worker: loading and closing are called from control threads (they release the
GIL while TensorFlow works), finding from execution threads, any number at once. They run it by graph_run.

Source: tensorflow/c/c_api.h.
"""

from cpython.buffer cimport PyBUF_READ
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.memoryview cimport PyMemoryView_FromMemory
from libc.stddef cimport size_t
from libc.stdint cimport uint8_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memchr, memcmp, memcpy, strlen

from tensorgate._native.proto_scan import may_run_long, signature_def_map

from tensorgate._native.tf_c_api cimport (
    TF_Buffer,
    TF_Graph,
    TF_Operation,
    TF_Output,
    TF_Session,
    TF_SessionOptions,
    TF_Status,
    tf,
)


PREDICT_METHOD = "tensorflow/serving/predict"
CLASSIFY_METHOD = "tensorflow/serving/classify"
REGRESS_METHOD = "tensorflow/serving/regress"

cdef enum:
    MAX_OUTPUT_INDEX = 100000000  # of a tensor's name: far beyond any operation's, and ten times it is an int


class SessionError(Exception):
    """TensorFlow's refusal to load or close: ``code`` is its canonical status code, ``message`` its text."""

    def __init__(self, code, message):
        super().__init__(message)
        self.code = code
        self.message = message


# --- loading ----------------------------------------------------------------------------------------------------------

cdef int _check(TF_Status* status) except -1:
    if tf.GetCode(status) != 0:
        raise SessionError(tf.GetCode(status), tf.Message(status).decode("utf-8", "replace"))
    return 0


cdef int _set_name(Name* name, bytes text) except -1:
    name.size = <size_t>PyBytes_GET_SIZE(text)
    name.data = <uint8_t*>malloc(name.size + 1)
    if name.data is NULL:
        raise MemoryError
    memcpy(name.data, PyBytes_AS_STRING(text), name.size + 1)
    return 0


cdef int _set_endpoint(Endpoint* endpoint, TF_Graph* graph, bytes alias, bytes tensor_name, bytes default) except -1:
    _set_name(&endpoint.alias, alias)
    _set_name(&endpoint.tensor_name, tensor_name)
    endpoint.in_graph = find_tensor(
        graph, endpoint.tensor_name.data, endpoint.tensor_name.size, &endpoint.output)
    if default is not None:
        endpoint.default_size = <size_t>PyBytes_GET_SIZE(default)
        endpoint.default_value = <uint8_t*>malloc(endpoint.default_size + 1)
        if endpoint.default_value is NULL:
            raise MemoryError
        memcpy(endpoint.default_value, PyBytes_AS_STRING(default), endpoint.default_size)
    return 0


cdef int _rank(Endpoint* endpoints, list tensor_names) except -1:
    cdef int i
    ordered = sorted(tensor_names)
    for i in range(len(tensor_names)):
        endpoints[i].rank = ordered.index(tensor_names[i])
    return 0


cdef int _set_pad_value(Endpoint* endpoint, bytes value) except -1:
    free(endpoint.pad_value)
    endpoint.pad_size = <size_t>PyBytes_GET_SIZE(value)
    endpoint.pad_value = <uint8_t*>malloc(endpoint.pad_size + 1)
    if endpoint.pad_value is NULL:
        raise MemoryError
    memcpy(endpoint.pad_value, PyBytes_AS_STRING(value), endpoint.pad_size)
    return 0


cdef void _free_endpoints(Endpoint* endpoints, int count) noexcept:
    cdef int i
    for i in range(count):
        free(endpoints[i].alias.data)
        free(endpoints[i].tensor_name.data)
        free(endpoints[i].default_value)
        free(endpoints[i].pad_value)
    free(endpoints)


cdef class Session:
    def __init__(self, path, version, tags, session_config=b""):
        if tf.LoadSessionFromSavedModel is NULL:
            raise RuntimeError("tf_c_api.load_library() comes first")
        if self.state.graph is not NULL or self.state.signatures is not NULL:
            raise RuntimeError("a session is loaded once")
        self.path = path
        self.state.version = version
        self._load(path.encode(), [tag.encode() for tag in tags], session_config)

    cdef int _load(self, bytes path, list tags, bytes session_config) except -1:
        cdef const char* c_path = PyBytes_AS_STRING(path)
        cdef int num_tags = <int>len(tags)
        cdef const char** c_tags = <const char**>calloc(num_tags + 1, sizeof(char*))
        cdef TF_Status* status = tf.NewStatus()
        cdef TF_SessionOptions* options = tf.NewSessionOptions()
        cdef TF_Buffer* meta_graph = tf.NewBuffer()
        cdef int i
        try:
            if c_tags is NULL:
                raise MemoryError
            for i in range(num_tags):
                c_tags[i] = PyBytes_AS_STRING(tags[i])
            if session_config:
                tf.SetConfig(options, PyBytes_AS_STRING(session_config), <size_t>len(session_config), status)
                _check(status)
            self.state.graph = tf.NewGraph()
            with nogil:
                self.state.session = tf.LoadSessionFromSavedModel(
                    options, NULL, c_path, c_tags, num_tags, self.state.graph, meta_graph, status)
            _check(status)
            # Looked at in place: a graph with its constants can be large.
            view = PyMemoryView_FromMemory(<char*>meta_graph.data, <Py_ssize_t>meta_graph.length, PyBUF_READ)
            self.signature_def_map = signature_def_map(view)
            self.state.may_run_long = may_run_long(view)
            view.release()
        finally:
            tf.DeleteBuffer(meta_graph)
            tf.DeleteSessionOptions(options)
            tf.DeleteStatus(status)
            free(c_tags)
        return 0

    def bind_signatures(self, signatures, checks_method_names=False, outputs_as_content=False):
        cdef Signature* signature
        if self.state.session is NULL or self.state.signatures is not NULL:
            raise RuntimeError("signatures are bound once, on an open session")
        ordered = sorted(signatures)
        self.state.signatures = <Signature*>calloc(len(ordered) + 1, sizeof(Signature))
        if self.state.signatures is NULL:
            raise MemoryError
        self.state.checks_method_names = checks_method_names
        self.state.outputs_as_content = outputs_as_content
        for name, method_name, description, unsorted_inputs, unsorted_outputs in ordered:
            inputs = sorted(unsorted_inputs, key=_alias_bytes)
            outputs = sorted(unsorted_outputs, key=_alias_bytes)
            signature = &self.state.signatures[self.state.num_signatures]
            # Counted first, so that __dealloc__ frees a half-made one.
            self.state.num_signatures += 1
            _set_name(&signature.name, name.encode())
            _set_name(&signature.method_name, method_name.encode())
            _set_name(&signature.description, description.encode())
            signature.inputs = <Endpoint*>calloc(len(inputs) + 1, sizeof(Endpoint))
            signature.outputs = <Endpoint*>calloc(len(outputs) + 1, sizeof(Endpoint))
            if signature.inputs is NULL or signature.outputs is NULL:
                raise MemoryError
            for alias, tensor_name, default in inputs:
                signature.num_inputs += 1
                signature.num_defaults += default is not None
                _set_endpoint(
                    &signature.inputs[signature.num_inputs - 1], self.state.graph, alias.encode(),
                    tensor_name.encode(), default)
            for alias, tensor_name in outputs:
                signature.num_outputs += 1
                _set_endpoint(
                    &signature.outputs[signature.num_outputs - 1], self.state.graph, alias.encode(),
                    tensor_name.encode(), None)
            _rank(signature.inputs, [tensor_name.encode() for _, tensor_name, _ in inputs])
            _rank(signature.outputs, [tensor_name.encode() for _, tensor_name in outputs])

    def set_batching(self, batchable, pad_values):
        cdef Signature* signature
        cdef Endpoint* endpoint
        cdef int i, j
        if self.num_uses:
            raise RuntimeError("how requests are merged is said before the first one")
        for i in range(self.state.num_signatures):
            signature = &self.state.signatures[i]
            signature.is_batchable = signature.name.data[:signature.name.size].decode() in batchable
            for j in range(signature.num_inputs):
                endpoint = &signature.inputs[j]
                value = pad_values.get((
                    signature.name.data[:signature.name.size].decode(),
                    endpoint.alias.data[:endpoint.alias.size].decode()))
                if value is not None:
                    _set_pad_value(endpoint, value)

    cdef int begin_use(self) except -1:
        if self.state.session is NULL:
            raise RuntimeError("the session is closed")
        self.num_uses += 1
        return 0

    cdef void end_use(self) noexcept:
        self.num_uses -= 1

    def close(self):
        cdef TF_Status* status
        cdef TF_Session* session = self.state.session
        cdef TF_Graph* graph = self.state.graph
        if self.num_uses:
            # TensorFlow would free graph and variables under the threads that run on them.
            raise RuntimeError(f"the session of {self.path} is in use: a data loop serves it, or a request runs on it")
        self.state.session = NULL
        self.state.graph = NULL
        if session is NULL and graph is NULL:
            return
        status = tf.NewStatus()
        try:
            with nogil:
                if session is not NULL:
                    tf.CloseSession(session, status)
                    # Deleted even when closing failed: nothing can run on it any more.
                    tf.DeleteSession(session, status)
                if graph is not NULL:
                    tf.DeleteGraph(graph)
            _check(status)
        finally:
            tf.DeleteStatus(status)

    def __dealloc__(self):
        cdef int i
        if self.state.session is not NULL or self.state.graph is not NULL:
            self.close()
        for i in range(self.state.num_signatures):
            free(self.state.signatures[i].name.data)
            free(self.state.signatures[i].method_name.data)
            free(self.state.signatures[i].description.data)
            _free_endpoints(self.state.signatures[i].inputs, self.state.signatures[i].num_inputs)
            _free_endpoints(self.state.signatures[i].outputs, self.state.signatures[i].num_outputs)
        free(self.state.signatures)


def _alias_bytes(endpoint):
    return endpoint[0].encode()


cdef bint has_method(const Signature* signature, const char* method_name) noexcept nogil:
    return strlen(method_name) == signature.method_name.size and memcmp(
        method_name, signature.method_name.data, signature.method_name.size) == 0


# --- names ------------------------------------------------------------------------------------------------------------

cdef TF_Operation* find_operation(TF_Graph* graph, const uint8_t* name, size_t size) noexcept nogil:
    cdef char room[256]
    cdef char* terminated = room
    cdef TF_Operation* operation
    if size == 0 or memchr(name, 0, size) is not NULL:
        return NULL
    if size >= sizeof(room):
        terminated = <char*>malloc(size + 1)
        if terminated is NULL:
            return NULL
    memcpy(terminated, name, size)
    terminated[size] = 0
    operation = tf.GraphOperationByName(graph, terminated)
    if terminated != room:
        free(terminated)
    return operation


cdef bint find_tensor(TF_Graph* graph, const uint8_t* name, size_t size, TF_Output* output) noexcept nogil:
    cdef size_t num_digits = 0, i
    cdef size_t operation_size = size
    cdef int index = 0
    while num_digits < size and c"0" <= name[size - 1 - num_digits] <= c"9":
        num_digits += 1
    if 0 < num_digits < size and name[size - 1 - num_digits] == c":":
        operation_size = size - 1 - num_digits
        for i in range(operation_size + 1, size):
            if index > MAX_OUTPUT_INDEX:
                return False
            index = 10 * index + (name[i] - c"0")
    output.oper = find_operation(graph, name, operation_size)
    output.index = index
    return output.oper is not NULL and index < tf.OperationNumOutputs(output.oper)


cdef Signature* find_signature(SessionState* state, const uint8_t* name, size_t size) noexcept nogil:
    cdef int i
    for i in range(state.num_signatures):
        if state.signatures[i].name.size == size and memcmp(state.signatures[i].name.data, name, size) == 0:
            return &state.signatures[i]
    return NULL
