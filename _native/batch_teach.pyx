"""Teaches auto what runs take before the first client comes: measured as the version loads, told here.

Between warm-up and the version's registration in the worker; on loader threads, under the GIL.
"""

from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint8_t
from libc.string cimport memset

from tensorgate._native.batch_queue cimport queue_for
from tensorgate._native.batch_run_times cimport queue_learn
from tensorgate._native.batch_state cimport Batcher, BatchQueue, BatchTask
from tensorgate._native.batch_tasks cimport PREPARED, Preparation, prepare_predict
from tensorgate._native.execution_pool cimport METHOD_PREDICT, Job
from tensorgate._native.posix cimport pthread_mutex_lock, pthread_mutex_unlock
from tensorgate._native.predict cimport run_result_free, run_result_init


cdef bint teach(Batcher* batcher, bytes request, int64_t run_us) except? False:
    cdef Job job
    cdef BatchTask* task = NULL
    cdef BatchQueue* queue
    cdef Preparation preparation
    memset(&job, 0, sizeof(Job))
    run_result_init(&job.result)
    job.state = batcher.state
    job.method = METHOD_PREDICT
    job.payload = <const uint8_t*><const char*>request
    job.size = <size_t>len(request)
    job.deadline_us = -1
    preparation = prepare_predict(batcher, &job, &task)
    run_result_free(&job.result)
    if preparation != PREPARED:
        return False
    pthread_mutex_lock(&batcher.scheduler.mutex)
    queue = queue_for(batcher, task)
    if queue is not NULL:
        queue_learn(queue, task.num_rows, run_us)
        # Of sizes that have been tried in turn the last one is the largest; see session on where runs take place.
        queue.history.typical_run_us = max(run_us, 1)
        queue.history.largest_request = task.num_bytes
    pthread_mutex_unlock(&batcher.scheduler.mutex)
    task.release(task)
    return queue is not NULL
