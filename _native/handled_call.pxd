"""Calls that Python serves, for the edge that hands them to Python."""

from tensorgate._native.wake_queue cimport WakeQueue

# What is in the queue as (kind, HandledCall, bytes); calls holds those under way by their handles' addresses.
cdef list take_call_events(WakeQueue* queue, dict calls)
