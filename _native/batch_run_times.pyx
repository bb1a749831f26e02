"""What a queue's runs take, by their number of rows, and how many rows a batch of auto may have for that.

Beside the way of a batched request: learnt from each run, asked when a batch is formed and when it is taken. The
scheduler's mutex guards it all.
"""

from libc.stdint cimport int64_t

from tensorgate._native.batch_state cimport NUM_SIZE_CLASSES, BatchParameters, BatchQueue, size_class_of


cdef int64_t queue_limit(const BatchQueue* queue) noexcept nogil:
    """Rows of a batch. Auto: as many as run within half the time that a request may take, as far as is known.

    Half, since a request may come just as a batch has begun to run. Beyond that only as long as twice the rows take
    much less than twice the time: then smaller batches would keep those who wait even longer. What has not been tried
    is taken to be good. Twice the rows never take much more than twice the time: where they seem to, a run was
    disturbed, as first runs are.
    """
    cdef const BatchParameters* parameters = &queue.batcher.parameters
    cdef int64_t limit = 1, size = 1, before_us = 0, run_us
    cdef int i
    if not parameters.is_auto:
        return parameters.max_execution_batch_size
    for i in range(NUM_SIZE_CLASSES):
        if size > parameters.max_execution_batch_size:
            break
        run_us = queue.typical_us[i]
        if before_us and run_us > 3 * before_us:
            run_us = 3 * before_us
        if i and run_us > parameters.latency_target_us // 2 and 3 * run_us > 5 * before_us:
            break
        if run_us:
            before_us = run_us
        limit = size
        size *= 2
    return min(limit, parameters.max_execution_batch_size)


cdef int64_t typical_run_us(const BatchQueue* queue, int64_t num_rows) noexcept nogil:
    """Of a run of so many rows; 0: nothing like it has run yet."""
    cdef int size_class = size_class_of(num_rows)
    cdef int i
    if queue.typical_us[size_class]:
        return queue.typical_us[size_class]
    for i in range(size_class + 1, NUM_SIZE_CLASSES):
        if queue.typical_us[i]:
            return queue.typical_us[i]
    for i in range(1, 3):
        # Of twice or four times fewer: in proportion, which is too much rather than too little.
        if size_class >= i and queue.typical_us[size_class - i]:
            return queue.typical_us[size_class - i] << i
    return 0


cdef void queue_learn(BatchQueue* queue, int64_t num_rows, int64_t run_us) noexcept nogil:
    cdef int size_class = size_class_of(num_rows)
    cdef int64_t* typical = &queue.typical_us[size_class]
    cdef int i
    run_us = max(run_us, 1)
    # What was too slow once is tried again, in the end.
    for i in range(size_class + 1, NUM_SIZE_CLASSES):
        if queue.typical_us[i] > 256:
            queue.typical_us[i] -= queue.typical_us[i] // 256
    # Falls faster than it rises: first runs are slow, and others' work on the machine only ever adds.
    if typical[0] == 0:
        typical[0] = run_us
    elif run_us < typical[0]:
        typical[0] = (typical[0] + run_us) // 2
    else:
        typical[0] = (7 * typical[0] + run_us + 7) // 8
