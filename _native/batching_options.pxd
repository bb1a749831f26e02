"""How a version's requests are merged, as Python says it."""

from libc.stdint cimport int64_t

from tensorgate._native.batch_state cimport Batcher, BatchScheduler
from tensorgate._native.session cimport SessionState


cdef class BatchingOptions:
    cdef readonly int num_batch_threads
    cdef readonly int64_t max_batch_size
    cdef readonly int64_t max_execution_batch_size
    cdef readonly int64_t batch_timeout_micros
    cdef readonly int64_t max_enqueued_batches
    cdef readonly tuple allowed_batch_sizes
    cdef readonly bint pad_variable_length_inputs
    cdef readonly bint enable_large_batch_splitting
    cdef readonly bint refuse_mixed_shapes
    cdef readonly bint crop_padded_outputs
    cdef readonly int64_t auto_latency_target_us


# Freed by batcher_free.
cdef Batcher* new_batcher(BatchingOptions options, BatchScheduler* scheduler, SessionState* state) except NULL
