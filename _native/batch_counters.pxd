"""What has happened in a batch queue, counted; under the scheduler's mutex, but for count_wait."""

from libc.stdint cimport int64_t

from tensorgate._native.batch_state cimport Batch, Batcher, BatchQueue, BatchTask

# A request is about to be queued.
cdef void count_request(BatchQueue* queue, const BatchTask* task) noexcept nogil
# A slice of a batch has waited for so long; on the thread that runs it, without the mutex.
cdef void count_wait(BatchQueue* queue, int64_t wait_us) noexcept nogil
# The batch has run, if anything was left of it.
cdef void count_batch(const Batch* batch) noexcept nogil

# For Python: of each queue of the batcher what DataLoop.batch_queues tells; takes the mutex.
cdef list queues_of(Batcher* batcher)
