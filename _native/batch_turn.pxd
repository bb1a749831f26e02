"""Batches out of their queues. Everything here is under the scheduler's mutex."""

from libc.stdint cimport int64_t

from tensorgate._native.batch_state cimport Batch, BatchScheduler

cdef enum Taking:
    TAKE_ANY
    TAKE_SHORT   # expected to take no longer in the calling thread than the thread that reads requests can be away
    TAKE_LONG    # the others

# Takes the next batch that is ready out of its queue, each queue in its turn; NULL: none. Only one that takes no more
# tasks, if full_only. due_us gets the time when the first of those that stay is ready by itself: INT64_MAX for never.
cdef Batch* take_batch(
    BatchScheduler* scheduler, int64_t now_us, Taking taking, bint full_only, int64_t* due_us) noexcept nogil
# How many batches are ready, at most max_count; due_us as above.
cdef int count_ready(
    BatchScheduler* scheduler, int64_t now_us, int max_count, int64_t* due_us) noexcept nogil
