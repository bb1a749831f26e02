"""Counts a version's requests in buckets that were made beforehand.

At the end of a request's line in the gateway: dispatcher → request_account → here; read by the metrics pages.

Source: tensorflow/core/lib/monitoring/sampler.cc (Buckets::Exponential) and histogram.cc (a value that equals a limit
is above it).
"""

from libc.math cimport ceil
from libc.stddef cimport size_t
from libc.stdint cimport uint64_t
from libc.stdlib cimport free
from libc.string cimport memset

from tensorgate._native.posix cimport load_pointer


cdef uint64_t[NUM_LATENCY_BUCKETS - 1] latency_limits
cdef uint64_t[NUM_ROW_BUCKETS - 1] row_limits


cdef tuple _exponential(double first, double growth, int count, uint64_t* whole):
    """Limits, and the least whole numbers that are not below them."""
    cdef double limit = first
    cdef int i
    limits = []
    for i in range(count):
        limits.append(limit)
        whole[i] = <uint64_t>ceil(limit)
        limit *= growth
    return tuple(limits)


LATENCY_LIMITS_US = _exponential(10, 1.8, NUM_LATENCY_BUCKETS - 1, latency_limits)
ROW_LIMITS = _exponential(1, 2, NUM_ROW_BUCKETS - 1, row_limits)
OTHER_SIGNATURES = "other"


cdef inline int _bucket_of(const uint64_t* limits, int num_limits, uint64_t value) noexcept nogil:
    """How many limits are not above the value."""
    cdef int low = 0
    cdef int high = num_limits
    cdef int middle
    while low < high:
        middle = (low + high) // 2
        if value < limits[middle]:
            high = middle
        else:
            low = middle + 1
    return low


cdef inline void _count(LatencyHistogram* histogram, uint64_t value_us) noexcept nogil:
    histogram.buckets[_bucket_of(latency_limits, NUM_LATENCY_BUCKETS - 1, value_us)] += 1
    histogram.sum_us += value_us


cdef void count_success(
        MethodStats* stats, uint64_t total_us, uint64_t queue_us, uint64_t run_us, uint64_t batch_rows,
        uint64_t padding_rows, uint64_t request_bytes, uint64_t reply_bytes) noexcept nogil:
    stats.by_code[0] += 1
    _count(&stats.total, total_us)
    _count(&stats.queue, queue_us)
    _count(&stats.run, run_us)
    if batch_rows:
        stats.row_buckets[_bucket_of(row_limits, NUM_ROW_BUCKETS - 1, batch_rows)] += 1
        stats.sum_rows += batch_rows
        stats.sum_padding_rows += padding_rows
    stats.request_bytes += request_bytes
    stats.reply_bytes += reply_bytes


# --- for Python -------------------------------------------------------------------------------------------------------


cdef void free_stats(VersionStats* threads, size_t num_threads) noexcept:
    cdef size_t thread, signature
    cdef int entrypoint, method
    for thread in range(num_threads):
        for signature in range(NUM_SIGNATURES):
            for entrypoint in range(NUM_ENTRYPOINTS):
                for method in range(NUM_METHODS):
                    free(threads[thread].methods[signature][entrypoint][method])
    free(threads)


cdef tuple _histogram(const LatencyHistogram* histogram):
    return [histogram.buckets[i] for i in range(NUM_LATENCY_BUCKETS)], histogram.sum_us


cdef bint _add_up(
        VersionStats* threads, size_t num_threads, size_t signature, int entrypoint, int method, MethodStats* total):
    """False: no thread had such a request."""
    cdef const uint64_t* numbers
    cdef size_t thread, i
    cdef bint is_any = False
    memset(total, 0, sizeof(MethodStats))
    for thread in range(num_threads):
        numbers = <const uint64_t*>load_pointer(&threads[thread].methods[signature][entrypoint][method])
        if numbers is not NULL:
            is_any = True
            # There is nothing but numbers in it.
            for i in range(sizeof(MethodStats) // sizeof(uint64_t)):
                (<uint64_t*>total)[i] += numbers[i]
    return is_any


cdef list read_stats(VersionStats* threads, size_t num_threads, tuple signatures):
    cdef MethodStats total
    cdef size_t signature
    cdef int entrypoint, method
    names = (OTHER_SIGNATURES, *signatures)
    found = []
    for signature in range(<size_t>len(names)):
        for entrypoint in range(NUM_ENTRYPOINTS):
            for method in range(NUM_METHODS):
                if _add_up(threads, num_threads, signature, entrypoint, method, &total):
                    found.append((
                        names[signature], entrypoint, method, [total.by_code[i] for i in range(NUM_CODES)],
                        _histogram(&total.total), _histogram(&total.queue), _histogram(&total.run),
                        ([total.row_buckets[i] for i in range(NUM_ROW_BUCKETS)], total.sum_rows),
                        total.sum_padding_rows, total.request_bytes, total.reply_bytes,
                    ))
    return found
