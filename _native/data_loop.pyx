"""The worker's data loop: request frames in, execution, reply frames out, all of it without the GIL.

Second half of a request's line (dispatcher ‖ loop_requests → loop_runs or execution_pool → predict → loop_replies →
back). One native thread owns it, with its sockets (ROUTER for requests and replies, PULL for cancels), the table of
servables and that of runs; control threads reach it by errands, execution threads by the list of runs that are done.

A request that is expected to take a few microseconds runs on the loop's thread, all others on the pool's.

Here are its servables and its life: what start opens, stop closes in reverse order. A turn of it is in loop_turn, the
sockets' opening and closing in loop_sockets.
"""

from tensorgate._native.zmq_api import load_library

from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint64_t, uintptr_t
from libc.stdlib cimport calloc, free

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
from tensorgate._native.event_loop cimport Task, loop_free, loop_init, loop_join, loop_post, loop_start, loop_stop
from tensorgate._native.execution_pool cimport pool_set_weight, pool_start, pool_stop
from tensorgate._native.id_table cimport IdNode, id_table_free, id_table_init
from tensorgate._native.loop_errands cimport (
    cancel_all_task,
    drain_task,
    end_errands_if_idle,
    register_task,
    wait_for_errand,
    withdraw_task,
)
from tensorgate._native.loop_batches cimport on_batch_done
from tensorgate._native.loop_links cimport links_close
from tensorgate._native.loop_replies cimport run_free
from tensorgate._native.loop_runs cimport sentinel_main, stop_sentinel
from tensorgate._native.loop_sockets cimport close_sockets, init_sockets, open_listener, open_sockets
from tensorgate._native.loop_state cimport Errand, LoopState, Servable
from tensorgate._native.loop_turn cimport turns_begin
from tensorgate._native.posix cimport (
    atomic_store,
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
from tensorgate._native.zmq_api cimport zmq


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
        init_sockets(state)
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
        open_sockets(
            state, <void*><uintptr_t>context.underlying, data_endpoint, cancel_endpoint, send_high_water_mark,
            secret_key)
        if stream_path:
            open_listener(state, stream_path)
        turns_begin(state)
        self._stage = NEW

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
        close_sockets(state)

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
        atomic_store(&self.state.is_batching, 1)
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
