"""Sockets of the worker's data loop; for whoever makes or ends it, with the GIL where that is not said otherwise."""

from tensorgate._native.loop_state cimport LoopState

# As if there were none: close_sockets may be called from here on.
cdef void init_sockets(LoopState* state) noexcept nogil
# Opens and binds ROUTER and PULL, and has the event loop watch them and the eventfd of runs that are done. secret_key:
# of CURVE, empty: in the clear. Raises OSError, ValueError for no key; then close_sockets closes what there is.
cdef int open_sockets(
    LoopState* state, void* context, str data_endpoint, str cancel_endpoint, int send_high_water_mark,
    bytes secret_key) except -1
# The unix socket on which gateways of this host connect. Raises OSError.
cdef int open_listener(LoopState* state, str path) except -1
# All but the listener and its links, which links_close ends; once the threads have ended or have never been.
cdef void close_sockets(LoopState* state) noexcept nogil
