"""Loads a SavedModel through the C API, binds its signatures to the graph, and runs them.

Stands at the end of both lines in the worker: loading and closing are called from control threads (they release the
GIL while TensorFlow works), running from execution threads, any number at once.

A run goes either through TensorFlow's inter-op pool, which honours a deadline, or straight in the calling thread,
which is three times cheaper for a small graph but cannot be interrupted. So the calling thread is for runs that cannot
surprise: the graph has no loops and waits for nobody, its runs are typically shorter than CALLER_LIMIT_US, and the
request is not much larger than those that were.

Source: tensorflow/c/c_api.h; RunOptions in tensorflow/core/protobuf/config.proto.
"""

from cpython.buffer cimport PyBUF_READ
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.memoryview cimport PyMemoryView_FromMemory
from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memchr, memcmp, memcpy, memset, strlen

import os

from tensorgate._native.proto_scan import may_run_long, signature_def_map

from tensorgate._native.tf_c_api cimport (
    TF_Buffer,
    TF_Graph,
    TF_Operation,
    TF_Output,
    TF_Session,
    TF_SessionOptions,
    TF_Status,
    TF_Tensor,
    tf,
)


PREDICT_METHOD = "tensorflow/serving/predict"
CLASSIFY_METHOD = "tensorflow/serving/classify"
REGRESS_METHOD = "tensorflow/serving/regress"

cdef int64_t _num_processors = os.cpu_count() or 1


cdef extern from "<time.h>" nogil:
    ctypedef long time_t
    struct timespec:
        time_t tv_sec
        long tv_nsec
    int clock_gettime(int clock, timespec* time)
    int CLOCK_MONOTONIC
    int CLOCK_THREAD_CPUTIME_ID


cdef enum:
    MAX_OUTPUT_INDEX = 100000000  # of a tensor's name: far beyond any operation's, and ten times it is an int
    CALLER_LIMIT_US = 1000
    # How much larger than any before a request may be, in times, to be expected to run as shortly.
    MAX_GROWTH = 4


# Longer deadlines mean this one, a year: then sums of times stay in range, TensorFlow's own, in nanoseconds, too.
cdef int64_t LONGEST_DEADLINE_US = 366 * 24 * 3600 * <int64_t>1000000


class SessionError(Exception):
    """TensorFlow's refusal to load or close: ``code`` is its canonical status code, ``message`` its text."""

    def __init__(self, code, message):
        super().__init__(message)
        self.code = code
        self.message = message


cdef int64_t monotonic_us() noexcept nogil:
    cdef timespec now
    clock_gettime(CLOCK_MONOTONIC, &now)
    return <int64_t>now.tv_sec * 1000000 + now.tv_nsec // 1000


cdef int64_t deadline_after(int64_t now_us, int64_t remaining_us) noexcept nogil:
    if remaining_us < 0:
        return -1
    return now_us + min(remaining_us, LONGEST_DEADLINE_US)


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


# --- running ----------------------------------------------------------------------------------------------------------

cdef Signature* find_signature(SessionState* state, const uint8_t* name, size_t size) noexcept nogil:
    cdef int i
    for i in range(state.num_signatures):
        if state.signatures[i].name.size == size and memcmp(state.signatures[i].name.data, name, size) == 0:
            return &state.signatures[i]
    return NULL


cdef size_t _varint(uint8_t* out, uint64_t value) noexcept nogil:
    cdef size_t size = 0
    while value >= 0x80:
        out[size] = <uint8_t>(value | 0x80)
        value >>= 7
        size += 1
    out[size] = <uint8_t>value
    return size + 1


cdef int64_t expected_in_caller_us(
    SessionState* state, const RunHistory* history, size_t request_size,
) noexcept nogil:
    if state.may_run_long or history.typical_run_us >= CALLER_LIMIT_US:
        return 0
    if request_size // MAX_GROWTH > history.largest_request:
        return 0
    return history.typical_run_us


cdef inline int64_t _thread_cpu_us() noexcept nogil:
    cdef timespec used
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &used)
    return <int64_t>used.tv_sec * 1000000 + used.tv_nsec // 1000


cdef inline void _learn(RunHistory* history, size_t request_size, int64_t took_us) noexcept nogil:
    """Falls fast, since first runs include the optimisation of the graph; a run over the limit counts at once."""
    cdef int64_t typical = history.typical_run_us
    if took_us >= CALLER_LIMIT_US or typical == 0:
        typical = took_us
    elif took_us < typical:
        typical = (typical + took_us) // 2
    else:
        typical = (7 * typical + took_us) // 8
    history.typical_run_us = typical if typical > 0 else 1
    if took_us < CALLER_LIMIT_US and request_size > history.largest_request:
        history.largest_request = request_size


cdef void run_session(
    SessionState* state, RunHistory* history, size_t request_size, const TF_Output* feeds, TF_Tensor** inputs,
    int num_inputs, const TF_Output* fetches, TF_Tensor** outputs, int num_outputs, TF_Operation** targets,
    int num_targets, int64_t deadline_us, uint64_t* run_us, TF_Status* status,
) noexcept nogil:
    cdef uint8_t encoded[24]
    cdef TF_Buffer run_options
    cdef TF_Buffer* chosen = NULL
    cdef int64_t began_us = monotonic_us()
    cdef int64_t began_cpu_us = 0
    cdef int64_t left_ms, took_us, work_us
    cdef bint in_caller = False
    memset(&run_options, 0, sizeof(TF_Buffer))
    run_options.data = encoded
    if history is not NULL and expected_in_caller_us(state, history, request_size):
        in_caller = True
        began_cpu_us = _thread_cpu_us()
        encoded[0] = 3 << 3  # RunOptions.inter_op_thread_pool = -1: the calling thread
        run_options.length = 1 + _varint(encoded + 1, ~<uint64_t>0)
        chosen = &run_options
    elif deadline_us >= 0:
        left_ms = (deadline_us - began_us + 999) // 1000
        encoded[0] = 2 << 3  # RunOptions.timeout_in_ms
        run_options.length = 1 + _varint(encoded + 1, <uint64_t>(left_ms if left_ms > 0 else 1))
        chosen = &run_options
    tf.SessionRun(
        state.session, chosen, feeds, inputs, num_inputs, fetches, outputs, num_outputs,
        <const TF_Operation**>targets, num_targets, NULL, status)
    took_us = monotonic_us() - began_us
    run_us[0] = <uint64_t>took_us
    if history is NULL:
        return
    if in_caller:
        # On a busy machine most of the time may have been somebody else's. TensorFlow's own threads help with a large
        # operation, so this thread's part of the work is at least one of as many as there are processors.
        work_us = (_thread_cpu_us() - began_cpu_us + 1) * _num_processors
        if work_us < took_us:
            took_us = work_us
    _learn(history, request_size, took_us)
