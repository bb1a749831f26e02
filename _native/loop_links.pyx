"""Direct links: where the data loop accepts gateways of its own host, and forgets them again.

Beside the ROUTER in the worker's first stage; the frames are the same. A link outlives its connection until its last
run has completed.

Source: accept4(2).
"""

from libc.stdint cimport uint32_t
from libc.stdlib cimport calloc, free
from posix.unistd cimport close

from tensorgate._native.event_loop cimport Watch, loop_unwatch, loop_watch
from tensorgate._native.frame_stream cimport stream_close, stream_flush, stream_open
from tensorgate._native.posix cimport EPOLLIN, SOCK_CLOEXEC, SOCK_NONBLOCK, accept4


cdef void _on_connection(Watch* watch, uint32_t events) noexcept nogil:
    cdef LoopState* state = <LoopState*>watch.owner
    cdef Link* link
    cdef int fd = accept4(watch.fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)
    if fd < 0:
        return
    link = <Link*>calloc(1, sizeof(Link))
    if link is NULL:
        close(fd)
        return
    if not stream_open(&link.stream, &state.loop, fd):
        free(link)
        return
    link.next = state.links
    state.links = link


cdef bint links_listen(LoopState* state, int fd) noexcept nogil:
    state.listener.fd = fd
    state.listener.on_ready = _on_connection
    state.listener.owner = state
    if not loop_watch(&state.loop, &state.listener, EPOLLIN):
        close(fd)
        state.listener.fd = -1
        return False
    return True


cdef bint links_may_have(LoopState* state) noexcept nogil:
    cdef Link* link = state.links
    while link is not NULL:
        if link.stream.may_have:
            return True
        link = link.next
    return False


cdef bint links_have_unsent(LoopState* state) noexcept nogil:
    cdef Link* link = state.links
    while link is not NULL:
        if link.stream.first_out is not NULL and not link.stream.is_broken:
            return True
        link = link.next
    return False


cdef void flush_links(LoopState* state) noexcept nogil:
    cdef Link* link = state.links
    while link is not NULL:
        if link.stream.first_out is not NULL:
            stream_flush(&link.stream)
        link = link.next


cdef void _free_if_done(LoopState* state, Link* link) noexcept nogil:
    cdef Link** place = &state.links
    if link.stream.buffer is not NULL or link.num_runs:
        return
    while place[0] is not link:
        place = &place[0].next
    place[0] = link.next
    free(link)


cdef void link_leave(LoopState* state, Link* link) noexcept nogil:
    stream_close(&link.stream)
    _free_if_done(state, link)


cdef void link_forget_run(LoopState* state, Link* link) noexcept nogil:
    link.num_runs -= 1
    _free_if_done(state, link)


cdef void links_close(LoopState* state) noexcept nogil:
    cdef Link* link
    if state.listener.fd >= 0:
        loop_unwatch(&state.loop, &state.listener)
        close(state.listener.fd)
        state.listener.fd = -1
    while state.links is not NULL:
        link = state.links
        state.links = link.next
        stream_close(&link.stream)
        free(link)
