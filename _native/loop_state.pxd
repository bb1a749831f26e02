"""What the worker's data loop consists of; shared by the loop_ modules. Its thread's, but for what says otherwise."""

from libc.stdint cimport int64_t, uint64_t

from tensorgate._native.batch_state cimport Batcher, BatchScheduler
from tensorgate._native.byte_writer cimport ByteWriter
from tensorgate._native.event_loop cimport EventLoop, Hook, Task, Timer, Watch
from tensorgate._native.execution_pool cimport ExecutionPool, Job, JobLine
from tensorgate._native.frame_stream cimport FrameStream
from tensorgate._native.id_table cimport IdNode, IdTable
from tensorgate._native.posix cimport pthread_cond_t, pthread_mutex_t, pthread_t
from tensorgate._native.reply_memory cimport ReplyPool
from tensorgate._native.session cimport SessionState
from tensorgate._native.shared_memory cimport SharedMemory
from tensorgate._native.zmq_api cimport zmq_msg_t

cdef enum:
    # Until a reply that ZeroMQ did not take, or memory that was not there, is tried again.
    RETRY_AFTER_US = 1000


cdef struct Servable:
    # A loaded version under the handle that the gateway gave it.
    IdNode node              # first: found by handle
    JobLine line
    SessionState* state      # kept open by the DataLoop object
    void* python             # a PythonServable instead, kept by the DataLoop object, or NULL
    Batcher* batcher         # owned; NULL: its requests are not merged
    int64_t num_runs         # of its requests that are in the table of runs
    Errand* withdrawal       # waits for the last of them
    int64_t not_at_once_until_us  # atomic: since a run surprised the loop's thread; monotonic clock


cdef struct Run:
    # One request, from its frames to its reply's.
    Job job                  # first: what the pool hands back
    IdNode node              # found by request id
    Servable* servable       # NULL: there is none of that handle
    Link* link               # where it came from; NULL: the ROUTER
    zmq_msg_t peer           # the gateway's routing id there
    zmq_msg_t payload        # the request; once it has run, the response
    bint surprised           # it ran at once, and too long


cdef struct Link:
    # A gateway that is connected directly.
    FrameStream stream       # closed once the gateway has gone
    Link* next
    uint64_t num_runs        # taken in and not answered


cdef struct RunList:
    # Linked by job.next.
    Job* first
    Job* last


cdef struct Errand:
    # Something another thread wants done on the loop's thread, and waits for. On the waiting thread's stack.
    Task task
    Errand* next             # among those that wait for the loop to be idle
    uint64_t handle
    Servable* servable       # to be added, or that was found
    bint is_done             # under errand_mutex


cdef struct LoopCounters:
    # Written by the loop's thread, read by any: a value may be a moment old.
    uint64_t completed       # requests answered, with whatever code
    uint64_t malformed       # what was no request or no cancel
    uint64_t foreign         # for another incarnation of the worker
    uint64_t duplicates      # of a request that is in flight
    uint64_t unsent          # replies whose gateway had gone
    uint64_t surprises       # runs at once that took so long that another thread took the loop over


cdef struct LoopState:
    EventLoop loop
    ExecutionPool pool
    uint64_t epoch
    void* data               # ROUTER
    void* cancels            # PULL
    Watch data_watch
    Watch cancels_watch
    Watch done_watch
    Hook turn_hook
    Timer again_timer        # due: there is more to do, though no descriptor will say so
    Watch listener           # fd -1: nobody connects directly
    Link* links
    SharedMemory* requests   # where the gateways on links put large payloads; NULL: they send them
    ReplyPool* replies       # where theirs of large ones go; NULL: they are sent. Both are the DataLoop object's
    bint data_may_have       # the socket has not said EAGAIN since its descriptor or a send last woke it
    bint cancels_may_have
    IdTable servables
    IdTable runs             # taken in and not completed
    Run* spare               # the next request's, allocated ahead
    zmq_msg_t header         # the frame that is being read
    ByteWriter reply_header
    RunList unsent           # replies that ZeroMQ does not take yet
    uint64_t num_unsent
    int64_t retry_us         # when they are tried again
    BatchScheduler scheduler  # without threads until a servable is batched
    int64_t is_batching      # atomic: some servable is, or was
    bint holds_replies       # they are queued on the links, to be sent together
    bint is_draining         # new requests are refused
    int64_t give_up_us       # replies that ZeroMQ does not take by then are dropped; -1: never
    Errand* waiting_for_idle
    pthread_mutex_t done_mutex  # guards done and is_asleep
    RunList done             # have run, on execution threads
    bint is_asleep           # the loop waits, or is about to: who adds to done rings
    pthread_mutex_t at_once_mutex  # guards what follows, up to the errands'
    pthread_cond_t sentinel_wakes
    Run* at_once             # what the loop's thread runs just now, or NULL
    int64_t at_once_since_us
    uint64_t num_at_once
    bint sentinel_sleeps
    bint sentinel_stops
    pthread_t sentinel
    pthread_mutex_t errand_mutex  # guards the errands' is_done
    pthread_cond_t errand_done
    LoopCounters counters


cdef inline void push_run(RunList* runs, Run* run) noexcept nogil:
    run.job.next = NULL
    if runs.first is NULL:
        runs.first = &run.job
    else:
        runs.last.next = &run.job
    runs.last = &run.job


cdef inline Run* pop_run(RunList* runs) noexcept nogil:
    cdef Job* job = runs.first
    if job is not NULL:
        runs.first = job.next
    return <Run*>job


cdef inline Run* run_of(IdNode* node) noexcept nogil:
    cdef Run* run = NULL
    return <Run*>(<char*>node - (<char*>&run.node - <char*>run))
