"""Predict in the worker: PredictRequest bytes in, PredictResponse bytes or a status out, without the GIL.

The whole of a request's line there (read → bind → run → encode), and who owns what on it: the tensors and arrays of a
call live in one Work, released once, on whichever way the call ends. Runs on execution threads.

Source: tensorflow_serving/apis/predict.proto; upstream's predict_util.
"""

from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint8_t
from libc.stdlib cimport calloc, free

from tensorgate._native.byte_writer cimport ByteWriter, writer_free, writer_init
from tensorgate._native.graph_run cimport expected_in_caller_us
from tensorgate._native.predict_binding cimport (
    bind_inputs,
    check_in_graph,
    choose_outputs,
    decode_input,
    refuse_scan,
    run_or_say,
    say,
    say_bytes,
    say_name,
)
from tensorgate._native.predict_request cimport (
    SCANNED,
    RequestView,
    ScanOutcome,
    Slice,
    request_free,
    scan_request,
    signature_name,
)
from tensorgate._native.proto_scan cimport ModelSpecView, scan_model_spec_view
from tensorgate._native.proto_wire cimport MAX_LENGTH, ProtoReader, reader_of
from tensorgate._native.response_encode cimport put_model_spec, put_output
from tensorgate._native.session cimport (
    CLASSIFY_METHOD,
    PREDICT_METHOD,
    REGRESS_METHOD,
    Endpoint,
    SessionState,
    Signature,
    find_signature,
    has_method,
)
from tensorgate._native.status_codes cimport (
    FAILED_PRECONDITION,
    INTERNAL,
    OK,
    RESOURCE_EXHAUSTED,
    UNIMPLEMENTED,
    UNKNOWN,
)
from tensorgate._native.tf_c_api cimport TF_Output, TF_Tensor, tf


cdef void run_result_init(RunResult* result) noexcept nogil:
    result.code = OK
    result.run_us = 0
    result.batch_rows = 0
    result.padding_rows = 0
    writer_init(&result.message)
    writer_init(&result.response)


cdef void run_result_free(RunResult* result) noexcept nogil:
    writer_free(&result.message)
    writer_free(&result.response)


cdef int64_t expected_request_us(SessionState* state, const uint8_t* payload, size_t size) noexcept nogil:
    cdef ModelSpecView spec
    cdef Slice name
    cdef Signature* signature
    if state.may_run_long or not scan_model_spec_view(payload, size, 1, &spec):
        return 0
    name = signature_name(&spec)
    signature = find_signature(state, name.data, name.size)
    return 0 if signature is NULL else expected_in_caller_us(state, &signature.history, size)


# --- one call ---------------------------------------------------------------------------------------------------------

cdef struct Work:
    # Arrays sized by the signature. The tensors are owned; NULL where there is none (yet).
    TF_Tensor** inputs
    TF_Output* feeds
    Endpoint** chosen
    TF_Output* fetches
    TF_Tensor** outputs
    int num_outputs


cdef bint _work_init(Work* work, const Signature* signature) noexcept nogil:
    """False when memory runs out; _work_free comes after, all the same."""
    cdef size_t num_inputs = <size_t>signature.num_inputs + 1
    cdef size_t num_outputs = <size_t>signature.num_outputs + 1
    work.num_outputs = 0
    work.inputs = <TF_Tensor**>calloc(num_inputs, sizeof(TF_Tensor*))
    work.feeds = <TF_Output*>calloc(num_inputs, sizeof(TF_Output))
    work.chosen = <Endpoint**>calloc(num_outputs, sizeof(Endpoint*))
    work.fetches = <TF_Output*>calloc(num_outputs, sizeof(TF_Output))
    work.outputs = <TF_Tensor**>calloc(num_outputs, sizeof(TF_Tensor*))
    return not (
        work.inputs is NULL or work.feeds is NULL or work.chosen is NULL or work.fetches is NULL
        or work.outputs is NULL)


cdef void _work_free(Work* work, const Signature* signature) noexcept nogil:
    cdef int i
    if work.inputs is not NULL:
        for i in range(signature.num_inputs):
            if work.inputs[i] is not NULL:
                tf.DeleteTensor(work.inputs[i])
    if work.outputs is not NULL:
        # A run that fails half-way leaves the outputs it had made.
        for i in range(signature.num_outputs):
            if work.outputs[i] is not NULL:
                tf.DeleteTensor(work.outputs[i])
    free(work.inputs)
    free(work.feeds)
    free(work.chosen)
    free(work.fetches)
    free(work.outputs)


cdef int _decode(void* owner, int index, ProtoReader body, Slice name, ByteWriter* message) noexcept nogil:
    """A TakeInput of a Work."""
    return decode_input(body, name, &(<Work*>owner).inputs[index], message)


cdef int _run(
    SessionState* state, Signature* signature, size_t request_size, Work* work, int64_t deadline_us, RunResult* result,
) noexcept nogil:
    cdef int code, i
    for i in range(signature.num_inputs):
        code = check_in_graph(&signature.inputs[i], &result.message)
        if code != OK:
            return code
        work.feeds[i] = signature.inputs[i].output
    for i in range(work.num_outputs):
        code = check_in_graph(work.chosen[i], &result.message)
        if code != OK:
            return code
        work.fetches[i] = work.chosen[i].output
    return run_or_say(
        state, &signature.history, request_size, work.feeds, work.inputs, signature.num_inputs, work.fetches,
        work.outputs, work.num_outputs, NULL, 0, deadline_us, &result.run_us, &result.message)


cdef int _encode(
    SessionState* state, Signature* signature, Work* work, const ModelSpecView* spec, RunResult* result,
) noexcept nogil:
    cdef int i
    for i in range(work.num_outputs):
        if work.outputs[i] is NULL:
            say(&result.message, "Predict internal error")
            return UNKNOWN
        if not put_output(
            &result.response, work.chosen[i].alias.data, work.chosen[i].alias.size, work.outputs[i],
            state.outputs_as_content,
        ):
            say(&result.message, "output has a dtype that cannot be sent to a client: ")
            say_bytes(&result.message, work.chosen[i].alias.data, work.chosen[i].alias.size)
            return UNIMPLEMENTED
    put_model_spec(
        &result.response, 2, spec.name, spec.name_size, state.version, signature.name.data, signature.name.size)
    return end_response(result)


cdef int end_response(RunResult* result) noexcept nogil:
    if result.response.failed:
        say(&result.message, "not enough memory for the response")
        return RESOURCE_EXHAUSTED
    if result.response.size > MAX_LENGTH:
        say(&result.message, "the response is larger than a protobuf message can be (2 GiB)")
        return RESOURCE_EXHAUSTED
    return OK


cdef bint _is_predictable(const Signature* signature) noexcept nogil:
    return (
        has_method(signature, PREDICT_METHOD) or has_method(signature, CLASSIFY_METHOD)
        or has_method(signature, REGRESS_METHOD))


cdef Signature* predict_signature(SessionState* state, const RequestView* request, RunResult* result) noexcept nogil:
    cdef Slice name = signature_name(&request.spec)
    cdef Signature* signature = find_signature(state, name.data, name.size)
    if signature is NULL:
        say(&result.message, 'Serving signature key "')
        say_bytes(&result.message, name.data, name.size)
        say(&result.message, '" not found.')
        result.code = FAILED_PRECONDITION
        return NULL
    if state.checks_method_names and not _is_predictable(signature):
        say(
            &result.message, "Expected prediction signature method_name to be one of {tensorflow/serving/predict,"
            " tensorflow/serving/classify, tensorflow/serving/regress}. Was: ")
        say_name(&result.message, &signature.method_name)
        result.code = INTERNAL
        return NULL
    return signature


cdef int _predict_scanned(
    SessionState* state, RequestView* request, size_t request_size, int64_t deadline_us, RunResult* result,
) noexcept nogil:
    cdef Signature* signature = predict_signature(state, request, result)
    cdef Work work
    cdef int code = OK
    if signature is NULL:
        return result.code
    if not _work_init(&work, signature):
        say(&result.message, "not enough memory for the request")
        code = RESOURCE_EXHAUSTED
    if code == OK:
        code = bind_inputs(request, signature, _decode, &work, &result.message)
    if code == OK:
        code = choose_outputs(request, signature, work.chosen, &work.num_outputs, &result.message)
    if code == OK:
        code = _run(state, signature, request_size, &work, deadline_us, result)
    if code == OK:
        code = _encode(state, signature, &work, &request.spec, result)
    _work_free(&work, signature)
    return code


cdef void predict(
    SessionState* state, const uint8_t* payload, size_t size, int64_t deadline_us, RunResult* result,
) noexcept nogil:
    cdef RequestView request
    cdef ScanOutcome outcome = scan_request(reader_of(payload, size), &request)
    if outcome == SCANNED:
        result.code = _predict_scanned(state, &request, size, deadline_us, result)
    else:
        result.code = refuse_scan(outcome, &result.message)
    request_free(&request)
