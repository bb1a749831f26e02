"""Errands of other threads to the data loop's."""

from tensorgate._native.event_loop cimport Task
from tensorgate._native.loop_state cimport Errand, LoopState

# Tasks of an errand each; for the loop's thread.
cdef void register_task(Task* task) noexcept nogil
cdef void withdraw_task(Task* task) noexcept nogil
cdef void drain_task(Task* task) noexcept nogil
cdef void cancel_all_task(Task* task) noexcept nogil
# The errand is the waiting thread's from here on.
cdef void end_errand(LoopState* state, Errand* errand) noexcept nogil
cdef void end_errands_if_idle(LoopState* state) noexcept nogil
# For the thread whose errand it is.
cdef void wait_for_errand(LoopState* state, Errand* errand) noexcept nogil
