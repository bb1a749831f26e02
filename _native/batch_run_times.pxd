"""Learnt run times of a queue; under the scheduler's mutex."""

from libc.stdint cimport int64_t

from tensorgate._native.batch_state cimport BatchQueue

# Rows of a batch at most.
cdef int64_t queue_limit(const BatchQueue* queue) noexcept nogil
# Of a run of so many rows; 0: nothing like it has run yet.
cdef int64_t typical_run_us(const BatchQueue* queue, int64_t num_rows) noexcept nogil
# What a run has taken.
cdef void queue_learn(BatchQueue* queue, int64_t num_rows, int64_t run_us) noexcept nogil
