"""Execution threads: jobs in, completed jobs out; everything without the GIL."""

from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint8_t, uint64_t

from tensorgate._native.fair_share cimport FairShare, FairShares
from tensorgate._native.posix cimport pthread_cond_t, pthread_mutex_t, pthread_t
from tensorgate._native.predict cimport RunResult
from tensorgate._native.session cimport SessionState

# The numbers of gateway/dispatch/call.py's Method, which stand in request frames.
cdef enum:
    METHOD_PREDICT = 1
    METHOD_CLASSIFY = 2
    METHOD_REGRESS = 3
    METHOD_MULTI_INFERENCE = 4
    METHOD_SESSION_RUN = 5


cdef struct Job:
    # One request. Its memory is the submitter's, which leaves it alone, but for cancelled, until on_done.
    Job* next                # the pool's, and after on_done the submitter's
    JobLine* line
    SessionState* state      # kept open by the submitter
    void* python             # a PythonServable, kept by the submitter, that answers in its place; NULL: none
    uint64_t method
    const uint8_t* payload   # kept by the submitter
    size_t size
    int64_t enqueued_us      # monotonic clock
    int64_t deadline_us      # monotonic clock, -1 for none
    int64_t cancelled        # set to 1 by any thread, with atomic_store
    uint64_t queue_us        # from enqueued_us until it ran
    RunResult result
    bint is_only_read        # on_done is all there is to do
    # Called once, on an execution thread; the job, its line and its session are the submitter's again.
    void (*on_done)(Job* job) noexcept nogil
    void* owner


cdef struct JobLine:
    # The jobs of one servable; zeroed before the first, but for a weight of 1. The pool's mutex guards all of it.
    Job* first               # that wait
    Job* last
    int num_waiting
    int num_running
    FairShare share
    bint is_ready            # among the pool's ready lines
    JobLine* next_ready


cdef struct ExecutionPool:
    pthread_mutex_t mutex    # guards what follows, and the lines
    pthread_cond_t work
    JobLine* first_ready     # lines whose next job may run, in turn
    JobLine* last_ready
    FairShares shares
    int num_running          # jobs
    int num_idle             # threads that wait
    int num_called           # of them, those that were called and have not come yet
    int max_running          # jobs of one line at a time
    pthread_t* threads
    int num_threads
    int max_threads
    bint is_stopping


# Starts num_threads threads, at least one. False: out of memory or threads; nothing is to be stopped then.
cdef bint pool_start(ExecutionPool* pool, int num_threads) noexcept nogil
# Any one thread at a time, until pool_stop.
cdef void pool_submit(ExecutionPool* pool, Job* job) noexcept nogil
# The line's share of the threads beside others, at least 1; as pool_submit.
cdef void pool_set_weight(ExecutionPool* pool, JobLine* line, int64_t weight) noexcept nogil
# Runs what waits, then ends the threads; blocks until they have ended.
cdef void pool_stop(ExecutionPool* pool) noexcept nogil
# Runs the job in the calling thread, unless it was cancelled or its deadline has passed; does not call on_done.
cdef void execute(Job* job) noexcept nogil
# Whether the job is expected to take less than a hand-over to another thread costs.
cdef bint runs_at_once(const Job* job) noexcept nogil
