"""What a native thread's dispatcher consists of: requests, the lines to workers, and what waits on them.

Everything here is for the thread of the dispatcher's loop. A request ends exactly once for its submitter (on_done, or
dispatcher_cancel) and, apart from that, once for its version: the pin ends with the worker's final reply or its death,
or at once if no worker ever got it.
"""

from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint8_t, uint64_t

from tensorgate._native.byte_writer cimport ByteWriter
from tensorgate._native.event_loop cimport EventLoop, Hook, Timer, Watch, timer_set
from tensorgate._native.frame_stream cimport FrameStream
from tensorgate._native.posix cimport eventfd_write
from tensorgate._native.reply_memory cimport ReplyArena
from tensorgate._native.request_account cimport RequestAccount
from tensorgate._native.request_memory cimport RequestArena, RequestBlock
from tensorgate._native.route_table cimport RouteSnapshot, VersionState
from tensorgate._native.zmq_api cimport zmq_msg_t

cdef struct Dispatcher
cdef struct Line

cdef enum:
    MAX_TRACEPARENT = 64

cdef enum RequestStage:
    STAGE_NEW = 0      # not handed to anybody
    STAGE_QUEUED = 1   # in the gateway's queue for a worker: it can still be taken back
    STAGE_HANDED = 2   # sent to the worker: the version stays pinned until its reply or its death
    STAGE_ENDED = 3    # its pin has ended


cdef struct Outcome:
    # Valid during on_done only; payload may be taken over with zmq.msg_move.
    int code                 # canonical status code
    const uint8_t* message   # UTF-8, empty when the code is OK
    size_t message_size
    zmq_msg_t* payload       # the finished response message when the code is OK, else NULL
    bint is_shared           # the worker may still write to the payload: it is to be copied before it is read
    uint64_t queue_us        # in the worker
    uint64_t run_us
    uint64_t batch_rows
    uint64_t padding_rows


cdef struct Request:
    # Set by the submitter, between request_new and dispatcher_submit.
    VersionState* version    # pinned; submitting hands the pin over
    uint64_t method          # dispatch.call.Method
    zmq_msg_t payload        # the serialized request; owned by the request
    size_t payload_size
    RequestBlock* block      # of shared memory, which is the payload's content; NULL: that is elsewhere
    int64_t priority         # larger leaves the queue earlier
    bint sampled
    bint is_native           # it came by the native gRPC edge
    size_t signature         # where it is counted, see signature_place
    uint8_t traceparent[MAX_TRACEPARENT]
    size_t traceparent_size
    int64_t deadline_us      # monotonic clock, -1: none
    # Called once unless the request is cancelled first; the request is not the submitter's any more. May submit and
    # cancel other requests.
    void (*on_done)(Request* request, const Outcome* outcome) noexcept nogil
    void* owner              # the submitter's
    # The dispatcher's own.
    Dispatcher* dispatcher
    uint64_t request_id      # never reused
    RequestStage stage
    bint is_settled          # nobody waits for the outcome
    Line* line
    VersionLine* version_line  # the line's, of the request's version
    Request* previous        # in the line's queue or among those handed to its worker
    Request* next
    Request* next_by_id      # in the table of handed requests
    Timer timer
    int64_t submitted_us     # monotonic clock
    uint8_t* logged          # the model's name and the request, for the request log; NULL: it is not logged


cdef struct RequestList:
    Request* first
    Request* last


cdef struct Lane:
    # The requests of one priority.
    int64_t priority
    RequestList requests
    Lane* next               # a smaller priority


cdef struct VersionLine:
    # What one version has at one worker, for as long as it has anything there. Each version has a credit of its own, so
    # that a slow one keeps no other one from the worker.
    VersionLine* next
    VersionState* version
    int64_t weight           # as it was when the version line was made
    size_t num_handed
    Lane* lanes              # what waits, largest priority first
    size_t num_queued


cdef struct Line:
    # One incarnation of one worker: what it was handed, and what waits for it.
    Dispatcher* dispatcher
    Line* next
    uint64_t number          # the incarnation; never reused
    uint64_t epoch           # of the frames
    char* name               # such as worker-0
    FrameStream stream       # to a worker of this host that listens for it; closed where there is none
    void* data               # DEALER, where there is no stream
    ReplyArena* replies      # where the worker puts large ones, held by the line; NULL: nowhere
    void* cancels            # PUSH
    Watch watch              # of data's descriptor; fd -1 where there is none
    size_t credit            # requests of one version that it is handed at most
    size_t max_handed        # requests of all versions
    size_t num_handed
    RequestList handed
    VersionLine* versions    # the one whose turn it is comes first
    int64_t heaviest         # the largest weight of these versions
    size_t num_queued
    size_t queued_bytes
    size_t max_queued
    size_t max_queued_bytes
    int64_t own_outstanding
    int64_t* outstanding     # atomic: handed and waiting, of all threads' lines to this worker
    bint may_have_replies    # its socket is to be drained this turn


cdef struct LineOptions:
    # Copied where they are kept.
    uint64_t number
    uint64_t epoch
    const char* name
    const char* data_endpoint
    const char* cancel_endpoint
    const char* stream_path      # empty: requests go by ZeroMQ
    ReplyArena* replies          # NULL: it shares no memory with us
    const char* public_key       # of CURVE, on both sides; empty: in the clear
    const char* secret_key
    size_t credit
    size_t max_queued
    size_t max_queued_bytes
    int64_t* outstanding     # shared with other dispatchers' lines to the worker, and outlives them; NULL: not shared


cdef struct DispatchCounters:
    # Written by the loop's thread, read by any: a value may be a moment old.
    uint64_t submitted
    uint64_t succeeded
    uint64_t failed              # errors from the worker, or for want of one
    uint64_t cancelled
    uint64_t deadline_exceeded
    uint64_t refused             # the queue was full
    uint64_t rerouted            # moved from a dead worker's queue to another worker
    uint64_t late_replies        # the submitter had its outcome already: cancel or deadline
    uint64_t unknown_replies     # no such request
    uint64_t foreign_replies     # of another epoch, or no reply at all
    uint64_t worker_deaths


cdef struct Dispatcher:
    EventLoop* loop
    void* context                # ZeroMQ's
    size_t index                 # of its thread, among those that count a version's requests
    RequestAccount* account
    RequestArena* arena          # the plane's, for large requests; NULL: none
    const RouteSnapshot* routes  # NULL before the first
    Line* lines
    Hook drain_hook
    Timer drain_timer            # set while a socket is to be drained that the hook has been past
    uint64_t last_request_id
    uint64_t request_id_step     # dispatchers with the same workers take turns with the numbers
    uint64_t next_choice         # where the search for the worker with the fewest outstanding begins
    ByteWriter header            # of the frame being written
    Request** by_id              # hash table of handed requests
    size_t num_buckets           # a power of two
    size_t num_handed
    bint is_closed
    DispatchCounters counters


cdef inline Line* dispatcher_find_line(Dispatcher* dispatcher, uint64_t number) noexcept nogil:
    cdef inline Line* line = dispatcher.lines
    while line is not NULL and line.number != number:
        line = line.next
    return line


cdef inline void expect_replies(Line* line) noexcept nogil:
    """Has the socket drained: in this turn's hook, or in the next one's if that has run already."""
    cdef Dispatcher* dispatcher = line.dispatcher
    line.may_have_replies = True
    if dispatcher.drain_timer.index < 0 and not timer_set(dispatcher.loop, &dispatcher.drain_timer, 0):
        eventfd_write(dispatcher.loop.wake_fd, 1)
