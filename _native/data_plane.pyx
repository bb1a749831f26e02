"""Runs the gateway's native threads, and gives them what all of them have to know: routes and lines to workers.

Beside a request's line (route → dispatcher ‖ worker), and at the end of a version's. Edges in Python submit through a
completion_queue; native edges reach the threads themselves. Native threads never take the GIL.

Routes and lines go to the threads' mailboxes, and the giver waits, without the GIL, until each has acknowledged: so a
call that has returned holds for every later request, and what it replaced can be freed. A thread acknowledges between
two turns of its loop, so the wait is a turn's length.

Threads are ended in __del__, which runs before the cyclic garbage collector takes anything away from the object.
"""

import os
import threading

from cpython.buffer cimport PyBuffer_Release
from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset, strlen

from tensorgate._native.dispatcher cimport (
    dispatcher_add_line,
    dispatcher_close,
    dispatcher_free,
    dispatcher_init,
    dispatcher_remove_line,
)
from tensorgate._native.dispatcher_state cimport DispatchCounters, Line, LineOptions, dispatcher_find_line
from tensorgate._native.event_loop cimport (
    Task,
    loop_free,
    loop_init,
    loop_join,
    loop_post,
    loop_start,
    loop_stop,
    loop_turn,
)
from tensorgate._native.posix cimport (
    atomic_load,
    pthread_cond_destroy,
    pthread_cond_init,
    pthread_cond_signal,
    pthread_cond_wait,
    pthread_mutex_destroy,
    pthread_mutex_init,
    pthread_mutex_lock,
    pthread_mutex_unlock,
)
from tensorgate._native.reply_memory cimport ReplyMemory
from tensorgate._native.request_account cimport account_sample, read_unrouted, take_logged, take_records
from tensorgate._native.request_memory cimport RequestMemory
from tensorgate._native.request_queue cimport use_weights
from tensorgate._native.request_route cimport hand_waiting
from tensorgate._native.route_table cimport PublishedVersion, ReplicaSet, Routes
from tensorgate._native.zmq_api cimport zmq

from tensorgate._native.zmq_api import load_library


cdef enum:
    MAX_THREADS = 1024


# --- broadcasts, on the native threads --------------------------------------------------------------------------------


cdef void _obey(Task* task) noexcept nogil:
    cdef Order* order = <Order*>task.owner
    cdef Broadcast* broadcast = order.broadcast
    broadcast.run(order.thread, broadcast)
    pthread_mutex_lock(&broadcast.mutex)
    broadcast.num_left -= 1
    if broadcast.num_left == 0:
        pthread_cond_signal(&broadcast.done)
    # Its giver goes on, and the broadcast with it, once the mutex is free.
    pthread_mutex_unlock(&broadcast.mutex)


cdef void _use_routes(DataThread* thread, Broadcast* broadcast) noexcept nogil:
    thread.dispatcher.routes = broadcast.routes


cdef void _add_line(DataThread* thread, Broadcast* broadcast) noexcept nogil:
    if not dispatcher_add_line(&thread.dispatcher, broadcast.line):
        broadcast.failed = True


cdef void _remove_line(DataThread* thread, Broadcast* broadcast) noexcept nogil:
    dispatcher_remove_line(
        &thread.dispatcher, broadcast.number, <const uint8_t*>broadcast.cause, strlen(broadcast.cause))


cdef void _use_limits(DataThread* thread, Broadcast* broadcast) noexcept nogil:
    cdef Line* line = thread.dispatcher.lines
    while line is not NULL:
        use_weights(line)
        hand_waiting(line)
        line = line.next


cdef void _close_dispatcher(DataThread* thread, Broadcast* broadcast) noexcept nogil:
    dispatcher_close(&thread.dispatcher)


cdef void _do_nothing(DataThread* thread, Broadcast* broadcast) noexcept nogil:
    pass


# --- for Python -------------------------------------------------------------------------------------------------------


cdef void _release_all(HeldBuffers* buffers) noexcept:
    cdef HeldBuffer* held
    cdef HeldBuffer* following
    pthread_mutex_lock(&buffers.mutex)
    held = buffers.first
    buffers.first = NULL
    pthread_mutex_unlock(&buffers.mutex)
    while held is not NULL:
        following = held.next
        PyBuffer_Release(&held.view)
        free(held)
        held = following


cdef class DataPlane:
    def __cinit__(self, int num_threads=1, RequestMemory request_memory=None):
        cdef int i
        if not 1 <= num_threads <= MAX_THREADS:
            raise ValueError(f"num_threads must be from 1 to {MAX_THREADS}; was {num_threads}")
        load_library()
        self._lock = threading.Lock()
        self._versions = set()
        self._retired = []
        self._outstanding = {}
        self.request_memory = request_memory
        self._reply_memories = {}
        pthread_mutex_init(&self._held.mutex, NULL)
        self._made = True
        self.threads = <DataThread*>calloc(num_threads, sizeof(DataThread))
        self._orders = <Order*>calloc(num_threads, sizeof(Order))
        self._context = zmq.ctx_new()
        if self.threads is NULL or self._orders is NULL or self._context is NULL:
            raise MemoryError
        for i in range(num_threads):
            self.threads[i].index = i
            if not loop_init(&self.threads[i].loop):
                raise OSError("a native thread's event loop cannot be made: too many open files?")
            if not dispatcher_init(&self.threads[i].dispatcher, &self.threads[i].loop, self._context):
                loop_free(&self.threads[i].loop)
                raise MemoryError
            # Workers see all threads' requests in one space of numbers.
            self.threads[i].dispatcher.last_request_id = <uint64_t>i
            self.threads[i].dispatcher.request_id_step = <uint64_t>num_threads
            self.threads[i].dispatcher.index = <size_t>i
            if request_memory is not None:
                self.threads[i].dispatcher.arena = request_memory.arena
            self._orders[i].thread = &self.threads[i]
            self._orders[i].task.owner = &self._orders[i]
            self._orders[i].task.run = _obey
            self.num_threads += 1

    def __del__(self):
        self.close()

    def __dealloc__(self):
        if not self._made:
            return
        if not self.is_closed:  # half-built
            self._tear_down()
        free(self.threads)
        free(self._orders)
        pthread_mutex_destroy(&self._held.mutex)

    # --- the life cycle ---

    def start(self):
        cdef int i
        if self._is_started or self.is_closed:
            raise RuntimeError("a data plane is started once")
        for i in range(self.num_threads):
            if not loop_start(&self.threads[i].loop):
                self._is_started = i > 0
                self.close()
                raise OSError(f"cannot start native thread {i} of {self.num_threads}")
        self._is_started = True

    def close(self):
        cdef Broadcast broadcast
        if self.is_closed or self._lock is None:
            return
        with self._lock:
            if self.is_closed:
                return
            self.is_closed = True
            memset(&broadcast, 0, sizeof(Broadcast))
            broadcast.run = _close_dispatcher
            self._broadcast(&broadcast)
            self._tear_down()
            self._routes = None
            self._versions.clear()
            for number in list(self._outstanding):
                self._forget_counter(number)

    cdef void _tear_down(self):
        cdef int i
        with nogil:
            for i in range(self.num_threads):
                loop_stop(&self.threads[i].loop)
                loop_join(&self.threads[i].loop)
            for i in range(self.num_threads):
                # Runs what was posted too late, which finds a closed dispatcher.
                loop_free(&self.threads[i].loop)
                dispatcher_free(&self.threads[i].dispatcher)
            if self._context is not NULL:
                zmq.ctx_term(self._context)
                self._context = NULL
        # No message is left: neither is any buffer held.
        self._release_buffers()

    cdef void _post(self, DataThread* thread, Task* task):
        loop_post(&thread.loop, task)

    cdef int _broadcast(self, Broadcast* broadcast) except -1:
        """Has every thread run it, and waits for that; with the lock. Without threads that run: at once, here."""
        cdef int i
        broadcast.num_left = self.num_threads
        for i in range(self.num_threads):
            self._orders[i].broadcast = broadcast
        with nogil:
            pthread_mutex_init(&broadcast.mutex, NULL)
            pthread_cond_init(&broadcast.done, NULL)
            for i in range(self.num_threads):
                if self.threads[i].loop.is_running:
                    loop_post(&self.threads[i].loop, &self._orders[i].task)
                else:
                    _obey(&self._orders[i].task)
            pthread_mutex_lock(&broadcast.mutex)
            while broadcast.num_left:
                pthread_cond_wait(&broadcast.done, &broadcast.mutex)
            pthread_mutex_unlock(&broadcast.mutex)
            pthread_cond_destroy(&broadcast.done)
            pthread_mutex_destroy(&broadcast.mutex)
        return 0

    cdef int _barrier(self) except -1:
        cdef Broadcast broadcast
        memset(&broadcast, 0, sizeof(Broadcast))
        broadcast.run = _do_nothing
        return self._broadcast(&broadcast)

    cdef void _release_buffers(self):
        if self._held.first is not NULL:
            _release_all(&self._held)

    # --- routes ---

    def publish(self, Routes routes not None):
        cdef Broadcast broadcast
        cdef PublishedVersion version
        with self._lock:
            if self.is_closed:
                return
            for version in routes.versions:
                version.count_requests(<size_t>self.num_threads)
            self._versions.update(routes.versions)
            # Closed and without a pin: nobody can come to it any more, and after the broadcast nobody is on the way
            # out.
            drained = [version for version in self._versions if version.is_drained]
            memset(&broadcast, 0, sizeof(Broadcast))
            broadcast.run = _use_routes
            broadcast.routes = &routes.snapshot
            self._broadcast(&broadcast)
            self._routes = routes
            for version in drained:
                self._retire(version)

    def forget(self, PublishedVersion version not None):
        with self._lock:
            if self.is_closed or version not in self._versions:
                return
            if not version.is_drained:
                raise ValueError(f"{version.name} version {version.version} is still in use")
            self._barrier()
            self._retire(version)

    cdef int _retire(self, PublishedVersion version) except -1:
        self._versions.discard(version)
        stats = version.read_requests()
        if stats:
            self._retired.append((version.name, version.version, stats))
        return 0

    def set_replicas(self, PublishedVersion version not None, replicas):
        cdef ReplicaSet* former
        with self._lock:
            former = version.swap_replicas(replicas)
            if not self.is_closed:
                try:
                    self._barrier()
                except BaseException:
                    former = NULL  # rather lost than freed too early
                    raise
            free(former)

    def set_limits(self, PublishedVersion version not None, max_handed, max_queued, weight):
        cdef Broadcast broadcast
        with self._lock:
            version.limit_requests(max_handed, max_queued, weight)
            if not self.is_closed:
                memset(&broadcast, 0, sizeof(Broadcast))
                broadcast.run = _use_limits
                self._broadcast(&broadcast)

    @property
    def num_versions(self):
        return len(self._versions)

    # --- lines ---

    def add_line(
        self, uint64_t number, uint64_t epoch, str name not None, str data_endpoint not None,
        str cancel_endpoint not None, size_t credit, size_t max_queued, size_t max_queued_bytes,
        str stream_path not None="", ReplyMemory reply_memory=None, bytes public_key not None=b"",
        bytes secret_key not None=b"",
    ):
        cdef Broadcast broadcast
        cdef LineOptions options
        cdef int64_t* outstanding
        cdef bytes name_utf8 = name.encode()
        cdef bytes data_utf8 = data_endpoint.encode()
        cdef bytes cancel_utf8 = cancel_endpoint.encode()
        cdef bytes stream_utf8 = os.fsencode(stream_path)
        if credit < 1:
            raise ValueError("credit must be positive: nothing would ever be handed to the worker")
        with self._lock:
            if self.is_closed:
                return
            if number in self._outstanding:
                raise ValueError(f"there is a line {number} already")
            outstanding = <int64_t*>calloc(1, sizeof(int64_t))
            if outstanding is NULL:
                raise MemoryError
            self._outstanding[number] = <size_t>outstanding
            options.number = number
            options.epoch = epoch
            options.name = name_utf8
            options.data_endpoint = data_utf8
            options.cancel_endpoint = cancel_utf8
            options.stream_path = stream_utf8
            options.replies = NULL if reply_memory is None else reply_memory.arena
            options.public_key = public_key
            options.secret_key = secret_key
            options.credit = credit
            options.max_queued = max_queued
            options.max_queued_bytes = max_queued_bytes
            options.outstanding = outstanding
            memset(&broadcast, 0, sizeof(Broadcast))
            broadcast.run = _add_line
            broadcast.line = &options
            self._broadcast(&broadcast)
            if not broadcast.failed:
                if reply_memory is not None:
                    self._reply_memories[number] = reply_memory
                return
            self._remove(number, b"its sockets could not be opened")
        raise OSError(f"the sockets to {name} cannot be opened: {data_endpoint}, {cancel_endpoint}")

    def remove_line(self, uint64_t number, str cause not None):
        with self._lock:
            if not self.is_closed and number in self._outstanding:
                self._remove(number, cause.encode())

    def _remove(self, uint64_t number, bytes cause):
        cdef Broadcast broadcast
        memset(&broadcast, 0, sizeof(Broadcast))
        broadcast.run = _remove_line
        broadcast.number = number
        broadcast.cause = cause
        self._broadcast(&broadcast)
        self._forget_counter(number)
        reply_memory = self._reply_memories.pop(number, None)
        if reply_memory is not None:
            self._replies_full += reply_memory.num_full

    cdef void _forget_counter(self, uint64_t number):
        free(<void*><size_t>self._outstanding.pop(number))

    def line_load(self, uint64_t number):
        cdef Line* line
        cdef int i
        handed = queued = 0
        with self._lock:
            if not self.is_closed:
                for i in range(self.num_threads):
                    line = dispatcher_find_line(&self.threads[i].dispatcher, number)
                    if line is not NULL:
                        handed += line.num_handed
                        queued += line.num_queued
        return handed, queued

    @property
    def num_outstanding(self):
        total = 0
        with self._lock:
            for counter in self._outstanding.values():
                total += atomic_load(<int64_t*><size_t>counter)
        return total

    def counters(self):
        cdef DispatchCounters* each
        cdef DispatchCounters total
        cdef int i
        memset(&total, 0, sizeof(DispatchCounters))
        for i in range(self.num_threads):
            each = &self.threads[i].dispatcher.counters
            total.submitted += each.submitted
            total.succeeded += each.succeeded
            total.failed += each.failed
            total.cancelled += each.cancelled
            total.deadline_exceeded += each.deadline_exceeded
            total.refused += each.refused
            total.rerouted += each.rerouted
            total.late_replies += each.late_replies
            total.unknown_replies += each.unknown_replies
            total.foreign_replies += each.foreign_replies
        # Every thread buries a worker of its own; it died once.
        total.worker_deaths = self.threads[0].dispatcher.counters.worker_deaths
        return total

    def shared_memory(self):
        cdef dict found = {}
        with self._lock:
            if self.request_memory is not None:
                found["requests"] = (self.request_memory.size, self.request_memory.used, self.request_memory.num_full)
                found["replies"] = (
                    sum([each.size for each in self._reply_memories.values()]),
                    sum([each.held_bytes for each in self._reply_memories.values()]),
                    self._replies_full + sum([each.num_full for each in self._reply_memories.values()]),
                )
        return found

    # --- what requests there were ---

    def request_stats(self):
        cdef PublishedVersion version
        with self._lock:
            retired, self._retired = self._retired, []
            present = [(version.name, version.version, version.read_requests()) for version in self._versions]
        return present, retired

    def unrouted(self):
        cdef dict counts = {}
        cdef int i
        with self._lock:
            if not self.is_closed:
                for i in range(self.num_threads):
                    read_unrouted(self.threads[i].dispatcher.account, counts)
        return counts

    def sample_requests(self, double share, bint traces=False):
        cdef int i
        if self._is_started or self.is_closed:
            raise RuntimeError("what is sampled is settled before the start")
        for i in range(self.num_threads):
            if not account_sample(self.threads[i].dispatcher.account, share, traces):
                raise MemoryError

    def take_records(self):
        cdef list records = []
        cdef int i
        dropped = 0
        with self._lock:
            if not self.is_closed:
                for i in range(self.num_threads):
                    take_records(self.threads[i].dispatcher.account, records)
                    dropped += atomic_load(&self.threads[i].dispatcher.account.num_dropped)
        return records, dropped

    def take_logged(self):
        cdef list logged = []
        cdef int i
        dropped = 0
        with self._lock:
            if not self.is_closed:
                for i in range(self.num_threads):
                    take_logged(self.threads[i].dispatcher.account, logged)
                    dropped += self.threads[i].dispatcher.account.num_logged_dropped
        return logged, dropped

    # --- for tests ---

    @property
    def num_timers(self):
        cdef int i
        total = 0
        for i in range(self.num_threads):
            total += self.threads[i].loop.num_timers
        return total

    def turn(self, bint run_timers=True):
        cdef Line* line
        cdef int i
        if self._is_started or self.is_closed:
            raise RuntimeError("the threads turn by themselves")
        for i in range(self.num_threads):
            line = self.threads[i].dispatcher.lines
            while line is not NULL:  # as if their descriptors were ready
                line.may_have_replies = True
                line = line.next
            loop_turn(&self.threads[i].loop, run_timers)
