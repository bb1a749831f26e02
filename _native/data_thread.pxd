"""One of the gateway's native threads."""

from tensorgate._native.dispatcher_state cimport Dispatcher
from tensorgate._native.event_loop cimport EventLoop


cdef struct DataThread:
    int index
    EventLoop loop
    Dispatcher dispatcher  # its routes are the snapshot in use: NULL before the first
