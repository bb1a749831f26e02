"""The data loop's runs: those that end on execution threads, and those of microseconds, on the loop's own thread.

Between requests and replies. A run on the loop's thread can surprise it, since a model's work may depend on the values
it is given. So a sentinel, a thread of its own, looks at such runs from time to time: when one takes milliseconds, it
has another thread take the loop over, and the run's thread only ends it. The sentinel sleeps while there are none.

Source: pthreads(7), eventfd(2).
"""

from libc.stdint cimport INT64_MAX, int64_t, uint64_t
from posix.time cimport nanosleep, timespec

from tensorgate._native.clocks cimport monotonic_us
from tensorgate._native.event_loop cimport loop_replace_thread
from tensorgate._native.execution_pool cimport Job, execute
from tensorgate._native.id_table cimport id_take
from tensorgate._native.loop_errands cimport end_errand
from tensorgate._native.loop_links cimport flush_links
from tensorgate._native.loop_replies cimport reply
from tensorgate._native.loop_state cimport LoopState, Run, RunList, Servable, pop_run
from tensorgate._native.posix cimport (
    atomic_store,
    eventfd_write,
    pthread_cond_signal,
    pthread_cond_wait,
    pthread_join,
    pthread_mutex_lock,
    pthread_mutex_unlock,
)


cdef enum:
    # A run on the loop's thread is a surprise after that; it is noticed at the sentinel's next look.
    SURPRISE_US = 5000
    SENTINEL_LOOKS_EVERY_US = 5000
    # Looks that find nothing new before the sentinel sleeps until there is another such run: a second.
    SENTINEL_PATIENCE = 200
    # How long after a surprise the servable's requests all go to the pool. Not for longer: on a busy machine a short
    # run surprises too, when its thread has to wait for a processor, and the pool costs it several times its own time.
    SURPRISE_COUNTS_US = 1000000


cdef void on_run_done(Job* job) noexcept nogil:
    push_done(<LoopState*>job.owner, job, job)


cdef void push_done(LoopState* state, Job* first, Job* last) noexcept nogil:
    """On an execution thread: one ring of the eventfd for a whole run of completions, none while the loop is awake."""
    cdef bint ring
    last.next = NULL
    pthread_mutex_lock(&state.done_mutex)
    if state.done.first is NULL:
        state.done.first = first
    else:
        state.done.last.next = first
    state.done.last = last
    ring = state.is_asleep
    state.is_asleep = False
    pthread_mutex_unlock(&state.done_mutex)
    if ring:
        eventfd_write(state.done_watch.fd, 1)


cdef void complete(LoopState* state, Run* run) noexcept nogil:
    cdef Servable* servable = run.servable
    id_take(&state.runs, run.node.id)
    servable.num_runs -= 1
    if run.surprised:
        atomic_store(&servable.not_at_once_until_us, monotonic_us() + SURPRISE_COUNTS_US)
    if servable.num_runs == 0 and servable.withdrawal is not NULL:
        end_errand(state, servable.withdrawal)
    reply(state, run)


cdef void complete_done(LoopState* state) noexcept nogil:
    """Answers what the execution threads have done; from here on they need not ring."""
    cdef RunList done
    cdef Run* run
    pthread_mutex_lock(&state.done_mutex)
    done = state.done
    state.done.first = NULL
    state.is_asleep = False
    pthread_mutex_unlock(&state.done_mutex)
    if done.first is NULL:
        return
    state.holds_replies = True
    while True:
        run = pop_run(&done)
        if run is NULL:
            break
        complete(state, run)
    state.holds_replies = False
    flush_links(state)


cdef bint may_sleep(LoopState* state) noexcept nogil:
    """From True on, execution threads ring."""
    cdef bint nothing_done
    pthread_mutex_lock(&state.done_mutex)
    nothing_done = state.done.first is NULL
    state.is_asleep = nothing_done
    pthread_mutex_unlock(&state.done_mutex)
    return nothing_done


# --- runs on the loop's thread ----------------------------------------------------------------------------------------

cdef void begin_at_once(LoopState* state, Run* run, int64_t since_us) noexcept nogil:
    cdef bint wake
    pthread_mutex_lock(&state.at_once_mutex)
    state.at_once = run
    state.at_once_since_us = since_us
    state.num_at_once += 1
    wake = state.sentinel_sleeps
    state.sentinel_sleeps = False
    pthread_mutex_unlock(&state.at_once_mutex)
    if wake:
        pthread_cond_signal(&state.sentinel_wakes)


cdef bint end_at_once(LoopState* state, Run* run) noexcept nogil:
    cdef bint is_ours
    pthread_mutex_lock(&state.at_once_mutex)
    is_ours = state.at_once is run
    if is_ours:
        state.at_once = NULL
    pthread_mutex_unlock(&state.at_once_mutex)
    return is_ours


cdef bint run_at_once(LoopState* state, Run* run) noexcept nogil:
    """False: another thread has taken the loop over, and this one must leave it alone and end."""
    cdef bint is_ours
    begin_at_once(state, run, run.job.enqueued_us)
    execute(&run.job)
    is_ours = end_at_once(state, run)
    if is_ours:
        complete(state, run)
    else:
        on_run_done(&run.job)
    return is_ours


cdef void _look_at_run(LoopState* state, int64_t now_us) noexcept nogil:
    """Has the loop taken over if its run takes too long; under the mutex, so that the run does not end meanwhile."""
    cdef Run* run = state.at_once
    if run is NULL or now_us - state.at_once_since_us < SURPRISE_US:
        return
    # The loop's thread is inside the run: what it owns may be touched.
    run.surprised = True
    atomic_store(&run.servable.not_at_once_until_us, INT64_MAX)
    if loop_replace_thread(&state.loop):
        state.at_once = NULL
        state.counters.surprises += 1


cdef void* sentinel_main(void* argument) noexcept nogil:
    cdef LoopState* state = <LoopState*>argument
    cdef timespec pause
    cdef uint64_t num_seen = 0
    cdef int num_vain = 0
    pause.tv_sec = 0
    pause.tv_nsec = SENTINEL_LOOKS_EVERY_US * 1000
    pthread_mutex_lock(&state.at_once_mutex)
    while not state.sentinel_stops:
        if state.num_at_once != num_seen or state.at_once is not NULL:
            num_seen = state.num_at_once
            num_vain = 0
            _look_at_run(state, monotonic_us())
        else:
            num_vain += 1
        if num_vain >= SENTINEL_PATIENCE:
            num_vain = 0
            state.sentinel_sleeps = True
            while state.sentinel_sleeps and not state.sentinel_stops:
                pthread_cond_wait(&state.sentinel_wakes, &state.at_once_mutex)
        pthread_mutex_unlock(&state.at_once_mutex)
        nanosleep(&pause, NULL)
        pthread_mutex_lock(&state.at_once_mutex)
    pthread_mutex_unlock(&state.at_once_mutex)
    return NULL


cdef void stop_sentinel(LoopState* state) noexcept nogil:
    pthread_mutex_lock(&state.at_once_mutex)
    state.sentinel_stops = True
    pthread_mutex_unlock(&state.at_once_mutex)
    pthread_cond_signal(&state.sentinel_wakes)
    pthread_join(state.sentinel, NULL)
    state.sentinel_stops = False
