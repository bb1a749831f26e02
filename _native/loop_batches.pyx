"""The data loop's part in batching: requests become tasks, and batches of microseconds run on the loop's own thread.

Between requests and replies, for servables that are batched. All requests that have come are taken in before a batch is
run, so those that come together run together though nobody waits. What is large is read on an execution thread.

Source: batch_scheduler, loop_runs.
"""

from tensorgate._native.batch_examples cimport prepare_inference
from tensorgate._native.batch_run cimport batch_run
from tensorgate._native.batch_scheduler cimport batch_end, batch_enqueue, batch_kick, batch_take_short
from tensorgate._native.batch_state cimport Batch, Batcher, BatchTask
from tensorgate._native.batch_tasks cimport PREPARED, RUNS_ALONE, Preparation, prepare_predict
from tensorgate._native.clocks cimport monotonic_us
from tensorgate._native.execution_pool cimport METHOD_MULTI_INFERENCE, METHOD_PREDICT, Job, execute, pool_submit
from tensorgate._native.loop_links cimport flush_links
from tensorgate._native.loop_runs cimport begin_at_once, complete, end_at_once, on_run_done, push_done
from tensorgate._native.loop_state cimport LoopState, Run
from tensorgate._native.posix cimport atomic_load
from tensorgate._native.status_codes cimport OK


cdef enum:
    # Larger requests are not read on the loop's thread.
    LARGE_BYTES = 1 << 18


cdef Preparation _prepare(Batcher* batcher, Job* job, BatchTask** task) noexcept nogil:
    if atomic_load(&job.cancelled) or 0 <= job.deadline_us <= monotonic_us():
        return RUNS_ALONE  # that is, it does not run
    if job.method == METHOD_PREDICT:
        return prepare_predict(batcher, job, task)
    return prepare_inference(batcher, job, task)


cdef void on_batch_done(void* owner, Job* first, Job* last) noexcept nogil:
    push_done(<LoopState*>owner, first, last)


cdef void _complete_all(LoopState* state, Job* job) noexcept nogil:
    cdef Job* following
    while job is not NULL:
        following = job.next
        complete(state, <Run*>job)
        job = following


# --- large requests ---------------------------------------------------------------------------------------------------

cdef void _on_large(Job* job) noexcept nogil:
    """On an execution thread, in place of running it: reads it, and puts it into its queue."""
    cdef LoopState* state = <LoopState*>job.owner
    cdef Batcher* batcher = (<Run*>job).servable.batcher
    cdef BatchTask* task = NULL
    cdef Job* dropped = NULL
    cdef Job* last
    cdef Preparation preparation = _prepare(batcher, job, &task)
    if preparation == RUNS_ALONE:
        execute(job)
    elif preparation == PREPARED and batch_enqueue(batcher, task, &dropped) == OK:
        # The run may be gone from here on.
        job = NULL
    if dropped is not NULL:
        last = dropped
        while last.next is not NULL:
            last = last.next
        push_done(state, dropped, last)
    if job is NULL:
        batch_kick(&state.scheduler)
    else:
        on_run_done(job)


# --- for the loop's thread --------------------------------------------------------------------------------------------

cdef bint run_batched(LoopState* state, Run* run) noexcept nogil:
    cdef BatchTask* task = NULL
    cdef Job* dropped = NULL
    cdef Preparation preparation
    if not METHOD_PREDICT <= run.job.method <= METHOD_MULTI_INFERENCE:
        return False
    if run.job.size > LARGE_BYTES:
        run.job.is_only_read = True
        run.job.on_done = _on_large
        pool_submit(&state.pool, &run.job)
        return True
    preparation = _prepare(run.servable.batcher, &run.job, &task)
    if preparation == RUNS_ALONE:
        return False
    if preparation == PREPARED and batch_enqueue(run.servable.batcher, task, &dropped) == OK:
        run = NULL  # the scheduler's
    if run is not NULL:
        complete(state, run)
    _complete_all(state, dropped)
    return True


cdef bint run_ready_batches(LoopState* state, bint more_to_come) noexcept nogil:
    cdef Batch* batch
    cdef Run* run
    cdef Job* first
    cdef Job* last = NULL
    cdef bint is_ours = True
    while is_ours:
        batch = batch_take_short(&state.scheduler, more_to_come)
        if batch is NULL:
            break
        run = <Run*>batch.first.task.job
        begin_at_once(state, run, monotonic_us())
        batch_run(batch)
        is_ours = end_at_once(state, run)
        first = batch_end(batch, &last)
        if is_ours:
            state.holds_replies = True
            _complete_all(state, first)
            state.holds_replies = False
            flush_links(state)
        elif first is not NULL:
            push_done(state, first, last)
    if not is_ours or not more_to_come:
        batch_kick(&state.scheduler)
    return is_ours
