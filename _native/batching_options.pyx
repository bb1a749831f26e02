"""How a version's requests are merged: what the control line says.

Between the worker's commands and batch_scheduler; on control threads, under the GIL.
"""

from libc.stddef cimport size_t
from libc.stdint cimport int64_t
from libc.stdlib cimport calloc, free

from tensorgate._native.batch_state cimport Batcher, BatchParameters, BatchScheduler
from tensorgate._native.session cimport SessionState


cdef class BatchingOptions:
    def __init__(
        self, num_batch_threads, max_batch_size, max_execution_batch_size, batch_timeout_micros,
        max_enqueued_batches, allowed_batch_sizes=(), pad_variable_length_inputs=False,
        enable_large_batch_splitting=False, refuse_mixed_shapes=False, crop_padded_outputs=False,
        auto_latency_target_us=0,
    ):
        if num_batch_threads < 1:
            raise ValueError(f"num_batch_threads must be positive; was {num_batch_threads}")
        self.num_batch_threads = num_batch_threads
        self.max_batch_size = max_batch_size
        self.max_execution_batch_size = max_execution_batch_size
        self.batch_timeout_micros = batch_timeout_micros
        self.max_enqueued_batches = max_enqueued_batches
        self.allowed_batch_sizes = tuple(allowed_batch_sizes)
        self.pad_variable_length_inputs = pad_variable_length_inputs
        self.enable_large_batch_splitting = enable_large_batch_splitting
        self.refuse_mixed_shapes = refuse_mixed_shapes
        self.crop_padded_outputs = crop_padded_outputs
        self.auto_latency_target_us = auto_latency_target_us


cdef Batcher* new_batcher(BatchingOptions options, BatchScheduler* scheduler, SessionState* state) except NULL:
    cdef Batcher* batcher = <Batcher*>calloc(1, sizeof(Batcher))
    cdef BatchParameters* parameters
    cdef size_t i
    if batcher is NULL:
        raise MemoryError
    parameters = &batcher.parameters
    parameters.allowed_sizes = <int64_t*>calloc(len(options.allowed_batch_sizes) + 1, sizeof(int64_t))
    if parameters.allowed_sizes is NULL:
        free(batcher)
        raise MemoryError
    for i in range(len(options.allowed_batch_sizes)):
        parameters.allowed_sizes[i] = options.allowed_batch_sizes[i]
    parameters.num_allowed = len(options.allowed_batch_sizes)
    parameters.max_batch_size = options.max_batch_size
    parameters.max_execution_batch_size = options.max_execution_batch_size
    parameters.batch_timeout_us = options.batch_timeout_micros
    parameters.max_enqueued_batches = options.max_enqueued_batches
    parameters.pads_lengths = options.pad_variable_length_inputs
    parameters.splits = options.enable_large_batch_splitting
    parameters.refuses_mixed_shapes = options.refuse_mixed_shapes
    parameters.crops_outputs = options.crop_padded_outputs
    parameters.is_auto = options.auto_latency_target_us > 0
    parameters.latency_target_us = options.auto_latency_target_us
    batcher.scheduler = scheduler
    batcher.share.weight = 1
    batcher.state = state
    return batcher
