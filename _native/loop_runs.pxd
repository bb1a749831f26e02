"""Runs of the data loop, from their start to their reply."""

from libc.stdint cimport int64_t

from tensorgate._native.execution_pool cimport Job
from tensorgate._native.loop_state cimport LoopState, Run

# On an execution thread: hands the run back to the loop's, and rings if that one sleeps.
cdef void on_run_done(Job* job) noexcept nogil
# The same of several, linked by next; on any thread.
cdef void push_done(LoopState* state, Job* first, Job* last) noexcept nogil
# The run has ended: answers it. For the loop's thread.
cdef void complete(LoopState* state, Run* run) noexcept nogil
# Answers what the execution threads have done; from here on they need not ring.
cdef void complete_done(LoopState* state) noexcept nogil
# Whether there is nothing more to answer; from True on, execution threads ring.
cdef bint may_sleep(LoopState* state) noexcept nogil
# Runs it on the loop's thread and answers it. False: another thread has taken the loop over, and this one must leave it
# alone and end.
cdef bint run_at_once(LoopState* state, Run* run) noexcept nogil
# Around whatever runs on the loop's thread since then: to the sentinel it is this run. False: another thread has taken
# the loop over.
cdef void begin_at_once(LoopState* state, Run* run, int64_t since_us) noexcept nogil
cdef bint end_at_once(LoopState* state, Run* run) noexcept nogil
# The sentinel thread's; argument is the LoopState.
cdef void* sentinel_main(void* argument) noexcept nogil
# Ends and joins it; while nothing runs.
cdef void stop_sentinel(LoopState* state) noexcept nogil
