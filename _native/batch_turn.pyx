"""When a batch is ready, and whose turn it is.

Between queueing and packing of a batched request in the worker. A batch is ready when it is closed or full, or has
waited for its timeout; auto decides by what is running, see _wait_us. Queues take turns; where models have weights,
the one goes first whose model has had the least run time for its weight. The scheduler's mutex guards it all.

Source: tensorflow/core/kernels/batching_util/shared_batch_scheduler.h (the rules).
"""

from libc.stdint cimport INT64_MAX, int64_t

from tensorgate._native.batch_run_times cimport typical_run_us
from tensorgate._native.batch_state cimport Batch, BatchParameters, BatchQueue, BatchScheduler
from tensorgate._native.fair_share cimport take_turn, turn_of
from tensorgate._native.graph_run cimport expected_in_caller_us
from tensorgate._native.posix cimport atomic_load


cdef enum:
    LONG_RUN_US = 300
    # What a batch may take in the thread that reads requests: for each request what one alone may take there, too.
    SHORT_BATCH_US = 500


cdef int64_t _wait_us(const BatchQueue* queue, const Batch* batch) noexcept nogil:
    """How long the batch may wait for more, from its beginning. Auto: while a run of its kind is under way, and for
    those who have just been answered to come again, a part of the time that another run would cost them.
    """
    cdef const BatchParameters* parameters = &queue.batcher.parameters
    cdef int64_t typical_us
    if not parameters.is_auto:
        return parameters.batch_timeout_us
    if queue.num_running:
        return INT64_MAX
    if batch.num_rows >= queue.largest_wave:
        return 0
    typical_us = typical_run_us(queue, 1)
    # A thread that is called to wait costs more than a short run.
    return 0 if typical_us < LONG_RUN_US else min(typical_us // 4, parameters.latency_target_us // 4)


cdef bint _is_ready(const BatchQueue* queue, const Batch* batch, int64_t now_us, int64_t* due_us) noexcept nogil:
    cdef int64_t wait_us
    if not batch.is_open or queue.batcher.scheduler.is_draining:
        return True
    wait_us = _wait_us(queue, batch)
    if wait_us == INT64_MAX:
        return False
    if now_us - batch.began_us >= wait_us:
        return True
    due_us[0] = min(due_us[0], batch.began_us + wait_us)
    return False


cdef bint _is_short(const BatchQueue* queue, const Batch* batch, int64_t now_us) noexcept nogil:
    cdef int64_t expected_us = expected_in_caller_us(
        queue.batcher.state, &queue.history, batch.num_bytes)
    if expected_us == 0 or atomic_load(queue.batcher.not_at_once_until_us) > now_us:
        return False
    expected_us = typical_run_us(queue, batch.num_rows)
    return 0 < expected_us <= SHORT_BATCH_US


cdef Batch** _first_to_take(
    BatchQueue* queue, int64_t now_us, Taking taking, bint full_only, int64_t* due_us, Batch** previous,
) noexcept nogil:
    """Where the batch of the queue stands that can be taken, and the one before it; NULL: none can."""
    cdef Batch** place = &queue.first
    cdef Batch* batch
    previous[0] = NULL
    while place[0] is not NULL:
        batch = place[0]
        if (
            not (full_only and batch.is_open) and _is_ready(queue, batch, now_us, due_us)
            and (taking == TAKE_ANY or _is_short(queue, batch, now_us) == (taking == TAKE_SHORT))
        ):
            return place
        previous[0] = batch
        place = &batch.next
    return NULL


cdef Batch* take_batch(
    BatchScheduler* scheduler, int64_t now_us, Taking taking, bint full_only, int64_t* due_us,
) noexcept nogil:
    cdef BatchQueue* queue = scheduler.turn
    cdef BatchQueue* chosen = NULL
    cdef Batch** place = NULL
    cdef Batch** found
    cdef Batch* previous = NULL
    cdef Batch* before
    cdef Batch* batch
    due_us[0] = INT64_MAX
    while queue is not NULL:
        found = _first_to_take(queue, now_us, taking, full_only, due_us, &before)
        if found is not NULL and (
            chosen is NULL
            or turn_of(&scheduler.shares, &queue.batcher.share) < turn_of(&scheduler.shares, &chosen.batcher.share)
        ):
            chosen = queue
            place = found
            previous = before
            if not scheduler.shares.is_weighted:
                break
        queue = queue.next_in_turn
        if queue is scheduler.turn:
            break
    if chosen is NULL:
        return NULL
    batch = place[0]
    place[0] = batch.next
    if chosen.last is batch:
        chosen.last = previous
    batch.is_open = False
    chosen.num_batches -= 1
    chosen.num_running += 1
    chosen.num_waiting -= batch.num_slices
    chosen.num_waiting_rows -= batch.num_rows
    chosen.num_running_rows += batch.num_rows
    batch.slices_taken = batch.num_slices
    batch.rows_taken = batch.num_rows
    scheduler.turn = chosen.next_in_turn
    take_turn(&scheduler.shares, &chosen.batcher.share)
    return batch


cdef int count_ready(BatchScheduler* scheduler, int64_t now_us, int max_count, int64_t* due_us) noexcept nogil:
    cdef BatchQueue* first = scheduler.turn
    cdef BatchQueue* queue = first
    cdef const Batch* batch
    cdef int count = 0
    due_us[0] = INT64_MAX
    while queue is not NULL and count < max_count:
        batch = queue.first
        while batch is not NULL and count < max_count:
            count += _is_ready(queue, batch, now_us, due_us)
            batch = batch.next
        queue = queue.next_in_turn
        if queue is first:
            break
    return count
