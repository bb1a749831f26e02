"""The worker's data loop: request frames in, execution, reply frames out, all of it without the GIL.

Second half of a request's line (dispatcher ‖ data loop → execution pool → predict → back). One native thread owns it,
with its two sockets (ROUTER for requests and replies, PULL for cancels), the table of servables and that of runs;
control threads reach it through the event loop's mailbox, execution threads through the list of runs that are done.

A request that is expected to take a few microseconds runs on the loop's thread, all others on the pool's. Should such a
run take milliseconds, because the model's work depends on the values it is given, a sentinel has another thread take
the loop over, and the run's thread only ends it.

ZeroMQ's descriptors are edge-triggered, and sending may swallow the edge that receiving waits for. So all reading is
done in the turn's hook, after everything that sends, and goes on until the socket says EAGAIN.

Replies are never dropped while the gateway lives: without a high-water mark, which is the rule, the gateway's credit
bounds what is outstanding; with one, a reply that ZeroMQ does not take (ROUTER_MANDATORY: EAGAIN) is kept and tried
again. A gateway that has gone (EHOSTUNREACH) fails what it had outstanding by itself.

Source: zmq_socket(3) on ROUTER, zmq_setsockopt(3) on ROUTER_MANDATORY, zmq_getsockopt(3) on ZMQ_FD.
"""

from tensorgate._native.zmq_api import load_library

from libc.errno cimport EAGAIN, EINTR
from libc.stddef cimport size_t
from libc.stdint cimport INT64_MAX, int64_t, uint8_t, uint32_t, uint64_t, uintptr_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp, memset, strlen
from posix.time cimport nanosleep, timespec
from posix.unistd cimport close

from tensorgate._native.byte_writer cimport put_bytes, writer_free, writer_init
from tensorgate._native.event_loop cimport (
    loop_add_hook,
    loop_free,
    loop_init,
    loop_join,
    loop_post,
    loop_replace_thread,
    loop_start,
    loop_stop,
    loop_watch,
    monotonic_now_us,
    timer_cancel,
    timer_init,
    timer_set,
)
from tensorgate._native.execution_pool cimport execute, pool_start, pool_stop, pool_submit, runs_at_once
from tensorgate._native.frame_header cimport (
    ReplyHeader,
    RequestHeader,
    read_cancel_header,
    read_request_header,
    write_reply_header,
)
from tensorgate._native.id_table cimport id_add, id_find, id_table_free, id_table_init, id_take
from tensorgate._native.posix cimport (
    EFD_CLOEXEC,
    EFD_NONBLOCK,
    EPOLLIN,
    atomic_store,
    eventfd,
    eventfd_read,
    eventfd_write,
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
)
from tensorgate._native.predict cimport run_result_free, run_result_init
from tensorgate._native.session cimport Session, deadline_after
from tensorgate._native.status_codes cimport OK, RESOURCE_EXHAUSTED, UNAVAILABLE
from tensorgate._native.zmq_api cimport (
    ZMQ_DONTWAIT,
    ZMQ_LINGER,
    ZMQ_PULL,
    ZMQ_ROUTER,
    ZMQ_ROUTER_MANDATORY,
    ZMQ_SNDHWM,
    ZMQ_SNDMORE,
    message_of_copy,
    message_of_malloc,
    open_socket,
    set_option,
    socket_fd,
    zmq,
)


cdef enum:
    # Requests taken from the socket before the rest of the loop gets its turn.
    MAX_REQUESTS_PER_TURN = 64
    MAX_CANCELS_PER_TURN = 1024
    # Until a reply that ZeroMQ did not take, or memory that was not there, is tried again.
    RETRY_AFTER_US = 1000
    # What stopping grants a gateway that does not read.
    STOP_PATIENCE_US = 1000000
    # Replies handed to ZeroMQ may take that long to leave once the sockets are closed.
    LINGER_MS = 1000
    # A run on the loop's thread is a surprise after that; it is noticed at the sentinel's next look.
    SURPRISE_US = 5000
    SENTINEL_LOOKS_EVERY_US = 5000
    # Looks that find nothing new before the sentinel sleeps until there is another such run: a second.
    SENTINEL_PATIENCE = 200
    # How long after a surprise the servable's requests all go to the pool.
    SURPRISE_COUNTS_US = 10000000
    # Below this a copy costs less than a buffer that another thread frees.
    COPY_BELOW_BYTES = 128


# --- lists of runs ----------------------------------------------------------------------------------------------------

cdef inline void _push(RunList* runs, Run* run) noexcept nogil:
    run.job.next = NULL
    if runs.first is NULL:
        runs.first = &run.job
    else:
        runs.last.next = &run.job
    runs.last = &run.job


cdef inline Run* _pop(RunList* runs) noexcept nogil:
    cdef Job* job = runs.first
    if job is not NULL:
        runs.first = job.next
    return <Run*>job


cdef Run* _run_new() noexcept nogil:
    cdef Run* run = <Run*>calloc(1, sizeof(Run))
    if run is not NULL:
        run_result_init(&run.job.result)
        zmq.msg_init(&run.peer)
        zmq.msg_init(&run.payload)
    return run


cdef void _run_free(Run* run) noexcept nogil:
    if run is not NULL:
        zmq.msg_close(&run.peer)
        zmq.msg_close(&run.payload)
        run_result_free(&run.job.result)
        free(run)


# --- replies ----------------------------------------------------------------------------------------------------------

cdef bint _write_header(LoopState* state, const Run* run, zmq_msg_t* message) noexcept nogil:
    cdef ReplyHeader header
    memset(&header, 0, sizeof(ReplyHeader))
    header.epoch = state.epoch
    header.request_id = run.node.id
    header.code = <uint64_t>run.job.result.code
    header.message = run.job.result.message.data
    header.message_size = run.job.result.message.size
    header.queue_us = run.job.queue_us
    header.run_us = run.job.result.run_us
    state.reply_header.size = 0
    state.reply_header.failed = False
    write_reply_header(&state.reply_header, &header)
    return not state.reply_header.failed and message_of_copy(
        message, state.reply_header.data, state.reply_header.size)


cdef bint _send(LoopState* state, Run* run) noexcept nogil:
    """False: not now. True: the reply has gone, or never will; the run is freed."""
    cdef zmq_msg_t header
    if not _write_header(state, run, &header):
        return False
    state.data_may_have = True
    if zmq.msg_send(&run.peer, state.data, ZMQ_DONTWAIT | ZMQ_SNDMORE) < 0:
        zmq.msg_close(&header)
        if zmq.last_error() == EAGAIN or zmq.last_error() == EINTR:
            return False
        state.counters.unsent += 1
    # Once the first frame is taken, so are the others; should the peer go in between, ZeroMQ drops them all.
    elif (
        zmq.msg_send(&header, state.data, ZMQ_DONTWAIT | ZMQ_SNDMORE) < 0
        or zmq.msg_send(&run.payload, state.data, ZMQ_DONTWAIT) < 0
    ):
        zmq.msg_close(&header)
        state.counters.unsent += 1
    else:
        state.counters.completed += 1
    _run_free(run)
    return True


cdef void _set_error(Run* run, int code, const char* message) noexcept nogil:
    run.job.result.code = code
    run.job.result.message.size = 0
    put_bytes(&run.job.result.message, message, strlen(message))


cdef bint _take_response(Run* run) noexcept nogil:
    """Makes the response the payload; False: out of memory."""
    cdef ByteWriter* response = &run.job.result.response
    if response.size < COPY_BELOW_BYTES:
        return message_of_copy(&run.payload, response.data, response.size)
    if not message_of_malloc(&run.payload, response.data, response.size):
        return False
    writer_init(response)  # the memory is ZeroMQ's now
    return True


cdef void _reply(LoopState* state, Run* run) noexcept nogil:
    """Sends the result, which is final, now or as soon as ZeroMQ takes it."""
    zmq.msg_close(&run.payload)
    if run.job.result.code != OK:
        zmq.msg_init(&run.payload)
    elif not _take_response(run):
        zmq.msg_init(&run.payload)
        _set_error(run, RESOURCE_EXHAUSTED, "not enough memory for the response")
    if not _send(state, run):
        if state.num_unsent == 0:
            state.retry_us = monotonic_now_us() + RETRY_AFTER_US
        _push(&state.unsent, run)
        state.num_unsent += 1


cdef bint _same_peer(Run* run, Run* other) noexcept nogil:
    cdef size_t size = zmq.msg_size(&run.peer)
    return size == zmq.msg_size(&other.peer) and memcmp(
        zmq.msg_data(&run.peer), zmq.msg_data(&other.peer), size) == 0


cdef void _retry_unsent(LoopState* state) noexcept nogil:
    cdef RunList kept = state.unsent
    cdef Run* run
    cdef Run* refused = NULL
    cdef bint gives_up = 0 <= state.give_up_us <= state.loop.now_us
    state.unsent.first = NULL
    while True:
        run = _pop(&kept)
        if run is NULL:
            break
        # A gateway that takes no reply takes no other one either.
        if (refused is NULL or not _same_peer(run, refused)) and _send(state, run):
            state.num_unsent -= 1
        elif gives_up:
            state.num_unsent -= 1
            state.counters.unsent += 1
            _run_free(run)
        else:
            refused = run
            _push(&state.unsent, run)
    state.retry_us = monotonic_now_us() + RETRY_AFTER_US


# --- completion -------------------------------------------------------------------------------------------------------

cdef void _on_run_done(Job* job) noexcept nogil:
    """On an execution thread: one ring of the eventfd for a whole run of completions, none while the loop is awake."""
    cdef LoopState* state = <LoopState*>job.owner
    cdef bint ring
    pthread_mutex_lock(&state.done_mutex)
    _push(&state.done, <Run*>job)
    ring = state.is_asleep
    state.is_asleep = False
    pthread_mutex_unlock(&state.done_mutex)
    if ring:
        eventfd_write(state.done_watch.fd, 1)


cdef void _complete(LoopState* state, Run* run) noexcept nogil:
    cdef Servable* servable = run.servable
    id_take(&state.runs, run.node.id)
    servable.num_runs -= 1
    if run.surprised:
        servable.not_at_once_until_us = monotonic_now_us() + SURPRISE_COUNTS_US
    if servable.num_runs == 0 and servable.withdrawal is not NULL:
        _end_errand(state, servable.withdrawal)
    _reply(state, run)


cdef void _complete_done(LoopState* state) noexcept nogil:
    """Answers what the execution threads have done; from here on they need not ring."""
    cdef RunList done
    cdef Run* run
    pthread_mutex_lock(&state.done_mutex)
    done = state.done
    state.done.first = NULL
    state.is_asleep = False
    pthread_mutex_unlock(&state.done_mutex)
    while True:
        run = _pop(&done)
        if run is NULL:
            return
        _complete(state, run)


cdef bint _may_sleep(LoopState* state) noexcept nogil:
    """From True on, execution threads ring."""
    cdef bint nothing_done
    pthread_mutex_lock(&state.done_mutex)
    nothing_done = state.done.first is NULL
    state.is_asleep = nothing_done
    pthread_mutex_unlock(&state.done_mutex)
    return nothing_done


# --- runs on the loop's thread ----------------------------------------------------------------------------------------

cdef bint _run_at_once(LoopState* state, Run* run) noexcept nogil:
    """False: another thread has taken the loop over, and this one must leave it alone and end."""
    cdef bint wake, is_ours
    pthread_mutex_lock(&state.at_once_mutex)
    state.at_once = run
    state.at_once_since_us = run.job.enqueued_us
    state.num_at_once += 1
    wake = state.sentinel_sleeps
    state.sentinel_sleeps = False
    pthread_mutex_unlock(&state.at_once_mutex)
    if wake:
        pthread_cond_signal(&state.sentinel_wakes)
    execute(&run.job)
    pthread_mutex_lock(&state.at_once_mutex)
    is_ours = state.at_once is run
    if is_ours:
        state.at_once = NULL
    pthread_mutex_unlock(&state.at_once_mutex)
    if is_ours:
        _complete(state, run)
    else:
        _on_run_done(&run.job)
    return is_ours


cdef void _look_at_run(LoopState* state, int64_t now_us) noexcept nogil:
    """Has the loop taken over if its run takes too long; under the mutex, so that the run does not end meanwhile."""
    cdef Run* run = state.at_once
    if run is NULL or now_us - state.at_once_since_us < SURPRISE_US:
        return
    # The loop's thread is inside the run: what it owns may be touched.
    run.surprised = True
    run.servable.not_at_once_until_us = INT64_MAX
    if loop_replace_thread(&state.loop):
        state.at_once = NULL
        state.counters.surprises += 1


cdef void* _sentinel_main(void* argument) noexcept nogil:
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
            _look_at_run(state, monotonic_now_us())
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


cdef void _stop_sentinel(LoopState* state) noexcept nogil:
    pthread_mutex_lock(&state.at_once_mutex)
    state.sentinel_stops = True
    pthread_mutex_unlock(&state.at_once_mutex)
    pthread_cond_signal(&state.sentinel_wakes)
    pthread_join(state.sentinel, NULL)
    state.sentinel_stops = False


# --- requests ---------------------------------------------------------------------------------------------------------

cdef int _receive(LoopState* state, Run* run) noexcept nogil:
    """Reads [peer][header][payload] into run and state.header: the number of frames, or 0 when there is no message.

    All frames of a message are there when the first is. Frames from the fourth on are read and forgotten.
    """
    cdef zmq_msg_t* message = &run.peer
    cdef int num_frames = 0
    while True:
        if zmq.msg_recv(message, state.data, ZMQ_DONTWAIT) < 0:
            if zmq.last_error() == EINTR:
                continue
            return num_frames
        num_frames += 1
        if not zmq.msg_more(message):
            return num_frames
        message = &state.header if num_frames == 1 else &run.payload


cdef bint _start_run(LoopState* state, Run* run, const RequestHeader* header) noexcept nogil:
    """False: another thread has taken the loop over."""
    run.node.id = header.request_id
    run.servable = <Servable*>id_find(&state.servables, header.servable_handle)
    if run.servable is NULL or state.is_draining:
        if run.servable is NULL:
            _set_error(run, UNAVAILABLE, "the model version is no longer loaded here")
        else:
            _set_error(run, UNAVAILABLE, "the worker is stopping")
        _reply(state, run)
        return True
    run.job.line = &run.servable.line
    run.job.state = run.servable.state
    run.job.method = header.method
    run.job.payload = <const uint8_t*>zmq.msg_data(&run.payload)
    run.job.size = zmq.msg_size(&run.payload)
    run.job.enqueued_us = monotonic_now_us()
    run.job.deadline_us = deadline_after(run.job.enqueued_us, header.remaining_deadline_us)
    run.job.on_done = _on_run_done
    run.job.owner = state
    run.servable.num_runs += 1
    id_add(&state.runs, &run.node)
    if run.servable.not_at_once_until_us <= run.job.enqueued_us and runs_at_once(&run.job):
        return _run_at_once(state, run)
    pool_submit(&state.pool, &run.job)
    return True


cdef bint _take_requests(LoopState* state) noexcept nogil:
    """Until the socket says that it has no more, or others shall have their turn; data_may_have then tells which.

    False: another thread has taken the loop over.
    """
    cdef RequestHeader header
    cdef Run* run
    cdef int num_frames, _i
    for _i in range(MAX_REQUESTS_PER_TURN):
        if state.spare is NULL:
            state.spare = _run_new()
            if state.spare is NULL:
                return True  # what cannot be taken in stays in the socket
        run = state.spare
        num_frames = _receive(state, run)
        if num_frames == 0:
            state.data_may_have = False
            return True
        if num_frames != 3 or not read_request_header(
            <const uint8_t*>zmq.msg_data(&state.header), zmq.msg_size(&state.header), &header,
        ):
            state.counters.malformed += 1
        elif header.epoch != state.epoch:
            state.counters.foreign += 1
        elif id_find(&state.runs, header.request_id) is not NULL:
            state.counters.duplicates += 1
        else:
            state.spare = NULL
            if not _start_run(state, run, &header):
                return False
    return True


cdef bint _take_cancels(LoopState* state) noexcept nogil:
    """Whether the socket said that it has no more."""
    cdef uint64_t epoch, request_id
    cdef IdNode* node
    cdef Run* run
    cdef int _i
    for _i in range(MAX_CANCELS_PER_TURN):
        if zmq.msg_recv(&state.header, state.cancels, ZMQ_DONTWAIT) < 0:
            return zmq.last_error() != EINTR
        if not read_cancel_header(
            <const uint8_t*>zmq.msg_data(&state.header), zmq.msg_size(&state.header), &epoch, &request_id,
        ):
            state.counters.malformed += 1
        elif epoch != state.epoch:
            state.counters.foreign += 1
        else:
            node = id_find(&state.runs, request_id)
            if node is not NULL:
                run = _run_of(node)
                atomic_store(&run.job.cancelled, 1)
    return False


cdef inline Run* _run_of(IdNode* node) noexcept nogil:
    cdef Run* run = NULL
    return <Run*>(<char*>node - (<char*>&run.node - <char*>run))


# --- a turn of the loop -----------------------------------------------------------------------------------------------

cdef void _on_data(Watch* watch, uint32_t events) noexcept nogil:
    (<LoopState*>watch.owner).data_may_have = True


cdef void _on_cancels(Watch* watch, uint32_t events) noexcept nogil:
    (<LoopState*>watch.owner).cancels_may_have = True


cdef void _on_done(Watch* watch, uint32_t events) noexcept nogil:
    cdef uint64_t ignored
    eventfd_read(watch.fd, &ignored)  # the hook does the rest


cdef void _on_again(Timer* timer) noexcept nogil:
    pass  # the hook does the rest


cdef void _on_turn(Hook* hook) noexcept nogil:
    cdef LoopState* state = <LoopState*>hook.owner
    cdef int64_t again_us
    if state.num_unsent and state.retry_us <= state.loop.now_us:
        _retry_unsent(state)
    while True:
        _complete_done(state)
        if state.cancels_may_have:
            state.cancels_may_have = not _take_cancels(state)
        if state.data_may_have and not _take_requests(state):
            return
        _end_errands_if_idle(state)
        if state.data_may_have and state.spare is NULL:
            again_us = monotonic_now_us() + RETRY_AFTER_US
        elif state.data_may_have or state.cancels_may_have:
            again_us = state.loop.now_us
        elif state.num_unsent:
            again_us = state.retry_us
        else:
            again_us = -1
        if again_us < 0:
            timer_cancel(&state.loop, &state.again_timer)
        elif not timer_set(&state.loop, &state.again_timer, again_us):
            continue
        # Not asleep while there is more to do: the event loop's other work has its turn, and then this again.
        if again_us == state.loop.now_us or _may_sleep(state):
            return


# --- errands from other threads ---------------------------------------------------------------------------------------

cdef void _end_errand(LoopState* state, Errand* errand) noexcept nogil:
    """The errand is the waiting thread's from here on."""
    pthread_mutex_lock(&state.errand_mutex)
    errand.is_done = True
    pthread_cond_broadcast(&state.errand_done)
    pthread_mutex_unlock(&state.errand_mutex)


cdef void _end_errands_if_idle(LoopState* state) noexcept nogil:
    cdef Errand* errand
    if state.data_may_have or state.runs.num_nodes or state.num_unsent:
        return
    while state.waiting_for_idle is not NULL:
        errand = state.waiting_for_idle
        state.waiting_for_idle = errand.next
        _end_errand(state, errand)


cdef void _register(Task* task) noexcept nogil:
    cdef LoopState* state = <LoopState*>task.owner
    cdef Errand* errand = <Errand*>task
    id_add(&state.servables, &errand.servable.node)
    _end_errand(state, errand)


cdef void _withdraw(Task* task) noexcept nogil:
    cdef LoopState* state = <LoopState*>task.owner
    cdef Errand* errand = <Errand*>task
    errand.servable = <Servable*>id_take(&state.servables, errand.handle)
    if errand.servable is NULL or errand.servable.num_runs == 0:
        _end_errand(state, errand)
    else:
        errand.servable.withdrawal = errand


cdef void _drain(Task* task) noexcept nogil:
    cdef LoopState* state = <LoopState*>task.owner
    cdef Errand* errand = <Errand*>task
    state.is_draining = True
    # Ended by the hook: requests that lie in the socket are taken in and refused first.
    state.data_may_have = True
    errand.next = state.waiting_for_idle
    state.waiting_for_idle = errand


cdef void _cancel_all(Task* task) noexcept nogil:
    cdef LoopState* state = <LoopState*>task.owner
    cdef IdNode* node
    cdef size_t i
    for i in range(state.runs.num_buckets):
        node = state.runs.buckets[i]
        while node is not NULL:
            atomic_store(&_run_of(node).job.cancelled, 1)
            node = node.next
    state.give_up_us = monotonic_now_us() + STOP_PATIENCE_US
    _drain(task)


cdef void _wait_for(LoopState* state, Errand* errand) noexcept nogil:
    pthread_mutex_lock(&state.errand_mutex)
    while not errand.is_done:
        pthread_cond_wait(&state.errand_done, &state.errand_mutex)
    pthread_mutex_unlock(&state.errand_mutex)


# --- for Python -------------------------------------------------------------------------------------------------------

cdef enum Stage:
    NEW
    RUNNING
    STOPPING
    ENDED


cdef class DataLoop:
    cdef LoopState state
    cdef pthread_mutex_t _stage_mutex  # guards _stage, and the loop's tables unless its thread runs
    cdef Stage _stage
    cdef bint _made           # False: the arguments were refused before __cinit__ began
    cdef bint _has_loop
    cdef bint _has_header
    cdef object _context      # outlives the sockets
    cdef dict _sessions       # by handle; in use here, so open, for as long as they are registered
    cdef readonly int num_execution_threads

    def __cinit__(
        self, context, str data_endpoint not None, str cancel_endpoint not None, uint64_t epoch,
        int num_execution_threads, int send_high_water_mark=0,
    ):
        cdef LoopState* state = &self.state
        self._sessions = {}
        self._stage = ENDED
        pthread_mutex_init(&self._stage_mutex, NULL)
        pthread_mutex_init(&state.done_mutex, NULL)
        pthread_mutex_init(&state.at_once_mutex, NULL)
        pthread_cond_init(&state.sentinel_wakes, NULL)
        pthread_mutex_init(&state.errand_mutex, NULL)
        pthread_cond_init(&state.errand_done, NULL)
        state.done_watch.fd = -1
        self._made = True
        if num_execution_threads < 1:
            raise ValueError(f"num_execution_threads must be positive; was {num_execution_threads}")
        load_library()
        zmq.msg_init(&state.header)
        self._has_header = True
        writer_init(&state.reply_header)
        self.num_execution_threads = num_execution_threads
        self._context = context
        state.epoch = epoch
        state.give_up_us = -1
        if not (id_table_init(&state.servables) and id_table_init(&state.runs)):
            raise MemoryError
        if not loop_init(&state.loop):
            raise OSError("the data loop has no descriptors: too many open files?")
        self._has_loop = True
        state.data = self._open(ZMQ_ROUTER)
        state.cancels = self._open(ZMQ_PULL)
        if not (
            set_option(state.data, ZMQ_ROUTER_MANDATORY, 1)
            and set_option(state.data, ZMQ_SNDHWM, send_high_water_mark)
        ):
            raise OSError(zmq.last_error(), zmq.strerror(zmq.last_error()).decode())
        self._bind(state.data, data_endpoint)
        self._bind(state.cancels, cancel_endpoint)
        self._watch(&state.data_watch, socket_fd(state.data), _on_data)
        self._watch(&state.cancels_watch, socket_fd(state.cancels), _on_cancels)
        self._watch(&state.done_watch, eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC), _on_done)
        timer_init(&state.again_timer, _on_again, state)
        state.turn_hook.run = _on_turn
        state.turn_hook.owner = state
        loop_add_hook(&state.loop, &state.turn_hook)
        self._stage = NEW

    cdef void* _open(self, int kind) except NULL:
        cdef void* socket = open_socket(<void*><uintptr_t>self._context.underlying, kind)
        if socket is NULL:
            raise OSError(zmq.last_error(), zmq.strerror(zmq.last_error()).decode())
        return socket

    cdef int _bind(self, void* socket, str endpoint) except -1:
        encoded = endpoint.encode()
        if zmq.bind(socket, <const char*><bytes>encoded) != 0:
            raise OSError(zmq.last_error(), f"{endpoint}: {zmq.strerror(zmq.last_error()).decode()}")
        return 0

    cdef int _watch(self, Watch* watch, int fd, void (*on_ready)(Watch*, uint32_t) noexcept nogil) except -1:
        watch.fd = fd
        watch.on_ready = on_ready
        watch.owner = &self.state
        if fd < 0 or not loop_watch(&self.state.loop, watch, EPOLLIN):
            raise OSError("the data loop has no descriptors: too many open files?")
        return 0

    def __del__(self):
        cdef Session session
        if not self._made:
            return
        self.stop()
        for session in self._sessions.values():
            session.end_use()

    def __dealloc__(self):
        cdef IdNode* node
        cdef size_t i
        if not self._made:
            return
        self._close()
        if self.state.servables.buckets is not NULL:
            for i in range(self.state.servables.num_buckets):
                while self.state.servables.buckets[i] is not NULL:
                    node = self.state.servables.buckets[i]
                    self.state.servables.buckets[i] = node.next
                    free(node)
        id_table_free(&self.state.servables)
        id_table_free(&self.state.runs)
        _run_free(self.state.spare)
        writer_free(&self.state.reply_header)
        if self._has_header:
            zmq.msg_close(&self.state.header)
        pthread_cond_destroy(&self.state.errand_done)
        pthread_mutex_destroy(&self.state.errand_mutex)
        pthread_cond_destroy(&self.state.sentinel_wakes)
        pthread_mutex_destroy(&self.state.at_once_mutex)
        pthread_mutex_destroy(&self.state.done_mutex)
        pthread_mutex_destroy(&self._stage_mutex)

    cdef void _close(self) noexcept nogil:
        """Descriptors and sockets, once the threads have ended or have never been."""
        cdef LoopState* state = &self.state
        if self._has_loop:
            self._has_loop = False
            loop_free(&state.loop)
            # What was posted too late for the loop's thread has just been run.
            state.data_may_have = False
            _end_errands_if_idle(state)
        if state.done_watch.fd >= 0:
            close(state.done_watch.fd)
            state.done_watch.fd = -1
        if state.data is not NULL:
            set_option(state.data, ZMQ_LINGER, LINGER_MS)
            zmq.close(state.data)
            state.data = NULL
        if state.cancels is not NULL:
            zmq.close(state.cancels)
            state.cancels = NULL

    cdef void _do(self, Errand* errand, void (*run)(Task*) noexcept nogil) noexcept nogil:
        """Has it done on the loop's thread, or here when there is none, and waits for it."""
        errand.task.run = run
        errand.task.owner = &self.state
        errand.is_done = False
        pthread_mutex_lock(&self._stage_mutex)
        if self._stage == RUNNING or self._stage == STOPPING:
            loop_post(&self.state.loop, &errand.task)
        else:
            run(&errand.task)
            self.state.data_may_have = False
            _end_errands_if_idle(&self.state)
        pthread_mutex_unlock(&self._stage_mutex)
        _wait_for(&self.state, errand)

    def start(self):
        cdef bint is_new
        cdef const char* missing = NULL
        pthread_mutex_lock(&self._stage_mutex)
        is_new = self._stage == NEW
        if is_new:
            missing = self._start_threads()
        pthread_mutex_unlock(&self._stage_mutex)
        if not is_new:
            raise RuntimeError("a data loop is started once")
        if missing is not NULL:
            raise OSError(f"cannot start {missing.decode()}: too many threads?")

    cdef const char* _start_threads(self) noexcept nogil:
        """What could not be started, in words, or NULL; then nothing is left running."""
        cdef LoopState* state = &self.state
        if not pool_start(&state.pool, self.num_execution_threads):
            return "the execution threads"
        if pthread_create(&state.sentinel, NULL, _sentinel_main, state) != 0:
            pool_stop(&state.pool)
            return "the data loop's sentinel"
        # Frames may lie in the sockets whose edges are long gone.
        state.data_may_have = True
        state.cancels_may_have = True
        if not loop_start(&state.loop):
            _stop_sentinel(state)
            pool_stop(&state.pool)
            return "the data loop's thread"
        self._stage = RUNNING
        return NULL

    def drain(self):
        cdef Errand errand
        with nogil:
            self._do(&errand, _drain)

    def stop(self):
        cdef Errand errand
        cdef Stage was
        with nogil:
            pthread_mutex_lock(&self._stage_mutex)
            was = self._stage
            if was == RUNNING:
                self._stage = STOPPING
            elif was == NEW:
                self._stage = ENDED
                self._close()
            pthread_mutex_unlock(&self._stage_mutex)
            if was == RUNNING:
                self._do(&errand, _cancel_all)
                # Nothing runs any more: the loop's thread is not replaced while it is joined.
                _stop_sentinel(&self.state)
                loop_stop(&self.state.loop)
                loop_join(&self.state.loop)
                pool_stop(&self.state.pool)
                pthread_mutex_lock(&self._stage_mutex)
                self._stage = ENDED
                self._close()
                pthread_mutex_unlock(&self._stage_mutex)

    def register_servable(self, uint64_t handle, Session session not None):
        cdef Servable* servable
        cdef Errand errand
        if handle in self._sessions:
            raise ValueError(f"the handle {handle} is taken")
        servable = <Servable*>calloc(1, sizeof(Servable))
        if servable is NULL:
            raise MemoryError
        try:
            session.begin_use()
            self._sessions[handle] = session
        except BaseException:
            free(servable)
            raise
        servable.node.id = handle
        servable.state = &session.state
        errand.servable = servable
        with nogil:
            self._do(&errand, _register)

    def withdraw(self, uint64_t handle):
        cdef Session session
        cdef Errand errand
        errand.handle = handle
        with nogil:
            self._do(&errand, _withdraw)
        if errand.servable is NULL:
            return None
        free(errand.servable)
        session = self._sessions.pop(handle)
        session.end_use()
        return session

    @property
    def handles(self):
        return sorted(self._sessions)

    @property
    def in_flight(self):
        return self.state.runs.num_nodes + self.state.num_unsent

    @property
    def completed(self):
        return self.state.counters.completed

    @property
    def malformed(self):
        return self.state.counters.malformed

    @property
    def foreign(self):
        return self.state.counters.foreign

    @property
    def duplicates(self):
        return self.state.counters.duplicates

    @property
    def surprises(self):
        return self.state.counters.surprises

    @property
    def unsent(self):
        return self.state.counters.unsent
