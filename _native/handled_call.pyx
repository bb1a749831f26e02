"""Calls that Python serves, as Python sees them: events out of the queue, commands to the threads that own the calls.

Beside a request's line: grpc_call → call_events → handled_call ‖ Python's handlers. What Python has to say travels as
a task to the call's own thread, which looks whether the call is still there.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint8_t, uint32_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

from tensorgate._native cimport call_events
from tensorgate._native.call_events cimport (
    CallEvent,
    CallHandle,
    call_event_free,
    call_handle_hold,
    call_handle_release,
)
from tensorgate._native.event_loop cimport Task, loop_post
from tensorgate._native.grpc_answer cimport grpc_call_finish, grpc_call_send
from tensorgate._native.grpc_call cimport grpc_call_acknowledge
from tensorgate._native.grpc_state cimport GrpcCall
from tensorgate._native.wake_queue cimport QueueLink, wake_queue_take

EVENT_START = call_events.EVENT_START
EVENT_MESSAGE = call_events.EVENT_MESSAGE
EVENT_END = call_events.EVENT_END
EVENT_DRAINED = call_events.EVENT_DRAINED
EVENT_CLOSED = call_events.EVENT_CLOSED


cdef enum CommandKind:
    COMMAND_SEND = 1
    COMMAND_FINISH = 2
    COMMAND_ACKNOWLEDGE = 3


cdef struct Command:
    Task task
    CommandKind kind
    CallHandle* handle
    uint8_t* data
    size_t size
    int code
    bint reports


cdef void _run_command(Task* task) noexcept nogil:
    cdef Command* command = <Command*>task.owner
    cdef GrpcCall* call = <GrpcCall*>command.handle.call
    if call is not NULL:
        if command.kind == COMMAND_SEND:
            grpc_call_send(call, command.data, command.size, command.reports)
            command.data = NULL
        elif command.kind == COMMAND_FINISH:
            grpc_call_finish(call, command.code, command.data, command.size)
        else:
            grpc_call_acknowledge(call, command.size)
    free(command.data)
    call_handle_release(command.handle)
    free(command)


cdef int _post_command(
    CallHandle* handle, CommandKind kind, uint8_t* data, size_t size, int code, bint reports,
) except -1:
    """Takes data over."""
    cdef Command* command = <Command*>malloc(sizeof(Command))
    if command is NULL:
        free(data)
        raise MemoryError
    command.task.run = _run_command
    command.task.owner = command
    command.kind = kind
    command.handle = handle
    command.data = data
    command.size = size
    command.code = code
    command.reports = reports
    call_handle_hold(handle)
    loop_post(handle.loop, &command.task)
    return 0


cdef class HandledCall:
    cdef CallHandle* _handle
    cdef bint _is_over
    cdef readonly int64_t method
    cdef readonly list metadata
    cdef readonly int64_t deadline_us

    def __dealloc__(self):
        if self._handle is not NULL:
            call_handle_release(self._handle)

    def send(self, message, bint reports=False):
        cdef Py_buffer buffer
        cdef uint8_t* data
        cdef size_t size
        if self._is_over or self._handle is NULL:
            return
        PyObject_GetBuffer(message, &buffer, PyBUF_SIMPLE)
        size = <size_t>buffer.len
        data = <uint8_t*>malloc(size if size else 1)
        if data is not NULL:
            memcpy(data, buffer.buf, size)
        PyBuffer_Release(&buffer)
        if data is NULL:
            raise MemoryError
        _post_command(self._handle, COMMAND_SEND, data, size, 0, reports)

    def finish(self, int code, bytes message=b""):
        cdef size_t size = len(message)
        cdef uint8_t* data = NULL
        if self._is_over or self._handle is NULL:
            return
        if size:
            data = <uint8_t*>malloc(size)
            if data is NULL:
                raise MemoryError
            memcpy(data, <const char*>message, size)
        _post_command(self._handle, COMMAND_FINISH, data, size, code, False)

    def acknowledge(self, size_t size):
        if not self._is_over and self._handle is not NULL:
            _post_command(self._handle, COMMAND_ACKNOWLEDGE, NULL, size, 0, False)


cdef list _read_metadata(const CallEvent* event):
    cdef list metadata = []
    cdef uint32_t[2] sizes
    cdef size_t at = 0
    # Written by grpc_call: sizes are right.
    while at + 8 <= event.size:
        memcpy(sizes, event.data + at, 8)
        at += 8
        metadata.append((
            PyBytes_FromStringAndSize(<const char*>event.data + at, sizes[0]),
            PyBytes_FromStringAndSize(<const char*>event.data + at + sizes[0], sizes[1]),
        ))
        at += <size_t>sizes[0] + sizes[1]
    return metadata


cdef list take_call_events(WakeQueue* queue, dict calls):
    cdef QueueLink* link = wake_queue_take(queue)
    cdef CallEvent* event
    cdef HandledCall call
    cdef list taken = []
    while link is not NULL:
        event = <CallEvent*>link
        link = link.next
        key = <size_t>event.handle
        if event.kind == call_events.EVENT_START:
            call = HandledCall.__new__(HandledCall)
            call_handle_hold(event.handle)
            call._handle = event.handle
            call.method = event.number
            call.metadata = _read_metadata(event)
            call.deadline_us = event.deadline_us
            calls[key] = call
            taken.append((<int>event.kind, call, b""))
        else:
            call = calls[key]
            if event.kind == call_events.EVENT_CLOSED:
                call._is_over = True
                del calls[key]
            taken.append((
                <int>event.kind, call, PyBytes_FromStringAndSize(<const char*>event.data, <Py_ssize_t>event.size)
                if event.size else b""))
        call_event_free(event)
    return taken
