"""Errands: what control threads have done on the data loop's thread, and wait for.

Each is a task in the event loop's mailbox, on the waiting thread's stack. Where no loop runs, yet or any more, the
thread does its errand itself, under the lock that also starts and ends the loop.

Source: pthreads(7).
"""

from libc.stddef cimport size_t

from tensorgate._native.batch_scheduler cimport scheduler_drain
from tensorgate._native.clocks cimport monotonic_us
from tensorgate._native.event_loop cimport Task
from tensorgate._native.id_table cimport IdNode, id_add, id_take
from tensorgate._native.loop_links cimport links_have_unsent, links_may_have
from tensorgate._native.loop_state cimport Errand, Link, LoopState, Servable, run_of
from tensorgate._native.posix cimport (
    atomic_store,
    pthread_cond_broadcast,
    pthread_cond_wait,
    pthread_mutex_lock,
    pthread_mutex_unlock,
)


cdef enum:
    # What stopping grants a gateway that does not read.
    STOP_PATIENCE_US = 1000000


cdef void end_errand(LoopState* state, Errand* errand) noexcept nogil:
    """The errand is the waiting thread's from here on."""
    pthread_mutex_lock(&state.errand_mutex)
    errand.is_done = True
    pthread_cond_broadcast(&state.errand_done)
    pthread_mutex_unlock(&state.errand_mutex)


cdef void end_errands_if_idle(LoopState* state) noexcept nogil:
    cdef Errand* errand
    if state.data_may_have or links_may_have(state) or state.runs.num_nodes or state.num_unsent:
        return
    if links_have_unsent(state) and not 0 <= state.give_up_us <= state.loop.now_us:
        return
    while state.waiting_for_idle is not NULL:
        errand = state.waiting_for_idle
        state.waiting_for_idle = errand.next
        end_errand(state, errand)


cdef void register_task(Task* task) noexcept nogil:
    cdef LoopState* state = <LoopState*>task.owner
    cdef Errand* errand = <Errand*>task
    id_add(&state.servables, &errand.servable.node)
    end_errand(state, errand)


cdef void withdraw_task(Task* task) noexcept nogil:
    cdef LoopState* state = <LoopState*>task.owner
    cdef Errand* errand = <Errand*>task
    errand.servable = <Servable*>id_take(&state.servables, errand.handle)
    if errand.servable is NULL or errand.servable.num_runs == 0:
        end_errand(state, errand)
    else:
        errand.servable.withdrawal = errand


cdef void drain_task(Task* task) noexcept nogil:
    cdef LoopState* state = <LoopState*>task.owner
    cdef Errand* errand = <Errand*>task
    cdef Link* link = state.links
    state.is_draining = True
    scheduler_drain(&state.scheduler)
    # Ended by the hook: requests that lie in the socket are taken in and refused first.
    state.data_may_have = True
    while link is not NULL:
        link.stream.may_have = True
        link = link.next
    errand.next = state.waiting_for_idle
    state.waiting_for_idle = errand


cdef void cancel_all_task(Task* task) noexcept nogil:
    cdef LoopState* state = <LoopState*>task.owner
    cdef IdNode* node
    cdef size_t i
    for i in range(state.runs.num_buckets):
        node = state.runs.buckets[i]
        while node is not NULL:
            atomic_store(&run_of(node).job.cancelled, 1)
            node = node.next
    state.give_up_us = monotonic_us() + STOP_PATIENCE_US
    drain_task(task)


cdef void wait_for_errand(LoopState* state, Errand* errand) noexcept nogil:
    pthread_mutex_lock(&state.errand_mutex)
    while not errand.is_done:
        pthread_cond_wait(&state.errand_done, &state.errand_mutex)
    pthread_mutex_unlock(&state.errand_mutex)
