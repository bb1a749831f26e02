"""Direct links of the data loop: gateways of its host that send frames over a unix socket; for the loop's thread."""

from tensorgate._native.loop_state cimport Link, LoopState

# Takes over a listening socket. False: out of descriptors; the socket is closed.
cdef bint links_listen(LoopState* state, int fd) noexcept nogil
# Whether any link may have requests, or has replies that its gateway has not taken.
cdef bint links_may_have(LoopState* state) noexcept nogil
cdef bint links_have_unsent(LoopState* state) noexcept nogil
# The gateway has gone: the link goes with its last run.
cdef void link_leave(LoopState* state, Link* link) noexcept nogil
cdef void link_forget_run(LoopState* state, Link* link) noexcept nogil
# Before the loop's end.
cdef void links_close(LoopState* state) noexcept nogil
# Sends what replies are queued on them.
cdef void flush_links(LoopState* state) noexcept nogil
