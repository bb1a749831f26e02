"""What a run takes, told to a batcher before it has run anything."""

from libc.stdint cimport int64_t

from tensorgate._native.batch_state cimport Batcher

# That a run of as many rows as the serialized PredictRequest has takes so long, for the queue that the request belongs
# to. False: it is not one that is merged.
cdef bint teach(Batcher* batcher, bytes request, int64_t run_us) except? False
