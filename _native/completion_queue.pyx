"""Requests of Python's edges on their way through a native thread, and their outcomes on the way back.

On a request's line: REST or grpcio edge → completion_queue → dispatcher ‖ worker. A request is a ticket: made on the
submitter's thread, posted to a native thread, and put on the submitter's queue with its outcome. Native threads never
take the GIL: what only it allows, such as releasing a buffer of Python's that was sent without a copy, is left to the
next drain or submit.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_FillInfo, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.memoryview cimport PyMemoryView_FromObject
from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy

from tensorgate._native.data_plane cimport DataPlane
from tensorgate._native.data_thread cimport DataThread
from tensorgate._native.dispatcher cimport dispatcher_submit
from tensorgate._native.dispatcher_state cimport MAX_TRACEPARENT, Outcome, Request
from tensorgate._native.event_loop cimport Task, loop_post
from tensorgate._native.held_buffers cimport HeldBuffer, put_aside, release_all
from tensorgate._native.posix cimport atomic_add, eventfd_write
from tensorgate._native.proto_scan cimport ModelSpecView, scan_model_spec_view, scan_task_spec_view
from tensorgate._native.request_end cimport dispatcher_cancel, request_free, request_new
from tensorgate._native.route_table cimport PublishedVersion, signature_place
from tensorgate._native.wake_queue cimport (
    QueueLink,
    WakeQueue,
    wake_queue_close,
    wake_queue_free,
    wake_queue_init,
    wake_queue_push,
    wake_queue_take,
)
from tensorgate._native.zmq_api cimport message_of_copy, zmq, zmq_msg_t


cdef enum:
    # Below these a copy costs less than an object that keeps the memory, and its life.
    COPY_REQUEST_BELOW_BYTES = 64 * 1024
    COPY_REPLY_BELOW_BYTES = 32 * 1024
    MULTI_INFERENCE = 4  # dispatch.call.Method


cdef struct QueueState:
    # What native threads know of a CompletionQueue; freed with the last reference.
    int64_t refs            # atomic
    WakeQueue outcomes      # Tickets; closed when nobody drains any more


cdef struct Ticket:
    # One request of Python's: belongs to its thread until on_done, then to the queue. Freed with the last reference:
    # its outcome's, and that of a cancel on its way.
    QueueLink link
    int64_t refs            # atomic
    uint64_t number
    DataThread* thread
    Request* request        # the thread's; NULL once it has ended for us
    QueueState* queue
    Task submit_task
    Task cancel_task
    int code
    char* message           # malloc'd; NULL: empty
    size_t message_size
    zmq_msg_t payload
    bint is_shared          # the worker may still write to it
    uint64_t queue_us
    uint64_t run_us
    uint64_t batch_rows
    uint64_t padding_rows


# --- tickets ----------------------------------------------------------------------------------------------------------


cdef void _drop_queue(QueueState* queue) noexcept nogil:
    if atomic_add(&queue.refs, -1) == 0:
        wake_queue_free(&queue.outcomes)
        free(queue)


cdef void _drop_ticket(Ticket* ticket) noexcept nogil:
    if atomic_add(&ticket.refs, -1) == 0:
        zmq.msg_close(&ticket.payload)
        free(ticket.message)
        _drop_queue(ticket.queue)
        free(ticket)


cdef void _on_done(Request* request, const Outcome* outcome) noexcept nogil:
    cdef Ticket* ticket = <Ticket*>request.owner
    ticket.request = NULL
    ticket.code = outcome.code
    ticket.queue_us = outcome.queue_us
    ticket.run_us = outcome.run_us
    ticket.batch_rows = outcome.batch_rows
    ticket.padding_rows = outcome.padding_rows
    if outcome.message_size:
        ticket.message = <char*>malloc(outcome.message_size)
        if ticket.message is not NULL:  # else the code has to do
            memcpy(ticket.message, outcome.message, outcome.message_size)
            ticket.message_size = outcome.message_size
    if outcome.payload is not NULL:
        zmq.msg_move(&ticket.payload, outcome.payload)
        ticket.is_shared = outcome.is_shared
    if not wake_queue_push(&ticket.queue.outcomes, &ticket.link):
        _drop_ticket(ticket)


cdef size_t _signature_of(Request* request) noexcept nogil:
    """Where a request that has its version, method and payload is counted."""
    cdef ModelSpecView spec
    cdef const uint8_t* data = <const uint8_t*>zmq.msg_data(&request.payload)
    cdef bint is_read
    if request.method == MULTI_INFERENCE:
        is_read = scan_task_spec_view(data, request.payload_size, &spec)
    else:
        is_read = scan_model_spec_view(data, request.payload_size, 1, &spec)
    # Bytes that are no message are the worker's to refuse.
    return signature_place(request.version, spec.signature_name, spec.signature_name_size) if is_read else 0


cdef void _submit_ticket(Task* task) noexcept nogil:
    cdef Ticket* ticket = <Ticket*>task.owner
    dispatcher_submit(&ticket.thread.dispatcher, ticket.request)


cdef void _cancel_ticket(Task* task) noexcept nogil:
    cdef Ticket* ticket = <Ticket*>task.owner
    cdef Request* request = ticket.request
    if request is not NULL:
        ticket.request = NULL
        dispatcher_cancel(&ticket.thread.dispatcher, request)
        _drop_ticket(ticket)  # on_done's reference
    _drop_ticket(ticket)


cdef void _release_later(void* data, void* hint) noexcept nogil:
    """A message that used a buffer is gone; on whatever thread."""
    cdef HeldBuffer* held = <HeldBuffer*>hint
    cdef QueueState* queue = <QueueState*>held.queue
    put_aside(held)
    # held may be gone by now.
    eventfd_write(queue.outcomes.fd, 1)
    _drop_queue(queue)


# --- for Python -------------------------------------------------------------------------------------------------------


cdef class ReplyBuffer:
    """A reply's payload in the frame it arrived in, exposed through the buffer protocol."""
    cdef zmq_msg_t frame

    def __cinit__(self):
        zmq.msg_init(&self.frame)

    def __getbuffer__(self, Py_buffer* buffer, int flags):
        PyBuffer_FillInfo(buffer, self, zmq.msg_data(&self.frame), <Py_ssize_t>zmq.msg_size(&self.frame), 1, flags)

    def __dealloc__(self):
        zmq.msg_close(&self.frame)


cdef object _take_payload(Ticket* ticket):
    cdef size_t size = zmq.msg_size(&ticket.payload)
    cdef ReplyBuffer reply
    if size < COPY_REPLY_BELOW_BYTES or ticket.is_shared:
        return PyBytes_FromStringAndSize(<const char*>zmq.msg_data(&ticket.payload), <Py_ssize_t>size)
    reply = ReplyBuffer.__new__(ReplyBuffer)
    zmq.msg_move(&reply.frame, &ticket.payload)
    return PyMemoryView_FromObject(reply)


cdef class Submission:
    """One request of Python's on its way."""
    cdef CompletionQueue _queue
    cdef object _owner
    cdef Ticket* _ticket  # until it is drained or cancelled: NULL then

    def cancel(self):
        cdef Ticket* ticket = self._ticket
        if ticket is NULL:
            return False
        self._ticket = NULL
        self._owner = None
        del self._queue._submissions[ticket.number]
        if self._queue._plane.is_closed:
            return True  # it has its outcome: nothing is under way any more
        atomic_add(&ticket.refs, 1)
        ticket.cancel_task.run = _cancel_ticket
        ticket.cancel_task.owner = ticket
        loop_post(&ticket.thread.loop, &ticket.cancel_task)
        return True


cdef class CompletionQueue:
    cdef DataPlane _plane
    cdef QueueState* _state
    cdef dict _submissions
    cdef uint64_t _last_number
    cdef DataThread* _thread

    def __cinit__(self, DataPlane plane not None):
        self._plane = plane
        self._submissions = {}
        self._thread = &plane.threads[plane._next_thread]
        plane._next_thread = (plane._next_thread + 1) % plane.num_threads
        self._state = <QueueState*>calloc(1, sizeof(QueueState))
        if self._state is NULL:
            raise MemoryError
        self._state.refs = 1
        if not wake_queue_init(&self._state.outcomes):
            free(self._state)
            self._state = NULL
            raise OSError("eventfd failed: too many open files?")

    def __dealloc__(self):
        cdef QueueLink* link
        cdef Ticket* ticket
        if self._state is NULL:
            return
        link = wake_queue_close(&self._state.outcomes)
        while link is not NULL:
            ticket = <Ticket*>link
            link = link.next
            _drop_ticket(ticket)
        _drop_queue(self._state)

    @property
    def event_fd(self):
        return self._state.outcomes.fd

    @property
    def num_pending(self):
        return len(self._submissions)

    def submit(
        self, owner, PublishedVersion version not None, uint64_t method, payload, int64_t priority=0,
        bint sampled=False, bytes traceparent not None=b"", int64_t deadline_us=-1,
    ):
        cdef Submission submission = None
        cdef Ticket* ticket
        cdef Request* request
        if self._plane.is_closed:
            raise RuntimeError("the data plane is closed")
        release_all(&self._plane.held)
        request = request_new()
        if request is NULL:
            raise MemoryError
        ticket = <Ticket*>calloc(1, sizeof(Ticket))
        if ticket is NULL:
            request_free(request)
            raise MemoryError
        zmq.msg_init(&ticket.payload)
        ticket.refs = 1
        ticket.thread = self._thread
        ticket.request = request
        ticket.queue = self._state
        atomic_add(&self._state.refs, 1)
        try:
            self._fill(request, payload)
            self._last_number += 1
            ticket.number = self._last_number
            submission = Submission.__new__(Submission)
            submission._queue = self
            submission._owner = owner
            submission._ticket = ticket
            if self._plane.is_closed:  # while the buffer was asked for
                raise RuntimeError("the data plane is closed")
            self._submissions[ticket.number] = submission
        except BaseException:
            if submission is not None:
                submission._ticket = NULL
            request_free(request)
            _drop_ticket(ticket)
            raise
        request.version = &version.state
        request.method = method
        request.signature = _signature_of(request)
        request.priority = priority
        request.sampled = sampled
        # A header that is longer than any valid one is left out.
        if len(traceparent) <= MAX_TRACEPARENT:
            request.traceparent_size = <size_t>len(traceparent)
            memcpy(request.traceparent, <const char*>traceparent, request.traceparent_size)
        request.deadline_us = deadline_us
        request.on_done = _on_done
        request.owner = ticket
        ticket.submit_task.run = _submit_ticket
        ticket.submit_task.owner = ticket
        loop_post(&ticket.thread.loop, &ticket.submit_task)
        return submission

    cdef int _fill(self, Request* request, payload) except -1:
        """Gives the request its payload: a copy, or the buffer itself, held until the message is gone."""
        cdef HeldBuffer* held = <HeldBuffer*>malloc(sizeof(HeldBuffer))
        cdef int result
        if held is NULL:
            raise MemoryError
        try:
            PyObject_GetBuffer(payload, &held.view, PyBUF_SIMPLE)
        except BaseException:
            free(held)
            raise
        request.payload_size = <size_t>held.view.len
        if request.payload_size < COPY_REQUEST_BELOW_BYTES:
            result = 0 if message_of_copy(&request.payload, held.view.buf, request.payload_size) else -1
            PyBuffer_Release(&held.view)
            free(held)
        else:
            held.queue = self._state
            held.released = &self._plane.held
            result = zmq.msg_init_data(&request.payload, held.view.buf, request.payload_size, _release_later, held)
            if result == 0:
                atomic_add(&self._state.refs, 1)
            else:
                PyBuffer_Release(&held.view)
                free(held)
        if result != 0:
            zmq.msg_init(&request.payload)
            raise MemoryError
        return 0

    def drain(self):
        cdef QueueLink* link = wake_queue_take(&self._state.outcomes)
        cdef Ticket* ticket
        cdef Submission submission
        completed = []
        # After the queue's descriptor has been read, which whoever lets go of one rings, too.
        release_all(&self._plane.held)
        while link is not NULL:
            ticket = <Ticket*>link
            link = link.next
            submission = self._submissions.pop(ticket.number, None)
            if submission is not None:  # else it was cancelled
                submission._ticket = NULL
                completed.append((
                    submission._owner, ticket.code,
                    PyBytes_FromStringAndSize(ticket.message, <Py_ssize_t>ticket.message_size)
                    if ticket.message_size else b"",
                    _take_payload(ticket) if ticket.code == 0 else b"",
                    ticket.queue_us, ticket.run_us, ticket.batch_rows, ticket.padding_rows,
                ))
                submission._owner = None
            _drop_ticket(ticket)
        return completed
