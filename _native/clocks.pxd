"""What time it is for the native threads of both processes, and how much of it a thread has had.

Shared by both data planes; any thread. Source: clock_gettime(2).
"""

from libc.stdint cimport int64_t
from posix.time cimport CLOCK_MONOTONIC, CLOCK_THREAD_CPUTIME_ID, clock_gettime, timespec


# Longer deadlines mean this one, a year: then sums of times stay in range, TensorFlow's own, in nanoseconds, too.
cdef enum:
    LONGEST_DEADLINE_S = 366 * 24 * 3600


cdef inline int64_t monotonic_us() noexcept nogil:
    cdef timespec now
    clock_gettime(CLOCK_MONOTONIC, &now)
    return <int64_t>now.tv_sec * 1000000 + now.tv_nsec // 1000


cdef inline int64_t thread_cpu_us() noexcept nogil:
    """What the calling thread has had of a processor."""
    cdef timespec used
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &used)
    return <int64_t>used.tv_sec * 1000000 + used.tv_nsec // 1000


cdef inline int64_t deadline_after(int64_t now_us, int64_t remaining_us) noexcept nogil:
    """When that much time will have passed, on the monotonic clock; -1, which means never, for a negative time."""
    if remaining_us < 0:
        return -1
    return now_us + min(remaining_us, LONGEST_DEADLINE_S * <int64_t>1000000)
