"""Tasks into batches, and batches out of their queues. Everything here is under the scheduler's mutex."""

from libc.stdint cimport int64_t

from tensorgate._native.batch_state cimport Batch, Batcher, BatchParameters, BatchQueue, BatchScheduler, BatchTask
from tensorgate._native.byte_writer cimport ByteWriter

# The queue of the task's inputs and outputs, made on first use; NULL: out of memory.
cdef BatchQueue* queue_for(Batcher* batcher, const BatchTask* task) noexcept nogil
# Puts the task into one batch or, where requests may be split, several. A canonical status code; the text in message.
cdef int queue_add(BatchQueue* queue, BatchTask* task, ByteWriter* message) noexcept nogil
# Takes the next batch that is ready out of its queue, each queue in its turn; NULL: none. Only one that is expected to
# take no longer than limit_us in the calling thread, unless that is -1; only one that takes no more tasks, if
# full_only. due_us gets the time when the first of those that stay is ready by itself: INT64_MAX for never.
cdef Batch* take_batch(
    BatchScheduler* scheduler, int64_t now_us, int64_t limit_us, bint full_only, int64_t* due_us) noexcept nogil
# Takes the requests out of the batch that are cancelled or too late, and puts their jobs among those that are done.
cdef void drop_dead(Batch* batch, int64_t now_us) noexcept nogil
# The task is no more; its job is one of those that are done.
cdef void batch_end_task(Batch* batch, BatchTask* task) noexcept nogil
# How many batches are ready, at most max_count; due_us as above.
cdef int count_ready(
    BatchScheduler* scheduler, int64_t now_us, int max_count, int64_t* due_us) noexcept nogil
# Rows of a batch at most; and how many a batch of so many is padded to.
cdef int64_t queue_limit(const BatchQueue* queue) noexcept nogil
cdef int64_t padded_size(const BatchParameters* parameters, int64_t num_rows) noexcept nogil
# What a run has taken.
cdef void queue_learn(BatchQueue* queue, int64_t num_rows, int64_t run_us) noexcept nogil
cdef void batch_free(Batch* batch) noexcept nogil
cdef void queue_free(BatchQueue* queue) noexcept nogil
