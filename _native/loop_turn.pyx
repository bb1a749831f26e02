"""A turn of the data loop: what there is to do is done, and then it is settled when the loop looks again.

On the data loop's thread, after its event loop has dealt with what was ready: replies of what has run, cancels,
requests (loop_requests, loop_links), errands, batches.

Source: zmq_getsockopt(3) on ZMQ_FD; the modules named above.
"""

from libc.stdint cimport int64_t

from tensorgate._native.clocks cimport monotonic_us
from tensorgate._native.event_loop cimport Hook, Timer, loop_add_hook, timer_cancel, timer_init, timer_set
from tensorgate._native.loop_batches cimport run_ready_batches
from tensorgate._native.loop_errands cimport end_errands_if_idle
from tensorgate._native.loop_links cimport links_have_unsent, links_may_have
from tensorgate._native.loop_replies cimport retry_unsent
from tensorgate._native.loop_requests cimport take_cancels, take_link_requests, take_requests
from tensorgate._native.loop_runs cimport complete_done, may_sleep
from tensorgate._native.loop_state cimport RETRY_AFTER_US, LoopState
from tensorgate._native.posix cimport atomic_load


cdef void _on_again(Timer* timer) noexcept nogil:
    pass  # the hook does the rest


cdef void _on_turn(Hook* hook) noexcept nogil:
    cdef LoopState* state = <LoopState*>hook.owner
    cdef int64_t again_us
    cdef bint has_more
    if state.num_unsent and state.retry_us <= state.loop.now_us:
        retry_unsent(state)
    while True:
        complete_done(state)
        if state.cancels_may_have:
            state.cancels_may_have = not take_cancels(state)
        if state.data_may_have and not take_requests(state):
            return
        if state.links is not NULL and not take_link_requests(state):
            return
        end_errands_if_idle(state)
        has_more = state.data_may_have or links_may_have(state)
        if atomic_load(&state.is_batching) and not run_ready_batches(state, has_more and state.spare is not NULL):
            return
        if has_more and state.spare is NULL:
            again_us = monotonic_us() + RETRY_AFTER_US
        elif has_more or state.cancels_may_have:
            again_us = state.loop.now_us
        elif state.num_unsent:
            again_us = state.retry_us
        elif state.waiting_for_idle is not NULL and links_have_unsent(state):
            again_us = monotonic_us() + RETRY_AFTER_US
        else:
            again_us = -1
        if again_us < 0:
            timer_cancel(&state.loop, &state.again_timer)
        elif not timer_set(&state.loop, &state.again_timer, again_us):
            continue
        # Not asleep while there is more to do: the event loop's other work has its turn, and then this again.
        if again_us == state.loop.now_us or may_sleep(state):
            return


cdef void turns_begin(LoopState* state) noexcept nogil:
    timer_init(&state.again_timer, _on_again, state)
    state.turn_hook.run = _on_turn
    state.turn_hook.owner = state
    loop_add_hook(&state.loop, &state.turn_hook)
