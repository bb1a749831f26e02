"""Runs of the data loop, from their start to their reply."""

from tensorgate._native.execution_pool cimport Job
from tensorgate._native.loop_state cimport LoopState, Run

# On an execution thread: hands the run back to the loop's, and rings if that one sleeps.
cdef void on_run_done(Job* job) noexcept nogil
# The run has ended: answers it. For the loop's thread.
cdef void complete(LoopState* state, Run* run) noexcept nogil
# Answers what the execution threads have done; from here on they need not ring.
cdef void complete_done(LoopState* state) noexcept nogil
# Whether there is nothing more to answer; from True on, execution threads ring.
cdef bint may_sleep(LoopState* state) noexcept nogil
# Runs it on the loop's thread and answers it. False: another thread has taken the loop over, and this one must leave it
# alone and end.
cdef bint run_at_once(LoopState* state, Run* run) noexcept nogil
# The sentinel thread's; argument is the LoopState.
cdef void* sentinel_main(void* argument) noexcept nogil
# Ends and joins it; while nothing runs.
cdef void stop_sentinel(LoopState* state) noexcept nogil
