"""Runs the gateway's native threads, and gives them what all of them have to know: routes and lines to workers.

Beside a request's line (route → dispatcher ‖ worker), and at the end of a version's. Edges in Python submit through a
completion_queue; native edges reach the threads themselves. Native threads never take the GIL.

Routes and lines go to the threads as broadcasts, and the giver waits, without the GIL, until each has acknowledged: so
a call that has returned holds for every later request, and what it replaced can be freed. A thread acknowledges between
two turns of its loop, so the wait is a turn's length.

Threads are ended in __del__, which runs before the cyclic garbage collector takes anything away from the object.
"""

import os
import threading

from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset

from tensorgate._native.broadcasts cimport (
    Broadcast,
    Order,
    add_line,
    broadcast_to,
    close_dispatcher,
    do_nothing,
    order_init,
    remove_line,
    use_limits,
    use_routes,
)
from tensorgate._native.dispatcher cimport dispatcher_free, dispatcher_init
from tensorgate._native.dispatcher_state cimport Line, LineOptions, dispatcher_find_line
from tensorgate._native.event_loop cimport loop_free, loop_init, loop_join, loop_start, loop_stop, loop_turn
from tensorgate._native.held_buffers cimport held_buffers_free, held_buffers_init, release_all
from tensorgate._native.posix cimport atomic_load
from tensorgate._native.reply_memory cimport ReplyMemory
from tensorgate._native.request_account cimport account_sample
from tensorgate._native.request_memory cimport RequestMemory
from tensorgate._native.route_table cimport PublishedVersion, ReplicaSet, Routes
from tensorgate._native.thread_counts cimport all_unrouted, sum_counters, take_all_logged, take_all_records
from tensorgate._native.zmq_api cimport zmq

from tensorgate._native.zmq_api import load_library


cdef enum:
    MAX_THREADS = 1024


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
        held_buffers_init(&self.held)
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
            order_init(&self._orders[i], &self.threads[i])
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
        held_buffers_free(&self.held)

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
            broadcast.run = close_dispatcher
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
        release_all(&self.held)

    cdef int _broadcast(self, Broadcast* broadcast) except -1:
        """With the lock."""
        with nogil:
            broadcast_to(broadcast, self._orders, self.num_threads)
        return 0

    cdef int _barrier(self) except -1:
        cdef Broadcast broadcast
        memset(&broadcast, 0, sizeof(Broadcast))
        broadcast.run = do_nothing
        return self._broadcast(&broadcast)

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
            broadcast.run = use_routes
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
                broadcast.run = use_limits
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
            broadcast.run = add_line
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
        broadcast.run = remove_line
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
        return sum_counters(self.threads, self.num_threads)

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
        with self._lock:
            return {} if self.is_closed else all_unrouted(self.threads, self.num_threads)

    def sample_requests(self, double share, bint traces=False):
        cdef int i
        if self._is_started or self.is_closed:
            raise RuntimeError("what is sampled is settled before the start")
        for i in range(self.num_threads):
            if not account_sample(self.threads[i].dispatcher.account, share, traces):
                raise MemoryError

    def take_records(self):
        with self._lock:
            return ([], 0) if self.is_closed else take_all_records(self.threads, self.num_threads)

    def take_logged(self):
        with self._lock:
            return ([], 0) if self.is_closed else take_all_logged(self.threads, self.num_threads)

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
