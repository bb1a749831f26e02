"""What batching costs beside the runs themselves: for benchmarks; no request comes this way.

Source: batch_tasks, batch_scheduler, batch_packing.
"""

from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint8_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memset
from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec

import statistics

from tensorgate._native.batch_packing cimport pack_input
from tensorgate._native.batch_queue cimport batch_free
from tensorgate._native.batch_scheduler cimport batch_enqueue, batcher_free, scheduler_init, scheduler_stop
from tensorgate._native.batch_state cimport MAX_BATCH_RANK, Batch, Batcher, BatchScheduler, BatchSlice, BatchTask
from tensorgate._native.batch_tasks cimport PREPARED, prepare_predict
from tensorgate._native.batch_turn cimport TAKE_ANY, take_batch
from tensorgate._native.batching_options cimport BatchingOptions, new_batcher
from tensorgate._native.execution_pool cimport METHOD_PREDICT, Job
from tensorgate._native.posix cimport pthread_mutex_lock, pthread_mutex_unlock
from tensorgate._native.predict cimport run_result_free, run_result_init
from tensorgate._native.session cimport Session
from tensorgate._native.status_codes cimport OK
from tensorgate._native.tf_c_api cimport TF_Tensor, tf


cdef struct Times:
    int64_t prepare_ns
    int64_t queue_ns
    int64_t pack_ns
    int64_t copy_ns
    size_t num_bytes


cdef int64_t _now_ns() noexcept nogil:
    cdef timespec now
    clock_gettime(CLOCK_MONOTONIC, &now)
    return <int64_t>now.tv_sec * 1000000000 + now.tv_nsec


cdef void _ignore(void* owner, Job* first, Job* last) noexcept nogil:
    pass


cdef void _pack(Batch* batch, Times* times, uint8_t* copy, const uint8_t* bytes, size_t size) noexcept nogil:
    """Packs and frees it, and copies as much; the copy has room for the whole batch."""
    cdef int64_t largest[MAX_BATCH_RANK]
    cdef TF_Tensor* tensor = NULL
    cdef BatchSlice* slice
    cdef int64_t began_ns = _now_ns()
    cdef int i
    for i in range(batch.queue.num_feeds):
        pack_input(
            batch, i, batch.num_rows, batch.queue.batcher.scheduler.buffers, &tensor, largest,
            &batch.first.task.job.result.message)
        if tensor is not NULL:
            tf.DeleteTensor(tensor)
            tensor = NULL
    times.pack_ns += _now_ns() - began_ns
    began_ns = _now_ns()
    for i in range(batch.num_slices):
        memcpy(copy + <size_t>i * size, bytes, size)
    times.copy_ns += _now_ns() - began_ns
    while batch.first is not NULL:
        slice = batch.first
        batch.first = slice.next
        slice.task.release(slice.task)
    batch.queue.num_running -= 1
    batch_free(batch)


cdef bint _round(Batcher* batcher, Job* jobs, BatchTask** tasks, int count, Times* times, uint8_t* copy) noexcept nogil:
    """False: a request was not merged."""
    cdef Job* dropped
    cdef Batch* batch
    cdef int64_t due_us, began_ns = _now_ns()
    cdef int i
    for i in range(count):
        if prepare_predict(batcher, &jobs[i], &tasks[i]) != PREPARED:
            return False
    times.prepare_ns = _now_ns() - began_ns
    times.num_bytes = tasks[0].num_bytes
    began_ns = _now_ns()
    for i in range(count):
        if batch_enqueue(batcher, tasks[i], &dropped) != OK:
            return False
    times.queue_ns = _now_ns() - began_ns
    while True:
        began_ns = _now_ns()
        pthread_mutex_lock(&batcher.scheduler.mutex)
        batch = take_batch(batcher.scheduler, began_ns // 1000, TAKE_ANY, False, &due_us)
        pthread_mutex_unlock(&batcher.scheduler.mutex)
        times.queue_ns += _now_ns() - began_ns
        if batch is NULL:
            return True
        _pack(batch, times, copy, jobs[0].payload, min(jobs[0].size, times.num_bytes))


def batch_cost(
    Session session not None, BatchingOptions options not None, bytes payload not None, int num_requests, int rounds,
):
    cdef BatchScheduler scheduler
    cdef Batcher* batcher
    cdef Times times
    cdef Job* jobs = <Job*>calloc(num_requests, sizeof(Job))
    cdef BatchTask** tasks = <BatchTask**>calloc(num_requests, sizeof(BatchTask*))
    cdef uint8_t* copy = <uint8_t*>malloc(<size_t>num_requests * len(payload))
    cdef const uint8_t* data = <const uint8_t*><const char*>payload
    cdef size_t size = <size_t>len(payload)
    cdef bint good = True
    cdef int i
    if jobs is NULL or tasks is NULL or copy is NULL or not scheduler_init(&scheduler, _ignore, NULL):
        free(jobs)
        free(tasks)
        free(copy)
        raise MemoryError
    seen = []
    memset(&times, 0, sizeof(Times))
    session.begin_use()
    batcher = new_batcher(options, &scheduler, &session.state)
    for i in range(num_requests):
        run_result_init(&jobs[i].result)
        jobs[i].state = &session.state
        jobs[i].method = METHOD_PREDICT
        jobs[i].payload = data
        jobs[i].size = size
        jobs[i].deadline_us = -1
    for _ in range(rounds):
        times.pack_ns = 0
        times.copy_ns = 0
        with nogil:
            good = good and _round(batcher, jobs, tasks, num_requests, &times, copy)
        seen.append((times.prepare_ns, times.queue_ns, times.pack_ns, times.copy_ns))
    for i in range(num_requests):
        run_result_free(&jobs[i].result)
    batcher_free(batcher)
    scheduler_stop(&scheduler)
    session.end_use()
    free(jobs)
    free(tasks)
    free(copy)
    if not good:
        raise ValueError("the request is not one that is merged")
    medians = [statistics.median(column) / num_requests for column in zip(*seen)]
    return (*medians, times.num_bytes)
