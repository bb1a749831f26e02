"""The queues of a batch scheduler: how tasks form batches, and which ones have to leave.

Second step of a batched request in the worker (prepare → queue → pack → run → split → encode); batch_turn takes the
batches out again. Nothing here waits, runs or answers; the scheduler's mutex guards it all.

As upstream's shared batch scheduler has it: a task joins the open batch if it fits, else that one is closed and another
begun. Ours is that a queue may have several open batches, one for each shape, so that requests of unlike shapes do not
meet.

Source: tensorflow/core/kernels/batching_util/shared_batch_scheduler.h (the rules and texts).
"""

from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy

from tensorgate._native.batch_packing cimport fits_into_tensor, unpack_inputs
from tensorgate._native.batch_run_times cimport queue_limit
from tensorgate._native.batch_state cimport (
    MAX_BATCH_RANK,
    Batch,
    Batcher,
    BatchInput,
    BatchParameters,
    BatchQueue,
    BatchScheduler,
    BatchSlice,
    BatchTask,
    PaddingCounters,
)
from tensorgate._native.byte_writer cimport ByteWriter, put_decimal
from tensorgate._native.clocks cimport monotonic_us
from tensorgate._native.execution_pool cimport Job
from tensorgate._native.posix cimport atomic_load
from tensorgate._native.predict_binding cimport refuse_scan, say
from tensorgate._native.predict_request cimport SCAN_NO_MEMORY
from tensorgate._native.status_codes cimport CANCELLED, DEADLINE_EXCEEDED, OK, UNAVAILABLE
from tensorgate._native.tensor_decode cimport MAX_TENSOR_BYTES
from tensorgate._native.tf_c_api cimport TF_Output


# --- queues -----------------------------------------------------------------------------------------------------------

cdef inline bint _is_same(const TF_Output* a, const TF_Output* b) noexcept nogil:
    return a.oper == b.oper and a.index == b.index


cdef bint _is_for(const BatchQueue* queue, const BatchTask* task) noexcept nogil:
    cdef int i
    if queue.num_feeds != task.num_inputs or queue.num_fetches != task.num_fetches:
        return False
    for i in range(queue.num_feeds):
        if not _is_same(&queue.feeds[i], &task.inputs[i].feed):
            return False
    for i in range(queue.num_fetches):
        if not _is_same(&queue.fetches[i], &task.fetches[i]):
            return False
    return True


cdef BatchQueue* _new_queue(Batcher* batcher, const BatchTask* task) noexcept nogil:
    cdef BatchScheduler* scheduler = batcher.scheduler
    cdef BatchQueue* queue = <BatchQueue*>calloc(1, sizeof(BatchQueue))
    cdef int i
    if queue is NULL:
        return NULL
    queue.feeds = <TF_Output*>calloc(task.num_inputs, sizeof(TF_Output))
    queue.fetches = <TF_Output*>calloc(task.num_fetches, sizeof(TF_Output))
    queue.paddings = <PaddingCounters*>calloc(batcher.parameters.num_allowed + 1, sizeof(PaddingCounters))
    if queue.feeds is NULL or queue.fetches is NULL or queue.paddings is NULL:
        queue_free(queue)
        return NULL
    for i in range(task.num_inputs):
        queue.feeds[i] = task.inputs[i].feed
    queue.num_feeds = task.num_inputs
    memcpy(queue.fetches, task.fetches, task.num_fetches * sizeof(TF_Output))
    queue.num_fetches = task.num_fetches
    queue.signature = task.signature_name
    queue.batcher = batcher
    queue.next = batcher.queues
    batcher.queues = queue
    if scheduler.turn is NULL:
        queue.next_in_turn = queue
        scheduler.turn = queue
    else:
        queue.next_in_turn = scheduler.turn.next_in_turn
        scheduler.turn.next_in_turn = queue
    return queue


cdef BatchQueue* queue_for(Batcher* batcher, const BatchTask* task) noexcept nogil:
    cdef BatchQueue* queue = batcher.queues
    while queue is not NULL and not _is_for(queue, task):
        queue = queue.next
    return _new_queue(batcher, task) if queue is NULL else queue


cdef void queue_free(BatchQueue* queue) noexcept nogil:
    free(queue.feeds)
    free(queue.fetches)
    free(queue.paddings)
    free(queue)


# --- batches ----------------------------------------------------------------------------------------------------------

cdef Batch* _new_batch(BatchQueue* queue, int64_t began_us) noexcept nogil:
    cdef Batch* batch = <Batch*>calloc(1, sizeof(Batch))
    if batch is NULL:
        return NULL
    batch.largest = <int64_t*>calloc(<size_t>queue.num_feeds * MAX_BATCH_RANK, sizeof(int64_t))
    if batch.largest is NULL:
        free(batch)
        return NULL
    batch.queue = queue
    batch.is_open = True
    batch.began_us = began_us
    if queue.first is NULL:
        queue.first = batch
    else:
        queue.last.next = batch
    queue.last = batch
    queue.num_batches += 1
    return batch


cdef void batch_free(Batch* batch) noexcept nogil:
    free(batch.largest)
    free(batch)


cdef void _append(Batch* batch, BatchSlice* slice) noexcept nogil:
    cdef BatchTask* task = slice.task
    cdef int64_t* largest
    cdef int i, d
    slice.next = NULL
    slice.row_in_batch = batch.num_rows
    if batch.first is NULL:
        batch.first = slice
    else:
        batch.last.next = slice
    batch.last = slice
    batch.num_slices += 1
    batch.num_rows += slice.num_rows
    batch.num_bytes += task.num_bytes // <size_t>task.num_rows * <size_t>slice.num_rows
    for i in range(task.num_inputs):
        largest = batch.largest + i * MAX_BATCH_RANK
        for d in range(1, task.inputs[i].num_dims):
            largest[d] = max(largest[d], task.inputs[i].dims[d])
    batch.queue.num_waiting += 1
    batch.queue.num_waiting_rows += slice.num_rows


cdef bint _has_same_rows(const BatchInput* a, const BatchInput* b) noexcept nogil:
    cdef int d
    for d in range(1, a.num_dims):
        if a.dims[d] != b.dims[d]:
            return False
    return True


cdef bint _fits_with(const Batch* batch, const BatchTask* task, int64_t num_rows) noexcept nogil:
    """Whether rows of the task can be in one tensor with those of the batch, each caller getting its own back."""
    cdef const BatchParameters* parameters = &batch.queue.batcher.parameters
    cdef const BatchTask* other = batch.first.task
    cdef const BatchInput* input
    cdef int64_t dims[MAX_BATCH_RANK]
    cdef bint is_padded = False
    cdef int i, d
    if parameters.refuses_mixed_shapes:
        return True
    for i in range(task.num_inputs):
        input = &task.inputs[i]
        if input.num_dims != other.inputs[i].num_dims or input.values.dtype != other.inputs[i].values.dtype:
            return False
        if not _has_same_rows(input, &other.inputs[i]):
            # An empty tensor has no element to be padded with.
            if not parameters.pads_lengths or not input.values.num_elements or not other.inputs[i].values.num_elements:
                return False
            is_padded = True
    if not is_padded and not parameters.pads_lengths and not parameters.num_allowed:
        return batch.num_bytes + task.num_bytes <= MAX_TENSOR_BYTES
    for i in range(task.num_inputs):
        input = &task.inputs[i]
        dims[0] = padded_size(parameters, batch.num_rows + num_rows)
        for d in range(1, input.num_dims):
            dims[d] = max(batch.largest[i * MAX_BATCH_RANK + d], input.dims[d])
        if not fits_into_tensor(dims, input.num_dims, input.values.element_size):
            return False
    return True


cdef int64_t padded_size(const BatchParameters* parameters, int64_t num_rows) noexcept nogil:
    cdef int i
    for i in range(parameters.num_allowed):
        if parameters.allowed_sizes[i] >= num_rows:
            return parameters.allowed_sizes[i]
    return num_rows


cdef Batch* _open_batch(const BatchQueue* queue, const BatchTask* task) noexcept nogil:
    """The open batch that the task could join if there were room; NULL: none."""
    cdef Batch* batch = queue.first
    while batch is not NULL:
        if batch.is_open and _fits_with(batch, task, 1):
            return batch
        batch = batch.next
    return NULL


cdef int _refuse(BatchQueue* queue) noexcept nogil:
    queue.counters.refused += 1
    return UNAVAILABLE


cdef void drop_dead(Batch* batch, int64_t now_us) noexcept nogil:
    cdef BatchSlice** place = &batch.first
    cdef BatchSlice* slice
    cdef BatchTask* task
    cdef int code
    batch.last = NULL
    batch.num_rows = 0
    batch.num_slices = 0
    while place[0] is not NULL:
        slice = place[0]
        task = slice.task
        code = OK
        # Of a request that was split some rows may have run.
        if task.num_slices == 1:
            if atomic_load(&task.job.cancelled):
                code = CANCELLED
            elif 0 <= task.job.deadline_us <= now_us:
                code = DEADLINE_EXCEEDED
        if code == OK:
            slice.row_in_batch = batch.num_rows
            batch.num_rows += slice.num_rows
            batch.num_slices += 1
            batch.last = slice
            place = &slice.next
            continue
        place[0] = slice.next
        task.job.queue_us = <uint64_t>(now_us - task.enqueued_us)
        task.job.result.code = code
        if code == CANCELLED:
            say(&task.job.result.message, "the request was cancelled before it ran")
        else:
            say(&task.job.result.message, "Run() timeout exceeded while waiting in batching queue")
        batch_end_task(batch, task)


cdef void batch_end_task(Batch* batch, BatchTask* task) noexcept nogil:
    cdef Job* job = task.job
    task.release(task)
    job.next = NULL
    if batch.first_done is NULL:
        batch.first_done = job
    else:
        batch.last_done.next = job
    batch.last_done = job


cdef void _drop_dead(BatchQueue* queue) noexcept nogil:
    """Of all batches; what is left of nothing goes, and the jobs wait in the queue's list of dropped ones."""
    cdef int64_t now_us = monotonic_us()
    cdef int64_t num_rows
    cdef int num_slices
    cdef Batch** place = &queue.first
    cdef Batch* batch
    queue.last = NULL
    while place[0] is not NULL:
        batch = place[0]
        num_rows = batch.num_rows
        num_slices = batch.num_slices
        drop_dead(batch, now_us)
        queue.num_waiting -= num_slices - batch.num_slices
        queue.num_waiting_rows -= num_rows - batch.num_rows
        queue.counters.expired += <uint64_t>(num_slices - batch.num_slices)
        if batch.first_done is not NULL:
            batch.last_done.next = queue.batcher.scheduler.dropped
            queue.batcher.scheduler.dropped = batch.first_done
            batch.first_done = NULL
        if batch.first is NULL:
            place[0] = batch.next
            queue.num_batches -= 1
            batch_free(batch)
        else:
            queue.last = batch
            place = &batch.next


cdef int _num_idle(const BatchScheduler* scheduler) noexcept nogil:
    """Threads that would take a batch at once."""
    return scheduler.num_idle - scheduler.num_called if scheduler.num_idle > scheduler.num_called else 0


cdef int _add_whole(BatchQueue* queue, BatchTask* task, Batch* batch, ByteWriter* message) noexcept nogil:
    cdef const BatchParameters* parameters = &queue.batcher.parameters
    cdef int64_t limit = queue_limit(queue)
    cdef int64_t max_batches = max(parameters.max_enqueued_batches, 1)
    if batch is not NULL and (
        batch.num_rows + task.num_rows > limit or not _fits_with(batch, task, task.num_rows)
        or (parameters.is_auto and not task.may_merge)
    ):
        batch.is_open = False
        batch = NULL
    if batch is NULL:
        # What a thread takes as soon as it has woken up does not count as waiting, nor what nobody waits for.
        max_batches += _num_idle(queue.batcher.scheduler)
        if queue.num_batches >= max_batches:
            _drop_dead(queue)
        if queue.num_batches >= max_batches:
            max_batches = max(parameters.max_enqueued_batches, 1)
            say(message, "The batch scheduling queue to which this task was submitted is full; currently ")
            put_decimal(message, queue.num_batches)
            say(message, " batches enqueued and max_enqueued_batches is ")
            put_decimal(message, max_batches)
            return _refuse(queue)
        batch = _new_batch(queue, task.enqueued_us)
        if batch is NULL:
            return refuse_scan(SCAN_NO_MEMORY, message)
    task.slices = &task.whole
    task.num_slices = 1
    task.num_unfinished = 1
    task.whole.task = task
    task.whole.first_row = 0
    task.whole.num_rows = task.num_rows
    _append(batch, &task.whole)
    if batch.num_rows >= limit or (parameters.is_auto and not task.may_merge):
        batch.is_open = False
    return OK


cdef int _add_split(BatchQueue* queue, BatchTask* task, Batch* batch, ByteWriter* message) noexcept nogil:
    cdef const BatchParameters* parameters = &queue.batcher.parameters
    cdef int64_t limit = parameters.max_execution_batch_size
    # An open batch with nothing in it counts as one, as upstream always has one.
    cdef int64_t num_batches = queue.num_batches + (batch is NULL)
    cdef int64_t room = limit - batch.num_rows if batch is not NULL else limit
    cdef int64_t max_batches = parameters.max_enqueued_batches + _num_idle(queue.batcher.scheduler)
    cdef int64_t num_new = max_batches - num_batches
    cdef int64_t capacity = (num_new * limit if num_new > 0 else 0) + room
    cdef int64_t done = 0, num_slices
    cdef BatchSlice* slice
    cdef int i
    if task.num_rows > capacity:
        say(message, "The batch scheduling queue to which this task was submitted is full; task size is ")
        put_decimal(message, task.num_rows)
        say(message, " but scheduling capacity is only ")
        put_decimal(message, capacity)
        say(message, " (num_enqueued_batches=")
        put_decimal(message, num_batches)
        say(message, ", max_enqueued_batches=")
        put_decimal(message, parameters.max_enqueued_batches)
        say(message, ", open_batch_size=")
        put_decimal(message, batch.num_rows if batch is not NULL else 0)
        say(message, ", max_execution_batch_size=")
        put_decimal(message, limit)
        say(message, ")")
        return _refuse(queue)
    if task.num_rows <= room:
        return _add_whole(queue, task, batch, message)
    num_slices = 1 + (task.num_rows - room + limit - 1) // limit
    task.slices = <BatchSlice*>calloc(num_slices, sizeof(BatchSlice))
    if task.slices is NULL or not unpack_inputs(task):
        return refuse_scan(SCAN_NO_MEMORY, message)
    for i in range(<int>num_slices):
        slice = &task.slices[i]
        slice.task = task
        slice.first_row = done
        slice.num_rows = min(room if i == 0 else limit, task.num_rows - done)
        if batch is NULL:
            batch = _new_batch(queue, task.enqueued_us)
            if batch is NULL:
                # Those before it run for nobody.
                task.code = refuse_scan(SCAN_NO_MEMORY, message)
                break
        _append(batch, slice)
        done += slice.num_rows
        task.num_slices += 1
        task.num_unfinished += 1
        if batch.num_rows >= limit:
            batch.is_open = False
        batch = NULL
    return OK if task.num_slices else task.code


cdef int queue_add(BatchQueue* queue, BatchTask* task, ByteWriter* message) noexcept nogil:
    cdef Batch* batch = _open_batch(queue, task)
    cdef int code
    task.queue = queue
    if queue.batcher.parameters.splits:
        code = _add_split(queue, task, batch, message)
    else:
        code = _add_whole(queue, task, batch, message)
    if code == OK:
        queue.largest_wave = max(queue.largest_wave, queue.num_waiting_rows + queue.num_running_rows)
    return code
