"""Counts what happens to merged requests: how long they wait, how large batches are, how much of them is padding.

Beside the way of a batched request in the worker; read by the ``batching`` command for the metrics pages.

Source: tensorflow_serving/batching/batching_session.cc (what its metrics count); sampler.cc and histogram.cc of
TensorFlow (a value that equals a limit is above it).
"""

from libc.stdint cimport int64_t, uint64_t

from tensorgate._native.batch_state cimport (
    NUM_POWER_BUCKETS,
    NUM_SIZE_CLASSES,
    NUM_WAIT_BUCKETS,
    Batch,
    BatchCounters,
    Batcher,
    BatchParameters,
    BatchQueue,
    BatchTask,
    size_class_of,
)
from tensorgate._native.posix cimport atomic_add, atomic_load, pthread_mutex_lock, pthread_mutex_unlock


cdef double[NUM_WAIT_BUCKETS - 1] wait_limits


cdef tuple _make_wait_limits():
    cdef double limit = 100
    cdef int i
    for i in range(NUM_WAIT_BUCKETS - 1):
        wait_limits[i] = limit
        limit *= 1.2
    return tuple([wait_limits[i] for i in range(NUM_WAIT_BUCKETS - 1)])


WAIT_LIMITS_US = _make_wait_limits()


cdef inline int _power_bucket(int64_t value) noexcept nogil:
    """How many of 1, 2, 4, … are not above the value."""
    cdef int bucket = 0
    while value > 0 and bucket < NUM_POWER_BUCKETS - 1:
        value >>= 1
        bucket += 1
    return bucket


cdef void count_request(BatchQueue* queue, const BatchTask* task) noexcept nogil:
    queue.counters.request_sizes[_power_bucket(task.num_rows)] += <uint64_t>task.num_inputs
    queue.counters.request_rows += <uint64_t>(task.num_rows * task.num_inputs)


cdef void count_wait(BatchQueue* queue, int64_t wait_us) noexcept nogil:
    cdef int low = 0
    cdef int high = NUM_WAIT_BUCKETS - 1
    cdef int middle
    # Most wait for less than the first of the limits.
    if wait_us < wait_limits[0]:
        high = 0
    while low < high:
        middle = (low + high) // 2
        if wait_us < wait_limits[middle]:
            high = middle
        else:
            low = middle + 1
    atomic_add(&queue.counters.waits[low], 1)


cdef void count_batch(const Batch* batch) noexcept nogil:
    cdef BatchCounters* counters = &batch.queue.counters
    cdef const BatchParameters* parameters = &batch.queue.batcher.parameters
    cdef int64_t padding_rows = batch.padded_rows - batch.num_rows
    cdef int i
    counters.expired += <uint64_t>(batch.slices_taken - batch.num_slices)
    if batch.num_slices == 0:
        return
    counters.batches += 1
    counters.requests += <uint64_t>batch.num_slices
    counters.rows += <uint64_t>batch.num_rows
    counters.padding_rows += <uint64_t>padding_rows
    counters.queue_us += batch.queue_us
    counters.run_us += batch.run_us
    counters.batches_of_size[size_class_of(batch.padded_rows)] += 1
    counters.batch_sizes[_power_bucket(batch.padded_rows)] += 1
    for i in range(parameters.num_allowed):
        if parameters.allowed_sizes[i] == batch.padded_rows:
            batch.queue.paddings[i].buckets[_power_bucket(padding_rows)] += 1
            batch.queue.paddings[i].rows += <uint64_t>padding_rows


# --- for Python -------------------------------------------------------------------------------------------------------

cdef list _powers(const uint64_t* buckets):
    cdef int i
    return [buckets[i] for i in range(NUM_POWER_BUCKETS)]


cdef dict _told(BatchQueue* queue):
    """Under the mutex."""
    cdef const BatchParameters* parameters = &queue.batcher.parameters
    cdef BatchCounters* counters = &queue.counters
    cdef int i
    name = queue.signature.data[:queue.signature.size].decode("utf-8", "replace") if queue.signature else ""
    return {
        "signature": name,
        "num_inputs": queue.num_feeds,
        "num_outputs": queue.num_fetches,
        "waiting": queue.num_waiting_rows,
        "requests": counters.requests,
        "rows": counters.rows,
        "batches": counters.batches,
        "padding_rows": counters.padding_rows,
        "refused": counters.refused,
        "expired": counters.expired,
        "queue_us": counters.queue_us,
        "run_us": counters.run_us,
        "batches_of_size": [counters.batches_of_size[i] for i in range(NUM_SIZE_CLASSES)],
        "typical_us": [queue.typical_us[i] for i in range(NUM_SIZE_CLASSES)],
        "waits": [atomic_load(&counters.waits[i]) for i in range(NUM_WAIT_BUCKETS)],
        "request_sizes": _powers(counters.request_sizes),
        "request_rows": counters.request_rows,
        "batch_sizes": _powers(counters.batch_sizes),
        "paddings": [
            [parameters.allowed_sizes[i], _powers(queue.paddings[i].buckets), queue.paddings[i].rows]
            for i in range(parameters.num_allowed)
        ],
    }


cdef list queues_of(Batcher* batcher):
    cdef BatchQueue* queue
    found = []
    pthread_mutex_lock(&batcher.scheduler.mutex)
    queue = batcher.queues
    while queue is not NULL:
        found.append(_told(queue))
        queue = queue.next
    pthread_mutex_unlock(&batcher.scheduler.mutex)
    return found
