"""Turns of the worker's data loop."""

from tensorgate._native.loop_state cimport LoopState

# Has the event loop do the data loop's work in every turn; before it starts.
cdef void turns_begin(LoopState* state) noexcept nogil
