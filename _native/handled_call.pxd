"""Calls that Python serves, for the edge that hands them to Python."""

from tensorgate._native.call_events cimport EventQueue

# What is in the queue as (kind, HandledCall, bytes); calls holds those under way by their handles' addresses.
cdef list take_call_events(EventQueue* queue, dict calls)
