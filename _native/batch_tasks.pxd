"""Requests as tasks that can be merged."""

from tensorgate._native.batch_state cimport Batcher, BatchTask
from tensorgate._native.byte_writer cimport ByteWriter
from tensorgate._native.execution_pool cimport Job
from tensorgate._native.session cimport Endpoint

ctypedef enum Preparation:
    PREPARED          # there is a task
    RUNS_ALONE        # nothing is wrong with the request, but it cannot be merged
    REFUSED           # the job's result says why


# Upstream's checks of a batched run; a canonical status code, the text in message. Sets the task's number of rows.
cdef int check_task(const Batcher* batcher, BatchTask* task, ByteWriter* message) noexcept nogil
# Whether the task, which has passed the checks, can be in a batch. Orders its inputs by name.
cdef bint is_mergeable(BatchTask* task) noexcept nogil
# Negative, 0 or positive, as the names of the tensors are ordered.
cdef int order_of_tensors(const Endpoint* a, const Endpoint* b) noexcept nogil
# A Predict. *task is the caller's when it is PREPARED; the job's payload has to stay.
cdef Preparation prepare_predict(const Batcher* batcher, Job* job, BatchTask** task) noexcept nogil
