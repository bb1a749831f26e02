"""Holds a signature against what Classify or Regress asks of it: checks in TensorFlow Serving's order, with its texts.

Second step of Classify, Regress and MultiInference in the worker (read → plan → run → encode); runs on execution
threads without the GIL.

Source: upstream's PreProcessClassification and PreProcessRegression; tensorflow/cc/saved_model/signature_constants.h.
"""

from libc.string cimport memcmp, strlen

from tensorgate._native.byte_writer cimport ByteWriter, put_decimal
from tensorgate._native.predict_binding cimport say, say_name
from tensorgate._native.session cimport (
    CLASSIFY_METHOD,
    REGRESS_METHOD,
    Endpoint,
    SessionState,
    Signature,
    has_method,
)
from tensorgate._native.status_codes cimport INVALID_ARGUMENT, OK


cdef const Endpoint* _endpoint(const Endpoint* endpoints, int count, const char* alias) noexcept nogil:
    cdef size_t size = strlen(alias)
    cdef int i
    for i in range(count):
        if endpoints[i].alias.size == size and memcmp(endpoints[i].alias.data, alias, size) == 0:
            return &endpoints[i]
    return NULL


cdef int _refuse_signature(const Signature* signature, const char* reason, ByteWriter* message) noexcept nogil:
    say(message, reason)
    say_name(message, &signature.description)
    return INVALID_ARGUMENT


cdef int _refuse_method(
    const Signature* signature, const char* what, const char* method, ByteWriter* message,
) noexcept nogil:
    say(message, "Expected ")
    say(message, what)
    say(message, " signature method_name to be ")
    say(message, method)
    say(message, ". Was: ")
    say_name(message, &signature.method_name)
    return INVALID_ARGUMENT


cdef int plan_classification(
    const SessionState* state, const Signature* signature, InferencePlan* plan, ByteWriter* message,
) noexcept nogil:
    plan.value = NULL
    if state.checks_method_names and not has_method(signature, CLASSIFY_METHOD):
        return _refuse_method(signature, "classification", CLASSIFY_METHOD, message)
    if signature.num_inputs != 1:
        say(message, "Expected one input Tensor.")
        return INVALID_ARGUMENT
    if signature.num_outputs != 1 and signature.num_outputs != 2:
        say(message, "Expected one or two output Tensors, found ")
        put_decimal(message, signature.num_outputs)
        return INVALID_ARGUMENT
    plan.input = _endpoint(signature.inputs, signature.num_inputs, "inputs")
    if plan.input is NULL:
        return _refuse_signature(signature, "No classification inputs found in SignatureDef: ", message)
    plan.classes = _endpoint(signature.outputs, signature.num_outputs, "classes")
    plan.scores = _endpoint(signature.outputs, signature.num_outputs, "scores")
    if plan.classes is NULL and plan.scores is NULL:
        return _refuse_signature(
            signature, 'Expected classification signature outputs to contain at least one of "classes" or "scores".'
            " Signature was: ", message)
    return OK


cdef int plan_regression(
    const SessionState* state, const Signature* signature, InferencePlan* plan, ByteWriter* message,
) noexcept nogil:
    plan.classes = NULL
    plan.scores = NULL
    if state.checks_method_names and not has_method(signature, REGRESS_METHOD):
        return _refuse_method(signature, "regression", REGRESS_METHOD, message)
    if signature.num_inputs != 1:
        say(message, "Expected one input Tensor.")
        return INVALID_ARGUMENT
    if signature.num_outputs != 1:
        say(message, "Expected one output Tensor.")
        return INVALID_ARGUMENT
    plan.input = _endpoint(signature.inputs, signature.num_inputs, "inputs")
    if plan.input is NULL:
        return _refuse_signature(signature, "No regression inputs found in SignatureDef: ", message)
    plan.value = _endpoint(signature.outputs, signature.num_outputs, "outputs")
    if plan.value is NULL:
        return _refuse_signature(signature, "No regression outputs found in SignatureDef: ", message)
    return OK
