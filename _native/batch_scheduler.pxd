"""The batch threads, and what the data loop does with a scheduler."""

from libc.stdint cimport int64_t

from tensorgate._native.batch_state cimport Batch, Batcher, BatchScheduler, BatchTask
from tensorgate._native.execution_pool cimport Job

# Before anything else; no thread runs yet. False: out of memory.
cdef bint scheduler_init(
    BatchScheduler* scheduler, void (*on_done)(void* owner, Job* first, Job* last) noexcept nogil,
    void* owner) noexcept nogil
# Starts threads up to that many. False: there are too few to be had.
cdef bint scheduler_start(BatchScheduler* scheduler, int num_threads) noexcept nogil
# From now on batches do not wait for company.
cdef void scheduler_drain(BatchScheduler* scheduler) noexcept nogil
# Ends the threads, once nothing waits any more, and frees what the scheduler has. Idempotent on a zeroed one.
cdef void scheduler_stop(BatchScheduler* scheduler) noexcept nogil
# Once all its jobs are done.
cdef void batcher_free(Batcher* batcher) noexcept nogil
# Its share of the batch threads beside others, at least 1.
cdef void batcher_set_weight(Batcher* batcher, int64_t weight) noexcept nogil
# Takes the task, which is PREPARED, into its queue; OK. For any other code it is released, and its job's result says
# why. *dropped gets jobs that had to make room, linked by next: the caller's to complete.
cdef int batch_enqueue(Batcher* batcher, BatchTask* task, Job** dropped) noexcept nogil
# Calls as many threads as there are batches ready.
cdef void batch_kick(BatchScheduler* scheduler) noexcept nogil
# For the thread that reads requests: takes a batch that is ready and is expected to run for microseconds only; NULL:
# there is none. Then batch_run and batch_end. full_only: more requests are about to come.
cdef Batch* batch_take_short(BatchScheduler* scheduler, bint full_only) noexcept nogil
# The batch has run: it is counted and freed. The jobs that are done, linked by next, are the caller's.
cdef Job* batch_end(Batch* batch, Job** last) noexcept nogil
