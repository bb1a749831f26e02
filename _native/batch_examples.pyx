"""A Classify, Regress or MultiInference as a task that can be merged with others: its rows are its examples.

First step of a batched request in the worker (read → plan → queue → pack → run → split → encode), and its last one; for
the same threads as batch_tasks. The serialized examples are written straight into the batch; what comes out is copied
once more, as one tensor an output, for the checks and encoders that requests alone have too.

Source: upstream's classifier.cc, regressor.cc and multi_inference.cc over batching_session.
"""

from libc.stdint cimport int64_t
from libc.stdlib cimport calloc, free

from tensorgate._native.batch_packing cimport copy_rows, free_unpacked
from tensorgate._native.batch_state cimport Batcher, BatchInput, BatchTask
from tensorgate._native.batch_tasks cimport PREPARED, REFUSED, RUNS_ALONE, Preparation, check_task, is_mergeable
from tensorgate._native.byte_writer cimport ByteWriter
from tensorgate._native.example_input cimport check_examples
from tensorgate._native.execution_pool cimport Job
from tensorgate._native.inference cimport Inference, begin_inference, end_inference, inference_free
from tensorgate._native.predict_binding cimport check_in_graph, refuse_scan
from tensorgate._native.predict_request cimport SCAN_NO_MEMORY
from tensorgate._native.status_codes cimport OK
from tensorgate._native.tf_c_api cimport DT_STRING, TF_Output, TF_TString


cdef struct InferenceBatchTask:
    # One block of memory with the arrays that it points to.
    BatchTask task              # first
    Inference inference


cdef InferenceBatchTask* _new_task(Job* job) noexcept nogil:
    cdef InferenceBatchTask* made = <InferenceBatchTask*>calloc(1, sizeof(InferenceBatchTask))
    if made is not NULL:
        made.task.job = job
        made.task.state = job.state
        made.task.enqueued_us = job.enqueued_us
        made.task.respond = _respond
        made.task.release = _release
    return made


cdef bint _make_arrays(InferenceBatchTask* made) noexcept nogil:
    """False: out of memory."""
    cdef BatchTask* task = &made.task
    cdef size_t num_fetches = <size_t>made.inference.run.num_fetched
    task.num_inputs = made.inference.run.num_fed
    task.num_fetches = made.inference.run.num_fetched
    task.inputs = <BatchInput*>calloc(<size_t>task.num_inputs + 1, sizeof(BatchInput))
    task.fetches = <TF_Output*>calloc(num_fetches + 1, sizeof(TF_Output))
    return task.inputs is not NULL and task.fetches is not NULL


cdef int _bind(const Batcher* batcher, InferenceBatchTask* made, ByteWriter* message) noexcept nogil:
    cdef Inference* inference = &made.inference
    cdef BatchTask* task = &made.task
    cdef BatchInput* input
    cdef int i
    cdef int code = check_examples(&inference.input, message)
    if code == OK and not _make_arrays(made):
        code = refuse_scan(SCAN_NO_MEMORY, message)
    for i in range(task.num_inputs):
        if code == OK:
            code = check_in_graph(inference.run.fed[i], message)
            input = &task.inputs[i]
            input.endpoint = inference.run.fed[i]
            input.feed = input.endpoint.output
            input.examples = &inference.input
            input.values.dtype = DT_STRING
            input.values.element_size = sizeof(TF_TString)
            input.values.num_elements = inference.input.num_examples
            input.num_dims = 1
            input.dims[0] = <int64_t>inference.input.num_examples
    for i in range(task.num_fetches):
        if code == OK:
            code = check_in_graph(inference.run.fetched[i], message)
            task.fetches[i] = inference.run.fetched[i].output
    task.may_merge = True
    if inference.num_tasks:
        task.signature_name = &inference.tasks[0].signature.name
    for i in range(inference.num_tasks):
        task.may_merge &= inference.tasks[i].signature.is_batchable
    return code if code != OK else check_task(batcher, task, message)


cdef Preparation prepare_inference(const Batcher* batcher, Job* job, BatchTask** task) noexcept nogil:
    cdef InferenceBatchTask* made = _new_task(job)
    if made is NULL:
        job.result.code = refuse_scan(SCAN_NO_MEMORY, &job.result.message)
        return REFUSED
    job.result.code = begin_inference(
        job.state, job.method, job.payload, job.size, &made.inference, &job.result)
    if job.result.code == OK:
        job.result.code = _bind(batcher, made, &job.result.message)
    if job.result.code == OK and is_mergeable(&made.task):
        task[0] = &made.task
        return PREPARED
    _release(&made.task)
    return RUNS_ALONE if job.result.code == OK else REFUSED


cdef int _respond(BatchTask* task) noexcept nogil:
    cdef Inference* inference = &(<InferenceBatchTask*>task).inference
    cdef int code, i
    inference.run.num_examples = task.num_rows
    for i in range(task.num_fetches):
        code = copy_rows(task, i, &inference.run.outputs[i], &task.job.result.message)
        if code != OK:
            return code
    return end_inference(task.state, inference, &task.job.result)


cdef void _release(BatchTask* task) noexcept nogil:
    cdef InferenceBatchTask* made = <InferenceBatchTask*>task
    if task.inputs is not NULL:
        free_unpacked(task)
    if task.slices is not NULL and task.slices != &task.whole:
        free(task.slices)
    inference_free(&made.inference)
    free(task.inputs)
    free(task.fetches)
    free(made)
