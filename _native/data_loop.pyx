"""The worker's data loop: request frames in, execution, reply frames out, all of it without the GIL.

Second half of a request's line (dispatcher ‖ loop_requests → loop_runs or execution_pool → predict → loop_replies →
back). One native thread owns it, with its sockets (ROUTER for requests and replies, PULL for cancels), the table of
servables and that of runs; control threads reach it by errands, execution threads by the list of runs that are done.

A request that is expected to take a few microseconds runs on the loop's thread, all others on the pool's.

Here are a turn of the loop and its life: what start opens, stop closes in reverse order.

Source: zmq_getsockopt(3) on ZMQ_FD; the modules named above.
"""

import os

from tensorgate._native.zmq_api import load_library

from libc.errno cimport errno
from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint32_t, uint64_t, uintptr_t
from libc.stdlib cimport calloc, free
from posix.unistd cimport close

from tensorgate._native.batch_counters cimport queues_of
from tensorgate._native.batch_scheduler cimport (
    batcher_free,
    batcher_set_weight,
    scheduler_init,
    scheduler_start,
    scheduler_stop,
)
from tensorgate._native.batch_state cimport Batcher
from tensorgate._native.batch_teach cimport teach
from tensorgate._native.batching_options cimport BatchingOptions, new_batcher
from tensorgate._native.byte_writer cimport writer_free, writer_init
from tensorgate._native.clocks cimport monotonic_us
from tensorgate._native.event_loop cimport (
    Hook,
    Task,
    Timer,
    Watch,
    loop_add_hook,
    loop_free,
    loop_init,
    loop_join,
    loop_post,
    loop_start,
    loop_stop,
    loop_watch,
    timer_cancel,
    timer_init,
    timer_set,
)
from tensorgate._native.execution_pool cimport pool_set_weight, pool_start, pool_stop
from tensorgate._native.frame_stream cimport listen_on_path
from tensorgate._native.id_table cimport IdNode, id_table_free, id_table_init
from tensorgate._native.loop_errands cimport (
    cancel_all_task,
    drain_task,
    end_errands_if_idle,
    register_task,
    wait_for_errand,
    withdraw_task,
)
from tensorgate._native.loop_batches cimport on_batch_done, run_ready_batches
from tensorgate._native.loop_links cimport links_close, links_have_unsent, links_listen, links_may_have
from tensorgate._native.loop_replies cimport retry_unsent, run_free
from tensorgate._native.loop_requests cimport take_cancels, take_link_requests, take_requests
from tensorgate._native.loop_runs cimport complete_done, may_sleep, sentinel_main, stop_sentinel
from tensorgate._native.loop_state cimport RETRY_AFTER_US, Errand, LoopState, Servable
from tensorgate._native.posix cimport (
    EFD_CLOEXEC,
    EFD_NONBLOCK,
    EPOLLIN,
    eventfd,
    eventfd_read,
    pthread_cond_destroy,
    pthread_cond_init,
    pthread_create,
    pthread_mutex_destroy,
    pthread_mutex_init,
    pthread_mutex_lock,
    pthread_mutex_t,
    pthread_mutex_unlock,
)
from tensorgate._native.python_servable cimport PythonServable
from tensorgate._native.reply_memory cimport SharedReplies
from tensorgate._native.request_memory cimport SharedRequests
from tensorgate._native.session cimport Session
from tensorgate._native.zmq_api cimport (
    ZMQ_LINGER,
    ZMQ_PULL,
    ZMQ_ROUTER,
    ZMQ_ROUTER_MANDATORY,
    ZMQ_SNDHWM,
    open_socket,
    set_option,
    socket_fd,
    use_curve_as_server,
    zmq,
)


cdef enum:
    # Replies handed to ZeroMQ may take that long to leave once the sockets are closed.
    LINGER_MS = 1000


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
        if state.is_batching and not run_ready_batches(state, has_more and state.spare is not NULL):
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
    cdef SharedRequests _requests
    cdef SharedReplies _replies
    cdef dict _servables      # by handle: Sessions, in use here and so open, and PythonServables
    cdef dict _entries        # addresses of Servables, by handle
    cdef readonly int num_execution_threads

    def __cinit__(
        self, context, str data_endpoint not None, str cancel_endpoint not None, uint64_t epoch,
        int num_execution_threads, int send_high_water_mark=0, str stream_path not None="",
        SharedRequests requests=None, SharedReplies replies=None, bytes secret_key not None=b"",
    ):
        cdef LoopState* state = &self.state
        self._servables = {}
        self._entries = {}
        self._stage = ENDED
        pthread_mutex_init(&self._stage_mutex, NULL)
        pthread_mutex_init(&state.done_mutex, NULL)
        pthread_mutex_init(&state.at_once_mutex, NULL)
        pthread_cond_init(&state.sentinel_wakes, NULL)
        pthread_mutex_init(&state.errand_mutex, NULL)
        pthread_cond_init(&state.errand_done, NULL)
        state.done_watch.fd = -1
        state.listener.fd = -1
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
        if requests is not None and replies is not None:
            self._requests = requests
            self._replies = replies
            state.requests = &requests.memory
            state.replies = &replies.pool
            replies.attach()
        if not scheduler_init(&state.scheduler, on_batch_done, state):
            raise MemoryError
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
        if secret_key and not (
            use_curve_as_server(state.data, secret_key) and use_curve_as_server(state.cancels, secret_key)
        ):
            raise ValueError("the key is none of CURVE, or libzmq has no CURVE")
        self._bind(state.data, data_endpoint)
        self._bind(state.cancels, cancel_endpoint)
        self._watch(&state.data_watch, socket_fd(state.data), _on_data)
        self._watch(&state.cancels_watch, socket_fd(state.cancels), _on_cancels)
        self._watch(&state.done_watch, eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC), _on_done)
        if stream_path:
            self._listen(stream_path)
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

    cdef int _listen(self, str path) except -1:
        cdef bytes encoded = os.fsencode(path)
        cdef int fd = listen_on_path(encoded)
        if fd < 0:
            raise OSError(errno, f"{path}: {os.strerror(errno)}")
        if not links_listen(&self.state, fd):
            raise OSError("the data loop has no descriptors: too many open files?")
        return 0

    cdef int _watch(self, Watch* watch, int fd, void (*on_ready)(Watch*, uint32_t) noexcept nogil) except -1:
        watch.fd = fd
        watch.on_ready = on_ready
        watch.owner = &self.state
        if fd < 0 or not loop_watch(&self.state.loop, watch, EPOLLIN):
            raise OSError("the data loop has no descriptors: too many open files?")
        return 0

    def __del__(self):
        if not self._made:
            return
        self.stop()
        for servable in self._servables.values():
            if isinstance(servable, Session):
                (<Session>servable).end_use()

    def __dealloc__(self):
        cdef IdNode* node
        cdef size_t i
        if not self._made:
            return
        self._close()
        scheduler_stop(&self.state.scheduler)
        if self.state.servables.buckets is not NULL:
            for i in range(self.state.servables.num_buckets):
                while self.state.servables.buckets[i] is not NULL:
                    node = self.state.servables.buckets[i]
                    self.state.servables.buckets[i] = node.next
                    if (<Servable*>node).batcher is not NULL:
                        batcher_free((<Servable*>node).batcher)
                    free(node)
        id_table_free(&self.state.servables)
        id_table_free(&self.state.runs)
        run_free(self.state.spare)
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
            links_close(state)
            loop_free(&state.loop)
            # What was posted too late for the loop's thread has just been run.
            state.data_may_have = False
            end_errands_if_idle(state)
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
            end_errands_if_idle(&self.state)
        pthread_mutex_unlock(&self._stage_mutex)
        wait_for_errand(&self.state, errand)

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
        if pthread_create(&state.sentinel, NULL, sentinel_main, state) != 0:
            pool_stop(&state.pool)
            return "the data loop's sentinel"
        # Frames may lie in the sockets whose edges are long gone.
        state.data_may_have = True
        state.cancels_may_have = True
        if not loop_start(&state.loop):
            stop_sentinel(state)
            pool_stop(&state.pool)
            return "the data loop's thread"
        self._stage = RUNNING
        return NULL

    def drain(self):
        cdef Errand errand
        with nogil:
            self._do(&errand, drain_task)

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
                self._do(&errand, cancel_all_task)
                # Nothing runs any more: the loop's thread is not replaced while it is joined.
                stop_sentinel(&self.state)
                loop_stop(&self.state.loop)
                loop_join(&self.state.loop)
                pool_stop(&self.state.pool)
                scheduler_stop(&self.state.scheduler)
                pthread_mutex_lock(&self._stage_mutex)
                self._stage = ENDED
                self._close()
                pthread_mutex_unlock(&self._stage_mutex)

    def register_servable(self, uint64_t handle, servable, BatchingOptions batching=None):
        cdef Servable* entry
        cdef Errand errand
        if not isinstance(servable, (Session, PythonServable)):
            raise TypeError(f"{type(servable).__name__} can run no requests")
        if handle in self._servables:
            raise ValueError(f"the handle {handle} is taken")
        entry = <Servable*>calloc(1, sizeof(Servable))
        if entry is NULL:
            raise MemoryError
        try:
            if isinstance(servable, Session):
                if batching is not None:
                    entry.batcher = self._new_batcher(servable, batching)
                    entry.batcher.not_at_once_until_us = &entry.not_at_once_until_us
                (<Session>servable).begin_use()
                entry.state = &(<Session>servable).state
            else:
                entry.python = <void*>servable
            self._servables[handle] = servable
            self._entries[handle] = <uintptr_t>entry
        except BaseException:
            if entry.batcher is not NULL:
                batcher_free(entry.batcher)
            free(entry)
            raise
        entry.node.id = handle
        entry.line.share.weight = 1
        errand.servable = entry
        with nogil:
            self._do(&errand, register_task)

    cdef Batcher* _new_batcher(self, Session servable, BatchingOptions options) except NULL:
        cdef Batcher* batcher = new_batcher(options, &self.state.scheduler, &servable.state)
        cdef bint started
        with nogil:
            pthread_mutex_lock(&self._stage_mutex)
            started = self._stage == ENDED or self._start_batching(options.num_batch_threads)
            pthread_mutex_unlock(&self._stage_mutex)
        if not started:
            batcher_free(batcher)
            raise OSError("cannot start the batch threads: too many threads?")
        return batcher

    cdef bint _start_batching(self, int num_threads) noexcept nogil:
        self.state.is_batching = True
        return scheduler_start(&self.state.scheduler, num_threads)

    def batch_queues(self, uint64_t handle):
        # Under the GIL all the while, as is what frees a batcher.
        cdef Servable* entry = <Servable*><uintptr_t>self._entries.get(handle, 0)
        return [] if entry is NULL or entry.batcher is NULL else queues_of(entry.batcher)

    def teach_batching(self, uint64_t handle, bytes request not None, int64_t run_us):
        cdef Servable* entry = <Servable*><uintptr_t>self._entries.get(handle, 0)
        return entry is not NULL and entry.batcher is not NULL and teach(entry.batcher, request, run_us)

    def set_weight(self, uint64_t handle, int64_t weight):
        cdef Servable* entry = <Servable*><uintptr_t>self._entries.get(handle, 0)
        if weight < 1:
            raise ValueError(f"weight must be positive; was {weight}")
        if entry is NULL:
            return False
        pool_set_weight(&self.state.pool, &entry.line, weight)
        if entry.batcher is not NULL:
            batcher_set_weight(entry.batcher, weight)
        return True

    def withdraw(self, uint64_t handle):
        cdef Errand errand
        errand.handle = handle
        with nogil:
            self._do(&errand, withdraw_task)
        if errand.servable is NULL:
            return None
        self._entries.pop(handle, None)
        if errand.servable.batcher is not NULL:
            batcher_free(errand.servable.batcher)
        free(errand.servable)
        servable = self._servables.pop(handle)
        if isinstance(servable, Session):
            (<Session>servable).end_use()
        return servable

    @property
    def handles(self):
        return sorted(self._servables)

    @property
    def in_flight(self):
        return self.state.runs.num_nodes + self.state.num_unsent

    @property
    def running(self):
        return self.state.pool.num_running

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
