"""The account that a dispatcher keeps of its requests' ends: counters, sampled records, sampled requests to be logged.

Everything but the reading is for the thread of the dispatcher's loop.
"""

from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint8_t, uint64_t

from tensorgate._native.posix cimport pthread_mutex_t

cdef enum:
    MAX_RECORDED_NAME = 128   # bytes of a model's name that records have; the rest is cut off
    MAX_RECORDED_TRACEPARENT = 64
    NUM_UNROUTED = 128
    NUM_RECORDS = 2048        # a power of two


cdef struct RequestRecord:
    # One request that has ended, as the access log and traces have it.
    int64_t ended_us          # monotonic clock
    int64_t version
    uint64_t method
    uint64_t request_id
    int code
    bint is_native            # it came by the native gRPC edge
    bint is_sampled           # for the access log; else for the traces only
    uint64_t total_us
    uint64_t queue_us
    uint64_t run_us
    uint64_t batch_rows
    uint64_t padding_rows
    uint64_t request_bytes
    uint64_t reply_bytes
    size_t name_size
    uint8_t name[MAX_RECORDED_NAME]
    size_t traceparent_size
    uint8_t traceparent[MAX_RECORDED_TRACEPARENT]


cdef struct Unrouted:
    # Requests of the native edge that no version was found for.
    uint64_t count
    uint64_t method
    int code
    size_t name_size
    uint8_t name[MAX_RECORDED_NAME]


cdef struct LoggedRequest:
    # A request and its answer, whole, for the model's request log.
    LoggedRequest* next
    int64_t ended_us
    int64_t version
    uint64_t method
    size_t name_size
    size_t request_size
    size_t reply_size
    uint8_t* bytes            # the model's name, the request, the reply; owned


cdef struct RequestAccount:
    Unrouted unrouted[NUM_UNROUTED]  # the last one is for all that came too late for a place of its own
    int64_t num_unrouted      # atomic: grows once a place is filled
    uint64_t random
    # Records: a ring between the thread, which alone moves head, and one reader, which alone moves tail.
    RequestRecord* ring       # NULL: there are none
    int64_t head              # atomic
    int64_t tail              # atomic
    uint64_t sample_below     # of 64 random bits; 0: none
    bint records_traces       # requests whose traceparent says that they are sampled
    int64_t num_dropped       # atomic
    pthread_mutex_t mutex     # guards the rest
    LoggedRequest* first_logged
    LoggedRequest* last_logged
    size_t logged_bytes
    uint64_t num_logged_dropped


# A share of 64 random bits; 0 for 0, all of them for 1 or more.
cdef uint64_t share_of_randoms(double share) noexcept nogil
cdef inline uint64_t next_random(RequestAccount* account) noexcept nogil:
    # Marsaglia's xorshift: what is sampled needs to be even, not secret.
    account.random ^= account.random << 13
    account.random ^= account.random >> 7
    account.random ^= account.random << 17
    return account.random

# Zeroed memory. NULL: out of memory.
cdef RequestAccount* account_new(uint64_t seed) noexcept nogil
cdef void account_free(RequestAccount* account) noexcept nogil
# Before the thread starts. False: out of memory.
cdef bint account_sample(RequestAccount* account, double share, bint records_traces) noexcept nogil
# A request of the native edge that ended before it had a version.
cdef void account_unrouted(
    RequestAccount* account, uint64_t method, int code, const uint8_t* name, size_t name_size) noexcept nogil
# The place for a record, to be filled and pushed; NULL: there is none, and it counts as dropped.
cdef RequestRecord* record_place(RequestAccount* account) noexcept nogil
cdef void record_push(RequestAccount* account) noexcept nogil
# Takes the bytes over; frees them, and counts them as dropped, where too much is waiting or memory has run out.
cdef void account_log(
    RequestAccount* account, int64_t ended_us, int64_t version, uint64_t method, uint8_t* bytes, size_t name_size,
    size_t request_size, size_t reply_size) noexcept nogil

# For Python, one reader at a time; see data_plane.pyi.
cdef void read_unrouted(RequestAccount* account, dict counts)
cdef void take_records(RequestAccount* account, list records)
cdef void take_logged(RequestAccount* account, list logged)
