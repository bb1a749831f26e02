"""Runs a loaded graph: in which thread, by what deadline, and what the next run can expect of it.

In the worker, at the end of a request's line (read → bind → run → encode); any number of execution threads at once.

A run goes either through TensorFlow's inter-op pool, which honours a deadline, or straight in the calling thread,
which is three times cheaper for a small graph but cannot be interrupted. So the calling thread is for runs that cannot
surprise: the graph has no loops and waits for nobody, its runs are typically shorter than CALLER_LIMIT_US, and the
request is not much larger than those that were.

Source: tensorflow/c/c_api.h; RunOptions in tensorflow/core/protobuf/config.proto.
"""

import os

from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.string cimport memset

from tensorgate._native.clocks cimport monotonic_us, thread_cpu_us
from tensorgate._native.session cimport RunHistory, SessionState
from tensorgate._native.tf_c_api cimport TF_Buffer, TF_Operation, TF_Output, TF_Status, TF_Tensor, tf


cdef enum:
    CALLER_LIMIT_US = 1000
    # How much larger than any before a request may be, in times, to be expected to run as shortly.
    MAX_GROWTH = 4


cdef int64_t _num_processors = os.cpu_count() or 1


cdef size_t _varint(uint8_t* out, uint64_t value) noexcept nogil:
    cdef size_t size = 0
    while value >= 0x80:
        out[size] = <uint8_t>(value | 0x80)
        value >>= 7
        size += 1
    out[size] = <uint8_t>value
    return size + 1


cdef int64_t expected_in_caller_us(
    SessionState* state, const RunHistory* history, size_t request_size,
) noexcept nogil:
    if state.may_run_long or history.typical_run_us >= CALLER_LIMIT_US:
        return 0
    if request_size // MAX_GROWTH > history.largest_request:
        return 0
    return history.typical_run_us


cdef inline void _learn(RunHistory* history, size_t request_size, int64_t took_us) noexcept nogil:
    """Falls fast, since first runs include the optimisation of the graph; a run over the limit counts at once."""
    cdef int64_t typical = history.typical_run_us
    if took_us >= CALLER_LIMIT_US or typical == 0:
        typical = took_us
    elif took_us < typical:
        typical = (typical + took_us) // 2
    else:
        typical = (7 * typical + took_us) // 8
    history.typical_run_us = typical if typical > 0 else 1
    if took_us < CALLER_LIMIT_US and request_size > history.largest_request:
        history.largest_request = request_size


cdef int64_t own_time_us(int64_t took_us, int64_t began_cpu_us) noexcept nogil:
    # TensorFlow's own threads help with a large operation, so this thread's part of the work is at least one of as many
    # as there are processors.
    cdef int64_t work_us = (thread_cpu_us() - began_cpu_us + 1) * _num_processors
    return min(took_us, work_us)


cdef void run_session(
    SessionState* state, RunHistory* history, size_t request_size, const TF_Output* feeds, TF_Tensor** inputs,
    int num_inputs, const TF_Output* fetches, TF_Tensor** outputs, int num_outputs, TF_Operation** targets,
    int num_targets, int64_t deadline_us, uint64_t* run_us, TF_Status* status,
) noexcept nogil:
    cdef uint8_t encoded[24]
    cdef TF_Buffer run_options
    cdef TF_Buffer* chosen = NULL
    cdef int64_t began_us = monotonic_us()
    cdef int64_t began_cpu_us = 0
    cdef int64_t left_ms, took_us
    cdef bint in_caller = False
    memset(&run_options, 0, sizeof(TF_Buffer))
    run_options.data = encoded
    if history is not NULL and expected_in_caller_us(state, history, request_size):
        in_caller = True
        began_cpu_us = thread_cpu_us()
        encoded[0] = 3 << 3  # RunOptions.inter_op_thread_pool = -1: the calling thread
        run_options.length = 1 + _varint(encoded + 1, ~<uint64_t>0)
        chosen = &run_options
    elif deadline_us >= 0:
        left_ms = (deadline_us - began_us + 999) // 1000
        encoded[0] = 2 << 3  # RunOptions.timeout_in_ms
        run_options.length = 1 + _varint(encoded + 1, <uint64_t>(left_ms if left_ms > 0 else 1))
        chosen = &run_options
    tf.SessionRun(
        state.session, chosen, feeds, inputs, num_inputs, fetches, outputs, num_outputs,
        <const TF_Operation**>targets, num_targets, NULL, status)
    took_us = monotonic_us() - began_us
    run_us[0] = <uint64_t>took_us
    if history is NULL:
        return
    if in_caller:
        took_us = own_time_us(took_us, began_cpu_us)
    _learn(history, request_size, took_us)
