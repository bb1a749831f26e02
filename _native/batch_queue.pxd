"""Tasks into batches. Everything here is under the scheduler's mutex."""

from libc.stdint cimport int64_t

from tensorgate._native.batch_state cimport Batch, Batcher, BatchParameters, BatchQueue, BatchTask
from tensorgate._native.byte_writer cimport ByteWriter

# The queue of the task's inputs and outputs, made on first use; NULL: out of memory.
cdef BatchQueue* queue_for(Batcher* batcher, const BatchTask* task) noexcept nogil
# Puts the task into one batch or, where requests may be split, several. A canonical status code; the text in message.
cdef int queue_add(BatchQueue* queue, BatchTask* task, ByteWriter* message) noexcept nogil
# Takes the requests out of the batch that are cancelled or too late, and puts their jobs among those that are done.
cdef void drop_dead(Batch* batch, int64_t now_us) noexcept nogil
# The task is no more; its job is one of those that are done.
cdef void batch_end_task(Batch* batch, BatchTask* task) noexcept nogil
# How many rows a batch of so many is padded to.
cdef int64_t padded_size(const BatchParameters* parameters, int64_t num_rows) noexcept nogil
cdef void batch_free(Batch* batch) noexcept nogil
cdef void queue_free(BatchQueue* queue) noexcept nogil
