"""Runs a batch: packs its inputs, runs the session once, and has each request that is complete write its response.

Middle of a batched request's way in the worker (prepare → queue → pack → run → split → encode). In the thread that has
taken the batch, without a lock, but for the count of a split request's parts.

Source: upstream's batching_session (the checks of what comes out, and their texts).
"""

from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint64_t
from libc.stdlib cimport calloc, free

from tensorgate._native.batch_counters cimport count_wait
from tensorgate._native.batch_packing cimport pack_input
from tensorgate._native.batch_queue cimport batch_end_task, drop_dead, padded_size
from tensorgate._native.batch_state cimport (
    MAX_BATCH_RANK,
    Batch,
    BatchInput,
    BatchOutputs,
    BatchQueue,
    BatchSlice,
    BatchTask,
)
from tensorgate._native.byte_writer cimport ByteWriter, put_bytes, writer_free, writer_init
from tensorgate._native.clocks cimport monotonic_us, thread_cpu_us
from tensorgate._native.graph_run cimport expected_in_caller_us, own_time_us
from tensorgate._native.posix cimport atomic_add, pthread_mutex_lock, pthread_mutex_unlock
from tensorgate._native.predict_binding cimport refuse_scan, run_or_say, say, say_name
from tensorgate._native.predict_request cimport SCAN_NO_MEMORY
from tensorgate._native.status_codes cimport FAILED_PRECONDITION, INTERNAL, OK
from tensorgate._native.tf_c_api cimport TF_Tensor, tf


# --- outputs ----------------------------------------------------------------------------------------------------------

cdef BatchOutputs* _new_outputs(const BatchQueue* queue) noexcept nogil:
    cdef size_t num_dims = <size_t>queue.num_feeds * MAX_BATCH_RANK
    cdef BatchOutputs* outputs = <BatchOutputs*>calloc(
        1, sizeof(BatchOutputs) + num_dims * sizeof(int64_t) + <size_t>queue.num_fetches * sizeof(TF_Tensor*))
    if outputs is not NULL:
        outputs.num_users = 1
        outputs.padded_dims = <int64_t*>(outputs + 1)
        outputs.tensors = <TF_Tensor**>(outputs.padded_dims + num_dims)
        outputs.num_tensors = queue.num_fetches
    return outputs


cdef void _leave_outputs(BatchOutputs* outputs) noexcept nogil:
    cdef int i
    if outputs is NULL or atomic_add(&outputs.num_users, -1) > 0:
        return
    for i in range(outputs.num_tensors):
        if outputs.tensors[i] is not NULL:
            tf.DeleteTensor(outputs.tensors[i])
    free(outputs)


cdef int _check_outputs(const BatchOutputs* outputs, ByteWriter* message) noexcept nogil:
    cdef int i
    for i in range(outputs.num_tensors):
        if outputs.tensors[i] is NULL:
            say(message, "Wrong number of batched output tensors")
            return INTERNAL
        if tf.NumDims(outputs.tensors[i]) == 0:
            say(message, "Batched output tensor has 0 dimensions")
            return FAILED_PRECONDITION
        if tf.Dim(outputs.tensors[i], 0) != outputs.num_rows:
            say(
                message, "Batched output tensor's 0th dimension does not equal the sum of the 0th dimension sizes of"
                " the input tensors")
            return FAILED_PRECONDITION
    return OK


# --- the run ----------------------------------------------------------------------------------------------------------

cdef int _check_shapes(const Batch* batch, ByteWriter* message) noexcept nogil:
    """Where requests of unlike shapes are let into one batch, they fail as they would upstream."""
    cdef const BatchTask* first = batch.first.task
    cdef const BatchSlice* slice = batch.first.next
    cdef const BatchInput* a
    cdef const BatchInput* b
    cdef bint same, can_pad
    cdef int i, d
    while slice is not NULL:
        for i in range(first.num_inputs):
            a = &first.inputs[i]
            b = &slice.task.inputs[i]
            same = a.num_dims == b.num_dims
            can_pad = batch.queue.batcher.parameters.pads_lengths and a.values.num_elements and b.values.num_elements
            for d in range(1, a.num_dims if same else 0):
                if a.dims[d] != b.dims[d] and not can_pad:
                    same = False
            if not same:
                say(message, "Tensors with name '")
                say_name(message, &a.endpoint.tensor_name)
                say(
                    message, "' from different tasks have different shapes and padding is turned off. Set"
                    " pad_variable_length_inputs to true, or ensure that all tensors with the same name have equal"
                    " dimensions starting with the first dim.")
                return FAILED_PRECONDITION
            if a.values.dtype != b.values.dtype:
                say(message, "Tensor concat operation failed: INVALID_ARGUMENT: Cannot concatenate tensors that have"
                    " different data types.")
                return INTERNAL
        slice = slice.next
    return OK


cdef int64_t _latest_deadline_us(const Batch* batch) noexcept nogil:
    cdef const BatchSlice* slice = batch.first
    cdef int64_t latest_us = -1
    while slice is not NULL:
        if slice.task.job.deadline_us < 0:
            return -1
        latest_us = max(latest_us, slice.task.job.deadline_us)
        slice = slice.next
    return latest_us


cdef int _run(Batch* batch, BatchOutputs* outputs, uint64_t* run_us, ByteWriter* message) noexcept nogil:
    cdef BatchQueue* queue = batch.queue
    cdef bint in_caller = expected_in_caller_us(queue.batcher.state, &queue.history, batch.num_bytes) != 0
    cdef int64_t began_cpu_us
    cdef TF_Tensor** inputs
    cdef int code = OK, i
    if queue.batcher.parameters.refuses_mixed_shapes:
        code = _check_shapes(batch, message)
        if code != OK:
            return code
    inputs = <TF_Tensor**>calloc(queue.num_feeds, sizeof(TF_Tensor*))
    if inputs is NULL:
        return refuse_scan(SCAN_NO_MEMORY, message)
    for i in range(queue.num_feeds):
        if code == OK:
            code = pack_input(
                batch, i, outputs.num_rows, queue.batcher.scheduler.buffers, &inputs[i],
                outputs.padded_dims + i * MAX_BATCH_RANK, message)
    if code == OK:
        began_cpu_us = thread_cpu_us()
        code = run_or_say(
            queue.batcher.state, &queue.history, batch.num_bytes, queue.feeds, inputs, queue.num_feeds, queue.fetches,
            outputs.tensors, queue.num_fetches, NULL, 0, _latest_deadline_us(batch), run_us, message)
        batch.run_us = run_us[0]
        if in_caller:
            # A batch that is taken to be long because of others would be handed from thread to thread, which costs more
            # still.
            batch.run_us = <uint64_t>own_time_us(<int64_t>run_us[0], began_cpu_us)
    for i in range(queue.num_feeds):
        if inputs[i] is not NULL:
            tf.DeleteTensor(inputs[i])
    free(inputs)
    return code if code != OK else _check_outputs(outputs, message)


# --- the tasks --------------------------------------------------------------------------------------------------------

cdef void _end_slice(Batch* batch, BatchTask* task) noexcept nogil:
    """One of its slices has run; of the last one, writes the response."""
    cdef bint is_last = True
    cdef int i
    if task.num_slices > 1:
        pthread_mutex_lock(&batch.queue.batcher.scheduler.mutex)
        task.num_unfinished -= 1
        is_last = task.num_unfinished == 0
        pthread_mutex_unlock(&batch.queue.batcher.scheduler.mutex)
    if not is_last:
        return
    task.job.result.code = task.code if task.code != OK else task.respond(task)
    for i in range(task.num_slices):
        _leave_outputs(task.slices[i].outputs)
    batch_end_task(batch, task)


cdef void _fail(BatchTask* task, int code, const ByteWriter* message) noexcept nogil:
    """The first failure of several is the task's."""
    if task.code == OK:
        task.code = code
        put_bytes(&task.job.result.message, message.data, message.size)


cdef void batch_run(Batch* batch) noexcept nogil:
    cdef BatchOutputs* outputs
    cdef BatchSlice* slice
    cdef BatchSlice* following
    cdef BatchTask* task
    cdef ByteWriter message
    cdef int64_t now_us = monotonic_us()
    cdef uint64_t run_us = 0
    cdef int code
    drop_dead(batch, now_us)
    batch.padded_rows = batch.num_rows
    if batch.first is NULL:
        return
    writer_init(&message)
    outputs = _new_outputs(batch.queue)
    if outputs is NULL:
        code = refuse_scan(SCAN_NO_MEMORY, &message)
    else:
        outputs.num_rows = padded_size(&batch.queue.batcher.parameters, batch.num_rows)
        batch.padded_rows = outputs.num_rows
        code = _run(batch, outputs, &run_us, &message)
    batch.code = code
    slice = batch.first
    while slice is not NULL:
        following = slice.next
        task = slice.task
        batch.queue_us += <uint64_t>(now_us - task.enqueued_us)
        count_wait(batch.queue, now_us - task.enqueued_us)
        if task.num_slices > 1:
            pthread_mutex_lock(&batch.queue.batcher.scheduler.mutex)
        task.job.queue_us = max(task.job.queue_us, <uint64_t>(now_us - task.enqueued_us))
        task.job.result.run_us += run_us
        task.job.result.batch_rows = <uint64_t>batch.padded_rows
        task.job.result.padding_rows = <uint64_t>(batch.padded_rows - batch.num_rows)
        if code != OK:
            _fail(task, code, &message)
        else:
            slice.outputs = outputs
            atomic_add(&outputs.num_users, 1)
        if task.num_slices > 1:
            pthread_mutex_unlock(&batch.queue.batcher.scheduler.mutex)
        _end_slice(batch, task)
        slice = following
    _leave_outputs(outputs)
    writer_free(&message)
