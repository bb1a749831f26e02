"""Execution threads: they run the jobs of each servable in order of arrival, and the servables side by side.

Fed by the worker's data loop. Before a job runs it is dropped when it was cancelled or its deadline has passed.

A servable runs at most as many jobs at a time as there are cores granted, and a servable that runs none never waits for
one that does: when all threads are busy, another is started. So a slow model takes its share of the cores from a fast
one, by the kernel's scheduling, but never makes it wait for the end of a run.

Source: pthreads(7).
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset, strlen

from tensorgate._native.byte_writer cimport ByteWriter, put_bytes
from tensorgate._native.clocks cimport deadline_after, monotonic_us
from tensorgate._native.fair_share cimport charge, set_weight, take_turn, turn_of
from tensorgate._native.inference cimport infer
from tensorgate._native.posix cimport (
    atomic_load,
    pthread_cond_broadcast,
    pthread_cond_destroy,
    pthread_cond_init,
    pthread_cond_signal,
    pthread_cond_wait,
    pthread_create,
    pthread_join,
    pthread_mutex_destroy,
    pthread_mutex_init,
    pthread_mutex_lock,
    pthread_mutex_unlock,
    pthread_t,
)
from tensorgate._native.predict cimport expected_request_us, predict, run_result_free, run_result_init
from tensorgate._native.python_servable cimport answer_in_python
from tensorgate._native.session cimport Session
from tensorgate._native.session_run cimport run_for_client
from tensorgate._native.status_codes cimport CANCELLED, DEADLINE_EXCEEDED, UNIMPLEMENTED


cdef enum:
    # Waking another thread and hearing back from it costs about as much.
    AT_ONCE_LIMIT_US = 50
    # Threads beyond the first ones; with that many servables stuck in long runs, the others wait after all.
    MAX_EXTRA_THREADS = 64


# --- one job ----------------------------------------------------------------------------------------------------------

cdef void _finish(Job* job, int code, const char* message) noexcept nogil:
    job.result.code = code
    put_bytes(&job.result.message, message, strlen(message))


cdef void execute(Job* job) noexcept nogil:
    cdef int64_t now_us = monotonic_us()
    job.queue_us = <uint64_t>(now_us - job.enqueued_us)
    if atomic_load(&job.cancelled):
        _finish(job, CANCELLED, "the request was cancelled before it ran")
    elif 0 <= job.deadline_us <= now_us:
        _finish(job, DEADLINE_EXCEEDED, "the request's deadline passed before it ran")
    elif job.python is not NULL:
        answer_in_python(job.python, job.method, job.payload, job.size, job.deadline_us, &job.result)
    elif job.method == METHOD_PREDICT:
        predict(job.state, job.payload, job.size, job.deadline_us, &job.result)
    elif METHOD_CLASSIFY <= job.method <= METHOD_MULTI_INFERENCE:
        infer(job.state, job.method, job.payload, job.size, job.deadline_us, &job.result)
    elif job.method == METHOD_SESSION_RUN:
        run_for_client(job.state, job.payload, job.size, job.deadline_us, &job.result)
    else:
        _finish(job, UNIMPLEMENTED, "this worker does not know the method")


cdef bint runs_at_once(const Job* job) noexcept nogil:
    return (
        METHOD_PREDICT <= job.method <= METHOD_REGRESS and job.python is NULL
        and 0 < expected_request_us(job.state, job.payload, job.size) <= AT_ONCE_LIMIT_US)


# --- lines; all under the pool's mutex --------------------------------------------------------------------------------

cdef void _make_ready(ExecutionPool* pool, JobLine* line) noexcept nogil:
    """Gives the line its turn, if it has a job that may run and is not waiting for its turn already."""
    if line.is_ready or line.first is NULL or line.num_running >= pool.max_running:
        return
    line.is_ready = True
    line.next_ready = NULL
    if pool.first_ready is NULL:
        pool.first_ready = line
    else:
        pool.last_ready.next_ready = line
    pool.last_ready = line


cdef JobLine* _next_line(ExecutionPool* pool) noexcept nogil:
    """Takes the line whose turn it is off the list; NULL: none may run anything.

    Where lines have weights, all threads but the first one of each line are shared out by them.
    """
    cdef JobLine** place = &pool.first_ready
    cdef JobLine** chosen = NULL
    cdef JobLine* previous = NULL
    cdef JobLine* before = NULL
    cdef JobLine* line
    if not pool.shares.is_weighted:
        chosen = place if place[0] is not NULL else NULL
    else:
        while place[0] is not NULL:
            line = place[0]
            if (line.num_running == 0 or pool.num_running < pool.max_running) and (
                chosen is NULL or turn_of(&pool.shares, &line.share) < turn_of(&pool.shares, &chosen[0].share)
            ):
                chosen = place
                before = previous
            previous = line
            place = &line.next_ready
    if chosen is NULL:
        return NULL
    line = chosen[0]
    chosen[0] = line.next_ready
    if pool.last_ready is line:
        pool.last_ready = before
    line.is_ready = False
    return line


cdef Job* _take_job(ExecutionPool* pool) noexcept nogil:
    """The job whose turn it is, counted as running; NULL: there is none."""
    cdef JobLine* line = _next_line(pool)
    cdef Job* job
    if line is NULL:
        return NULL
    job = line.first
    line.first = job.next
    line.num_waiting -= 1
    line.num_running += 1
    pool.num_running += 1
    take_turn(&pool.shares, &line.share)
    _make_ready(pool, line)
    return job


# --- threads ----------------------------------------------------------------------------------------------------------

cdef void* _thread_main(void* argument) noexcept nogil:
    cdef ExecutionPool* pool = <ExecutionPool*>argument
    cdef Job* job
    cdef int64_t began_us = 0
    pthread_mutex_lock(&pool.mutex)
    while True:
        job = _take_job(pool)
        if job is not NULL:
            if pool.shares.is_weighted:
                began_us = monotonic_us()
            pthread_mutex_unlock(&pool.mutex)
            if not job.is_only_read:
                execute(job)
            pthread_mutex_lock(&pool.mutex)
            if began_us:
                charge(&pool.shares, &job.line.share, monotonic_us() - began_us)
            job.line.num_running -= 1
            pool.num_running -= 1
            _make_ready(pool, job.line)
            pthread_mutex_unlock(&pool.mutex)
            # After it is off its line: the servable may be gone once the submitter knows.
            job.on_done(job)
            pthread_mutex_lock(&pool.mutex)
        elif pool.is_stopping:
            break
        else:
            pool.num_idle += 1
            while pool.num_called == 0 and not pool.is_stopping:
                pthread_cond_wait(&pool.work, &pool.mutex)
            pool.num_idle -= 1
            if pool.num_called:
                pool.num_called -= 1
    pthread_mutex_unlock(&pool.mutex)
    return NULL


cdef bint _start_thread(ExecutionPool* pool) noexcept nogil:
    if pthread_create(&pool.threads[pool.num_threads], NULL, _thread_main, pool) != 0:
        return False
    pool.num_threads += 1
    return True


cdef void pool_submit(ExecutionPool* pool, Job* job) noexcept nogil:
    cdef JobLine* line = job.line
    cdef bint call = False
    job.next = NULL
    pthread_mutex_lock(&pool.mutex)
    if line.first is NULL:
        line.first = job
    else:
        line.last.next = job
    line.last = job
    line.num_waiting += 1
    _make_ready(pool, line)
    # A job that may not run yet is taken by whichever thread ends a run of its line.
    if line.num_waiting + line.num_running <= pool.max_running:
        if pool.num_idle > pool.num_called:
            pool.num_called += 1
            call = True
        elif pool.num_threads < pool.max_threads:
            # Should there be no thread to be had, those there are take it in turn.
            _start_thread(pool)
    pthread_mutex_unlock(&pool.mutex)
    if call:
        pthread_cond_signal(&pool.work)


cdef void pool_set_weight(ExecutionPool* pool, JobLine* line, int64_t weight) noexcept nogil:
    pthread_mutex_lock(&pool.mutex)
    set_weight(&pool.shares, &line.share, weight)
    pthread_mutex_unlock(&pool.mutex)


cdef bint pool_start(ExecutionPool* pool, int num_threads) noexcept nogil:
    cdef int _i
    memset(pool, 0, sizeof(ExecutionPool))
    pool.max_running = num_threads
    pool.max_threads = num_threads + MAX_EXTRA_THREADS
    pool.threads = <pthread_t*>calloc(pool.max_threads, sizeof(pthread_t))
    if pool.threads is NULL:
        return False
    pthread_mutex_init(&pool.mutex, NULL)
    pthread_cond_init(&pool.work, NULL)
    for _i in range(num_threads):
        if not _start_thread(pool):
            pool_stop(pool)
            return False
    return True


cdef void pool_stop(ExecutionPool* pool) noexcept nogil:
    cdef int i
    pthread_mutex_lock(&pool.mutex)
    pool.is_stopping = True
    pthread_cond_broadcast(&pool.work)
    pthread_mutex_unlock(&pool.mutex)
    for i in range(pool.num_threads):
        pthread_join(pool.threads[i], NULL)
    pthread_cond_destroy(&pool.work)
    pthread_mutex_destroy(&pool.mutex)
    free(pool.threads)
    pool.threads = NULL


# --- for Python -------------------------------------------------------------------------------------------------------

cdef inline bytes _copy(const ByteWriter* written):
    return PyBytes_FromStringAndSize(<const char*>written.data, <Py_ssize_t>written.size) if written.size else b""


def run_once(Session session not None, uint64_t method, payload, int64_t remaining_us=-1):
    cdef Py_buffer buffer
    cdef Job job
    PyObject_GetBuffer(payload, &buffer, PyBUF_SIMPLE)
    memset(&job, 0, sizeof(Job))
    run_result_init(&job.result)
    try:
        session.begin_use()
        job.state = &session.state
        job.method = method
        job.payload = <const uint8_t*>buffer.buf
        job.size = <size_t>buffer.len
        with nogil:
            job.enqueued_us = monotonic_us()
            job.deadline_us = deadline_after(job.enqueued_us, remaining_us)
            execute(&job)
        session.end_use()
        return (
            job.result.code, _copy(&job.result.message),
            _copy(&job.result.response) if job.result.code == 0 else b"", job.result.run_us)
    finally:
        run_result_free(&job.result)
        PyBuffer_Release(&buffer)


PREDICT = METHOD_PREDICT
CLASSIFY = METHOD_CLASSIFY
REGRESS = METHOD_REGRESS
MULTI_INFERENCE = METHOD_MULTI_INFERENCE
SESSION_RUN = METHOD_SESSION_RUN
