"""The batch scheduler: threads that take batches as they become ready, one after the other from each queue in turn.

Beside the execution pool in the worker; shared by all versions that are batched. Batches that take microseconds may be
run by the data loop's own thread instead, as single requests are.

A thread with nothing to do sleeps until it is called, and one of them until the first batch that waits for company has
waited long enough. Threads are called when a batch is ready, not when a request comes: else each would be taken alone.

Source: pthread_cond_timedwait(3); tensorflow/core/kernels/batching_util/shared_batch_scheduler.h.
"""

from libc.stdint cimport INT64_MAX, int64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memset
from posix.time cimport nanosleep, timespec

from tensorgate._native.batch_buffers cimport buffers_new, buffers_release
from tensorgate._native.batch_counters cimport count_batch, count_request
from tensorgate._native.batch_queue cimport batch_free, queue_add, queue_for, queue_free
from tensorgate._native.batch_run cimport batch_run
from tensorgate._native.batch_run_times cimport queue_learn
from tensorgate._native.batch_state cimport Batch, Batcher, BatchQueue, BatchScheduler, BatchTask
from tensorgate._native.batch_turn cimport TAKE_ANY, TAKE_LONG, TAKE_SHORT, Taking, count_ready, take_batch
from tensorgate._native.clocks cimport monotonic_us
from tensorgate._native.execution_pool cimport Job
from tensorgate._native.fair_share cimport charge, set_weight
from tensorgate._native.posix cimport (
    cond_init_monotonic,
    pthread_cond_broadcast,
    pthread_cond_destroy,
    pthread_cond_signal,
    pthread_cond_timedwait,
    pthread_cond_wait,
    pthread_create,
    pthread_join,
    pthread_mutex_destroy,
    pthread_mutex_init,
    pthread_mutex_lock,
    pthread_mutex_unlock,
    pthread_t,
)
from tensorgate._native.predict_binding cimport refuse_scan
from tensorgate._native.predict_request cimport SCAN_NO_MEMORY
from tensorgate._native.status_codes cimport OK


# --- threads ----------------------------------------------------------------------------------------------------------

cdef void _call(BatchScheduler* scheduler, int64_t now_us) noexcept nogil:
    """As many idle threads as there is work for; under the mutex."""
    cdef int64_t due_us
    cdef int num_idle = scheduler.num_idle - scheduler.num_called
    cdef int num_ready, _i
    if num_idle <= 0 or scheduler.turn is NULL:
        return
    num_ready = count_ready(scheduler, now_us, num_idle, &due_us)
    # One has to look after what is not ready yet.
    if num_ready < num_idle and due_us < scheduler.watched_until_us:
        num_ready += 1
    for _i in range(num_ready):
        scheduler.num_called += 1
        pthread_cond_signal(&scheduler.work)


cdef void _wait(BatchScheduler* scheduler, int64_t due_us) noexcept nogil:
    """Under the mutex: until it is called, or that time has come and nobody else has looked after it."""
    cdef timespec until
    cdef bint watches = due_us < scheduler.watched_until_us
    cdef int code = 0
    scheduler.num_idle += 1
    if watches:
        scheduler.watched_until_us = due_us
        until.tv_sec = due_us // 1000000
        until.tv_nsec = due_us % 1000000 * 1000
    while scheduler.num_called == 0 and not scheduler.is_stopping and code == 0:
        if watches:
            code = pthread_cond_timedwait(&scheduler.work, &scheduler.mutex, &until)
        else:
            pthread_cond_wait(&scheduler.work, &scheduler.mutex)
    if watches and scheduler.watched_until_us == due_us:
        scheduler.watched_until_us = INT64_MAX
    scheduler.num_idle -= 1
    if scheduler.num_called:
        scheduler.num_called -= 1


cdef void* _thread_main(void* argument) noexcept nogil:
    cdef BatchScheduler* scheduler = <BatchScheduler*>argument
    cdef Batch* batch
    cdef Job* first
    cdef Job* last = NULL
    cdef int64_t now_us, due_us
    cdef Taking taking = TAKE_ANY
    pthread_mutex_lock(&scheduler.mutex)
    while True:
        now_us = monotonic_us()
        batch = take_batch(scheduler, now_us, taking, False, &due_us)
        taking = TAKE_ANY
        if batch is not NULL:
            # What is left is the others'.
            _call(scheduler, now_us)
            pthread_mutex_unlock(&scheduler.mutex)
            batch_run(batch)
            first = batch_end(batch, &last)
            # After the batch is counted: the version may be gone once the submitter knows.
            if first is not NULL:
                scheduler.on_done(scheduler.owner, first, last)
            pthread_mutex_lock(&scheduler.mutex)
            # Who reads the requests has woken up for what is done, and runs what is short with less ado; else this
            # thread would run that for as long as there are requests.
            if first is not NULL and not scheduler.is_stopping and not scheduler.is_draining:
                taking = TAKE_LONG
        elif scheduler.is_stopping:
            break
        else:
            _wait(scheduler, due_us)
    pthread_mutex_unlock(&scheduler.mutex)
    return NULL


cdef bint scheduler_init(
    BatchScheduler* scheduler, void (*on_done)(void* owner, Job* first, Job* last) noexcept nogil, void* owner,
) noexcept nogil:
    memset(scheduler, 0, sizeof(BatchScheduler))
    scheduler.buffers = buffers_new()
    if scheduler.buffers is NULL:
        return False
    pthread_mutex_init(&scheduler.mutex, NULL)
    cond_init_monotonic(&scheduler.work)
    scheduler.watched_until_us = INT64_MAX
    scheduler.on_done = on_done
    scheduler.owner = owner
    return True


cdef bint scheduler_start(BatchScheduler* scheduler, int num_threads) noexcept nogil:
    cdef pthread_t* threads
    cdef bint good = True
    pthread_mutex_lock(&scheduler.mutex)
    if scheduler.num_threads < num_threads:
        threads = <pthread_t*>realloc(scheduler.threads, <size_t>num_threads * sizeof(pthread_t))
        good = threads is not NULL
        if good:
            scheduler.threads = threads
    while good and scheduler.num_threads < num_threads:
        good = pthread_create(&scheduler.threads[scheduler.num_threads], NULL, _thread_main, scheduler) == 0
        scheduler.num_threads += good
    pthread_mutex_unlock(&scheduler.mutex)
    return good


cdef void scheduler_drain(BatchScheduler* scheduler) noexcept nogil:
    pthread_mutex_lock(&scheduler.mutex)
    scheduler.is_draining = True
    _call(scheduler, monotonic_us())
    pthread_mutex_unlock(&scheduler.mutex)


cdef void scheduler_stop(BatchScheduler* scheduler) noexcept nogil:
    cdef int i
    if scheduler.buffers is NULL:
        return
    pthread_mutex_lock(&scheduler.mutex)
    scheduler.is_stopping = True
    pthread_cond_broadcast(&scheduler.work)
    pthread_mutex_unlock(&scheduler.mutex)
    for i in range(scheduler.num_threads):
        pthread_join(scheduler.threads[i], NULL)
    free(scheduler.threads)
    pthread_cond_destroy(&scheduler.work)
    pthread_mutex_destroy(&scheduler.mutex)
    buffers_release(scheduler.buffers)
    memset(scheduler, 0, sizeof(BatchScheduler))


# --- batchers ---------------------------------------------------------------------------------------------------------

cdef void _leave_ring(BatchScheduler* scheduler, BatchQueue* queue) noexcept nogil:
    cdef BatchQueue* previous = queue
    while previous.next_in_turn is not queue:
        previous = previous.next_in_turn
    previous.next_in_turn = queue.next_in_turn
    if scheduler.turn is queue:
        scheduler.turn = NULL if previous is queue else previous


cdef bint _is_running(const Batcher* batcher) noexcept nogil:
    cdef const BatchQueue* queue = batcher.queues
    while queue is not NULL:
        if queue.num_running:
            return True
        queue = queue.next
    return False


cdef void batcher_free(Batcher* batcher) noexcept nogil:
    cdef BatchScheduler* scheduler = batcher.scheduler
    cdef BatchQueue* queue
    cdef timespec pause
    # Without a scheduler there are no queues.
    if batcher.queues is not NULL:
        pause.tv_sec = 0
        pause.tv_nsec = 100000
        pthread_mutex_lock(&scheduler.mutex)
        # Of a request that was split the last part has answered; the thread of another may yet have to count its own.
        while _is_running(batcher):
            pthread_mutex_unlock(&scheduler.mutex)
            nanosleep(&pause, NULL)
            pthread_mutex_lock(&scheduler.mutex)
        while batcher.queues is not NULL:
            queue = batcher.queues
            batcher.queues = queue.next
            _leave_ring(scheduler, queue)
            queue_free(queue)
        pthread_mutex_unlock(&scheduler.mutex)
    free(batcher.parameters.allowed_sizes)
    free(batcher)


cdef void batcher_set_weight(Batcher* batcher, int64_t weight) noexcept nogil:
    pthread_mutex_lock(&batcher.scheduler.mutex)
    set_weight(&batcher.scheduler.shares, &batcher.share, weight)
    pthread_mutex_unlock(&batcher.scheduler.mutex)


cdef int batch_enqueue(Batcher* batcher, BatchTask* task, Job** dropped) noexcept nogil:
    cdef BatchScheduler* scheduler = batcher.scheduler
    cdef Job* job = task.job
    cdef BatchQueue* queue
    cdef int code
    pthread_mutex_lock(&scheduler.mutex)
    queue = queue_for(batcher, task)
    if queue is NULL:
        code = refuse_scan(SCAN_NO_MEMORY, &job.result.message)
    else:
        count_request(queue, task)
        code = queue_add(queue, task, &job.result.message)
    dropped[0] = scheduler.dropped
    scheduler.dropped = NULL
    pthread_mutex_unlock(&scheduler.mutex)
    if code != OK:
        job.result.code = code
        task.release(task)
    return code


cdef void batch_kick(BatchScheduler* scheduler) noexcept nogil:
    pthread_mutex_lock(&scheduler.mutex)
    _call(scheduler, monotonic_us())
    pthread_mutex_unlock(&scheduler.mutex)


cdef Batch* batch_take_short(BatchScheduler* scheduler, bint full_only) noexcept nogil:
    cdef Batch* batch
    cdef int64_t due_us
    pthread_mutex_lock(&scheduler.mutex)
    batch = take_batch(scheduler, monotonic_us(), TAKE_SHORT, full_only, &due_us)
    pthread_mutex_unlock(&scheduler.mutex)
    return batch


cdef Job* batch_end(Batch* batch, Job** last) noexcept nogil:
    cdef BatchQueue* queue = batch.queue
    cdef BatchScheduler* scheduler = queue.batcher.scheduler
    cdef Job* first = batch.first_done
    last[0] = batch.last_done
    pthread_mutex_lock(&scheduler.mutex)
    queue.num_running -= 1
    queue.num_running_rows -= batch.rows_taken
    # What auto takes for the usual number of rows falls slowly when there are fewer.
    queue.largest_wave = max(
        queue.num_waiting_rows + queue.num_running_rows, queue.largest_wave - (queue.largest_wave + 7) // 8)
    count_batch(batch)
    if batch.num_slices:
        if scheduler.shares.is_weighted:
            charge(&scheduler.shares, &queue.batcher.share, <int64_t>batch.run_us)
        if batch.code == OK and batch.run_us:
            queue_learn(queue, batch.padded_rows, <int64_t>batch.run_us)
    pthread_mutex_unlock(&scheduler.mutex)
    batch_free(batch)
    return first
