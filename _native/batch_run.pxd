"""One batch, from its tasks to their responses."""

from tensorgate._native.batch_state cimport Batch

# Runs the batch, which has been taken out of its queue, in the calling thread; the jobs of those tasks that have ended
# are then among the batch's done ones, and the batch is to be given to batch_end.
cdef void batch_run(Batch* batch) noexcept nogil
