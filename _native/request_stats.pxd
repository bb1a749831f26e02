"""What is counted of a version's requests: by signature, method and end, and how long they took, by native threads.

Each thread has a copy of its own of every version's numbers, so that counting takes no lock; whoever reads adds them up
and may see a value that is a moment old.
"""

from libc.stddef cimport size_t
from libc.stdint cimport uint64_t
from libc.stdlib cimport calloc

from tensorgate._native.posix cimport swap_pointer

cdef enum:
    NUM_SIGNATURES = 32        # in place 0 all that have none of their own; see VersionState.signatures
    NUM_METHODS = 6            # dispatch.call.Method, and 0 for what is none
    NUM_CODES = 17             # canonical status codes
    NUM_LATENCY_BUCKETS = 34   # TensorFlow Serving's: 10 µs × 1.8^i, i < 33, and what is above
    NUM_ROW_BUCKETS = 15       # likewise: 2^i rows, i < 14, and what is above
    NUM_ENTRYPOINTS = 2        # Python's edges, the native gRPC edge


cdef struct LatencyHistogram:
    uint64_t buckets[NUM_LATENCY_BUCKETS]  # each without those below it
    uint64_t sum_us


cdef struct MethodStats:
    uint64_t by_code[NUM_CODES]
    LatencyHistogram total     # in the gateway and the worker, of requests that succeeded; as are all that follow
    LatencyHistogram queue     # in the worker
    LatencyHistogram run
    uint64_t row_buckets[NUM_ROW_BUCKETS]  # of requests that ran in a batch
    uint64_t sum_rows
    uint64_t sum_padding_rows
    uint64_t request_bytes
    uint64_t reply_bytes


cdef struct VersionStats:
    # Each made by its thread with the first such request, and never replaced; NULL: there was none.
    MethodStats* methods[NUM_SIGNATURES][NUM_ENTRYPOINTS][NUM_METHODS]


# The place of a request's numbers, for the thread that writes them. NULL: out of memory.
cdef inline MethodStats* stats_place(
        VersionStats* stats, size_t signature, size_t entrypoint, uint64_t method) noexcept nogil:
    cdef MethodStats** place = &stats.methods[signature][entrypoint][method if method < NUM_METHODS else 0]
    if place[0] is NULL:
        # Whoever reads it finds it zeroed.
        swap_pointer(place, calloc(1, sizeof(MethodStats)))
    return place[0]
cdef void free_stats(VersionStats* threads, size_t num_threads) noexcept
# The numbers of a request that has succeeded.
cdef void count_success(
    MethodStats* stats, uint64_t total_us, uint64_t queue_us, uint64_t run_us, uint64_t batch_rows,
    uint64_t padding_rows, uint64_t request_bytes, uint64_t reply_bytes) noexcept nogil
# Those of num_threads copies added up, for Python: of each (signature, entrypoint, method) that had a request, see
# data_plane.pyi. signatures: the names of the places from 1 on.
cdef list read_stats(VersionStats* threads, size_t num_threads, tuple signatures)
