"""Intake of the data loop; for its thread."""

from tensorgate._native.loop_state cimport LoopState

# Until the socket says that it has no more, which clears data_may_have, or others shall have their turn. False: another
# thread has taken the loop over.
cdef bint take_requests(LoopState* state) noexcept nogil
# The same of the direct links.
cdef bint take_link_requests(LoopState* state) noexcept nogil
# Whether the socket said that it has no more.
cdef bint take_cancels(LoopState* state) noexcept nogil
