"""The seam for versions that are no TensorFlow session: their requests are answered by Python.

On a request's line in the worker, in place of predict: execution_pool → here, with the GIL → back. They share the loop,
the queue, deadlines and cancels with the sessions; what they cost is the GIL, so this is for platforms that are rare.
"""

import logging

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint8_t, uint64_t

from tensorgate._native.byte_writer cimport ByteWriter, put_bytes
from tensorgate._native.clocks cimport monotonic_us
from tensorgate._native.predict cimport RunResult
from tensorgate._native.status_codes cimport INTERNAL, LAST_CODE, OK

logger = logging.getLogger("tensorgate.worker.python_servable")


cdef class PythonServable:
    def __init__(self, answer):
        self._answer = answer


cdef int _put(ByteWriter* writer, bytes data) except -1:
    put_bytes(writer, PyBytes_AS_STRING(data), <size_t>PyBytes_GET_SIZE(data))
    if writer.failed:
        raise MemoryError
    return 0


cdef int _answer(
    PythonServable servable, uint64_t method, bytes payload, int64_t remaining_us, RunResult* result,
) except -1:
    code, message, response = servable._answer(method, payload, remaining_us)
    if not OK <= code <= LAST_CODE:
        raise ValueError(f"{code} is no status code")
    if code == OK:
        _put(&result.response, response)
    else:
        _put(&result.message, message)
    result.code = code
    return 0


cdef void answer_in_python(
    void* servable, uint64_t method, const uint8_t* payload, size_t size, int64_t deadline_us, RunResult* result,
) noexcept with gil:
    cdef int64_t began_us = monotonic_us()
    try:
        _answer(
            <PythonServable>servable, method, PyBytes_FromStringAndSize(<const char*>payload, <Py_ssize_t>size),
            -1 if deadline_us < 0 else max(deadline_us - began_us, 0), result)
    except BaseException as error:
        # Whatever it is, it ends this request and nothing else.
        logger.exception("a request failed")
        result.code = INTERNAL
        text = f"{type(error).__name__}: {error}".encode("utf-8", "replace")
        put_bytes(&result.message, PyBytes_AS_STRING(text), <size_t>PyBytes_GET_SIZE(text))
    result.run_us = <uint64_t>(monotonic_us() - began_us)
