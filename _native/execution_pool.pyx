"""Execution threads: a queue of requests in, completed runs out, all of it without the GIL.

Fed and drained by the worker's data loop (one Python thread, which owns the pool); the threads never take the GIL, so
loading a model or any other Python work cannot hold a request up. A request is submitted with a completion callback;
the pool's own callback puts it on the completed list and rings an eventfd.

Before a request runs it is dropped when it was cancelled or its deadline has passed. A request that is expected to
take less than a hand-over to another thread costs runs at once, in submit; still without the GIL.

A job's memory, its payload and its session belong to its ticket, which the pool holds until the job is drained, and
threads reach them without the GIL: so nothing may take a ticket away while a thread lives. Not even the cyclic garbage
collector, which empties an object before it frees it: hence __del__, which runs before that and ends the threads.

Source: pthreads(7), eventfd(2).
"""

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_FillInfo, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport strlen
from posix.unistd cimport close

from tensorgate._native.byte_writer cimport put_bytes
from tensorgate._native.posix cimport (
    EFD_CLOEXEC,
    EFD_NONBLOCK,
    eventfd,
    eventfd_read,
    eventfd_write,
    pthread_cond_broadcast,
    pthread_cond_destroy,
    pthread_cond_init,
    pthread_cond_signal,
    pthread_cond_t,
    pthread_cond_wait,
    pthread_create,
    pthread_join,
    pthread_mutex_destroy,
    pthread_mutex_init,
    pthread_mutex_lock,
    pthread_mutex_t,
    pthread_mutex_unlock,
    pthread_t,
)
from tensorgate._native.predict cimport (
    RunResult,
    expected_predict_us,
    predict,
    run_result_free,
    run_result_init,
)
from tensorgate._native.session cimport Session, SessionState, deadline_after, monotonic_us
from tensorgate._native.status_codes cimport CANCELLED, DEADLINE_EXCEEDED, UNIMPLEMENTED


cdef enum:
    METHOD_PREDICT = 1
    # Waking another thread and hearing back from it costs about as much.
    AT_ONCE_LIMIT_US = 50
    # Below this a copy costs less than a buffer object and its life.
    COPY_BELOW_BYTES = 32 * 1024


cdef struct Job:
    Job* next
    uint64_t request_id
    uint64_t method
    SessionState* state      # kept open by the submitter
    const uint8_t* payload   # kept by the submitter until the job completes
    size_t size
    int64_t deadline_us      # monotonic, -1 for none
    int64_t enqueued_us
    bint cancelled           # under the pool's mutex
    uint64_t queue_us
    RunResult result
    # Called once, on an execution thread, when result is final; the job then belongs to the callee.
    void (*on_done)(Job* job, void* context) noexcept nogil
    void* context


cdef struct JobList:
    Job* head
    Job* tail


cdef inline void _push(JobList* jobs, Job* job) noexcept nogil:
    job.next = NULL
    if jobs.tail is NULL:
        jobs.head = job
    else:
        jobs.tail.next = job
    jobs.tail = job


cdef inline Job* _pop(JobList* jobs) noexcept nogil:
    cdef Job* job = jobs.head
    if job is not NULL:
        jobs.head = job.next
        if jobs.head is NULL:
            jobs.tail = NULL
    return job


cdef struct Pool:
    pthread_mutex_t mutex      # guards queue, idle and stopping
    pthread_cond_t work
    JobList queue
    int num_idle
    bint stopping
    pthread_mutex_t done_mutex  # guards done
    JobList done
    int event_fd


cdef void _finish(Job* job, int code, const char* message) noexcept nogil:
    job.result.code = code
    put_bytes(&job.result.message, message, strlen(message))


cdef void _execute(Job* job, bint cancelled) noexcept nogil:
    cdef int64_t now_us = monotonic_us()
    job.queue_us = <uint64_t>(now_us - job.enqueued_us)
    if cancelled:
        _finish(job, CANCELLED, "the request was cancelled before it ran")
    elif 0 <= job.deadline_us <= now_us:
        _finish(job, DEADLINE_EXCEEDED, "the request's deadline passed before it ran")
    elif job.method == METHOD_PREDICT:
        predict(job.state, job.payload, job.size, job.deadline_us, &job.result)
    else:
        _finish(job, UNIMPLEMENTED, "this worker does not know the method")


cdef void* _thread_main(void* argument) noexcept nogil:
    cdef Pool* pool = <Pool*>argument
    cdef Job* job
    cdef bint cancelled
    while True:
        pthread_mutex_lock(&pool.mutex)
        while pool.queue.head is NULL and not pool.stopping:
            pool.num_idle += 1
            pthread_cond_wait(&pool.work, &pool.mutex)
            pool.num_idle -= 1
        job = _pop(&pool.queue)
        cancelled = job is not NULL and job.cancelled
        pthread_mutex_unlock(&pool.mutex)
        if job is NULL:  # stopping, and all that was queued has run
            return NULL
        _execute(job, cancelled)
        job.on_done(job, job.context)


cdef void _complete(Job* job, void* context) noexcept nogil:
    """The data loop's completion callback: one ring of the eventfd for a whole run of completions."""
    cdef Pool* pool = <Pool*>context
    cdef bint was_empty
    pthread_mutex_lock(&pool.done_mutex)
    was_empty = pool.done.head is NULL
    _push(&pool.done, job)
    pthread_mutex_unlock(&pool.done_mutex)
    if was_empty:
        eventfd_write(pool.event_fd, 1)


cdef class ResponseBuffer:
    """A finished response, exposed through the buffer protocol; the memory is freed with the object."""
    cdef uint8_t* data
    cdef size_t size

    def __getbuffer__(self, Py_buffer* buffer, int flags):
        PyBuffer_FillInfo(buffer, self, self.data, <Py_ssize_t>self.size, 1, flags)

    def __len__(self):
        return <Py_ssize_t>self.size

    def __dealloc__(self):
        free(self.data)


cdef ResponseBuffer _take_response(RunResult* result):
    cdef ResponseBuffer response = ResponseBuffer.__new__(ResponseBuffer)
    response.data = result.response.data
    response.size = result.response.size
    result.response.data = NULL
    return response


@cython.no_gc_clear  # the payload is released in __dealloc__, as a whole
cdef class _Ticket:
    """What a submitted request keeps alive: its session (held open), its payload and its job."""
    cdef Session session
    cdef Py_buffer payload
    cdef bint has_payload
    cdef bint holds_session
    cdef Job* job

    cdef void end_run(self) noexcept:
        if self.holds_session:
            self.holds_session = False
            self.session.end_run()

    def __dealloc__(self):
        if self.job is not NULL:
            run_result_free(&self.job.result)
            free(self.job)
        if self.has_payload:
            PyBuffer_Release(&self.payload)


cdef class ExecutionPool:
    cdef Pool pool
    cdef pthread_t* threads
    cdef readonly int num_threads
    cdef dict _tickets
    cdef bint _made  # False: the arguments were refused before __cinit__ began
    cdef bint _running

    def __cinit__(self, int num_threads):
        cdef int i
        self._tickets = {}
        pthread_mutex_init(&self.pool.mutex, NULL)
        pthread_mutex_init(&self.pool.done_mutex, NULL)
        pthread_cond_init(&self.pool.work, NULL)
        self.pool.event_fd = -1
        self._made = True
        if num_threads < 1:
            raise ValueError(f"num_threads must be positive; was {num_threads}")
        self.pool.event_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)
        if self.pool.event_fd < 0:
            raise OSError("eventfd failed: too many open files?")
        self.threads = <pthread_t*>calloc(num_threads, sizeof(pthread_t))
        if self.threads is NULL:
            raise MemoryError
        self._running = True
        for i in range(num_threads):
            if pthread_create(&self.threads[i], NULL, _thread_main, &self.pool) != 0:
                self.stop()
                raise OSError(f"cannot start execution thread {i} of {num_threads}")
            self.num_threads += 1

    def __del__(self):
        self.stop()

    def __dealloc__(self):
        if not self._made:
            return
        free(self.threads)
        if self.pool.event_fd >= 0:
            close(self.pool.event_fd)
        pthread_cond_destroy(&self.pool.work)
        pthread_mutex_destroy(&self.pool.mutex)
        pthread_mutex_destroy(&self.pool.done_mutex)

    @property
    def event_fd(self):
        return self.pool.event_fd

    @property
    def in_flight(self):
        return len(self._tickets)

    def submit(self, Session session not None, uint64_t request_id, uint64_t method, payload, int64_t remaining_us):
        cdef _Ticket ticket = _Ticket.__new__(_Ticket)
        cdef Job* job
        cdef bint wake
        cdef bint at_once = False
        if not self._running:
            raise RuntimeError("the pool is stopped")
        if request_id in self._tickets:
            raise ValueError(f"request {request_id} is already in flight")
        PyObject_GetBuffer(payload, &ticket.payload, PyBUF_SIMPLE)
        ticket.has_payload = True
        ticket.session = session
        job = <Job*>calloc(1, sizeof(Job))
        if job is NULL:
            raise MemoryError
        ticket.job = job
        run_result_init(&job.result)
        job.request_id = request_id
        job.method = method
        job.state = &session.state
        job.payload = <const uint8_t*>ticket.payload.buf
        job.size = <size_t>ticket.payload.len
        job.enqueued_us = monotonic_us()
        job.deadline_us = deadline_after(job.enqueued_us, remaining_us)
        job.on_done = _complete
        job.context = &self.pool
        session.begin_run()
        ticket.holds_session = True
        try:
            self._tickets[request_id] = ticket
        except BaseException:
            ticket.end_run()
            raise
        if method == METHOD_PREDICT:
            with nogil:
                at_once = 0 < expected_predict_us(job.state, job.payload, job.size) <= AT_ONCE_LIMIT_US
                if at_once:
                    _execute(job, False)
            if at_once:
                pthread_mutex_lock(&self.pool.done_mutex)
                _push(&self.pool.done, job)
                pthread_mutex_unlock(&self.pool.done_mutex)
                return True
        # Execution threads hold the mutex for a few instructions only, and never while waiting for the GIL.
        pthread_mutex_lock(&self.pool.mutex)
        _push(&self.pool.queue, job)
        wake = self.pool.num_idle > 0
        pthread_mutex_unlock(&self.pool.mutex)
        if wake:
            pthread_cond_signal(&self.pool.work)
        return False

    def cancel(self, uint64_t request_id):
        cdef _Ticket ticket = self._tickets.get(request_id)
        if ticket is None:
            return False
        pthread_mutex_lock(&self.pool.mutex)
        ticket.job.cancelled = True
        pthread_mutex_unlock(&self.pool.mutex)
        return True

    def drain(self):
        cdef JobList done
        cdef Job* job
        cdef _Ticket ticket
        cdef uint64_t ignored
        completed = []
        eventfd_read(self.pool.event_fd, &ignored)
        pthread_mutex_lock(&self.pool.done_mutex)
        done = self.pool.done
        self.pool.done.head = NULL
        self.pool.done.tail = NULL
        pthread_mutex_unlock(&self.pool.done_mutex)
        while True:
            job = _pop(&done)
            if job is NULL:
                return completed
            ticket = self._tickets.pop(job.request_id)
            ticket.end_run()
            if job.result.code != 0:
                response = b""
            elif job.result.response.size < COPY_BELOW_BYTES:
                response = PyBytes_FromStringAndSize(
                    <const char*>job.result.response.data, <Py_ssize_t>job.result.response.size)
            else:
                response = _take_response(&job.result)
            completed.append((
                job.request_id, job.result.code,
                PyBytes_FromStringAndSize(<const char*>job.result.message.data, <Py_ssize_t>job.result.message.size)
                if job.result.message.size else b"",
                job.queue_us, job.result.run_us, response, ticket.session,
            ))

    def stop(self):
        cdef int i
        cdef _Ticket ticket
        if not self._running:
            return
        self._running = False
        pthread_mutex_lock(&self.pool.mutex)
        self.pool.stopping = True
        pthread_mutex_unlock(&self.pool.mutex)
        pthread_cond_broadcast(&self.pool.work)
        with nogil:
            for i in range(self.num_threads):
                pthread_join(self.threads[i], NULL)
        for ticket in self._tickets.values():
            ticket.end_run()  # all have run, drained or not


def predict_once(Session session not None, payload, int64_t remaining_us=-1):
    cdef Py_buffer buffer
    cdef RunResult result
    PyObject_GetBuffer(payload, &buffer, PyBUF_SIMPLE)
    run_result_init(&result)
    try:
        session.begin_run()
        with nogil:
            predict(
                &session.state, <const uint8_t*>buffer.buf, <size_t>buffer.len,
                deadline_after(monotonic_us(), remaining_us), &result)
        session.end_run()
        message = (
            PyBytes_FromStringAndSize(<const char*>result.message.data, <Py_ssize_t>result.message.size)
            if result.message.size else b"")
        response = _take_response(&result) if result.code == 0 else ResponseBuffer.__new__(ResponseBuffer)
        return result.code, message, response, result.run_us
    finally:
        run_result_free(&result)
        PyBuffer_Release(&buffer)
