"""The data loop's part in batching; for its thread, but for the callbacks."""

from tensorgate._native.execution_pool cimport Job
from tensorgate._native.loop_state cimport LoopState, Run

# Hands a run of a servable that is batched to the scheduler, or answers it. False: it is to run alone, as others do.
cdef bint run_batched(LoopState* state, Run* run) noexcept nogil
# Runs the batches that are ready and short, and calls threads for the others. False: another thread has taken the loop
# over. more_to_come: requests lie in the sockets.
cdef bint run_ready_batches(LoopState* state, bint more_to_come) noexcept nogil
# On a batch thread.
cdef void on_batch_done(void* owner, Job* first, Job* last) noexcept nogil
