"""The data loop's intake: frames become runs and cancels; what is neither is dropped and counted.

First stage of a request's line in the worker. The loop's thread owns it.

ZeroMQ's descriptors are edge-triggered, and sending may swallow the edge that receiving waits for: a socket is read
until it says EAGAIN, and again after everything that was sent.

Source: zmq_msg_recv(3), zmq_getsockopt(3) on ZMQ_FD.
"""

from libc.errno cimport EINTR
from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint64_t

from tensorgate._native.clocks cimport deadline_after, monotonic_us
from tensorgate._native.execution_pool cimport pool_submit, runs_at_once
from tensorgate._native.frame_header cimport RequestHeader, read_cancel_header, read_request_header
from tensorgate._native.frame_stream cimport STREAM_BROKEN, STREAM_EMPTY, StreamResult, stream_receive
from tensorgate._native.id_table cimport IdNode, id_add, id_find
from tensorgate._native.loop_batches cimport run_batched
from tensorgate._native.loop_links cimport link_leave
from tensorgate._native.loop_replies cimport reply, run_new, set_error
from tensorgate._native.loop_runs cimport on_run_done, run_at_once
from tensorgate._native.loop_state cimport Link, LoopState, Run, Servable, run_of
from tensorgate._native.posix cimport atomic_load, atomic_store
from tensorgate._native.shared_memory cimport find_place
from tensorgate._native.status_codes cimport INTERNAL, UNAVAILABLE
from tensorgate._native.zmq_api cimport ZMQ_DONTWAIT, zmq, zmq_msg_t


cdef enum:
    # Requests taken from the socket before the rest of the loop gets its turn.
    MAX_REQUESTS_PER_TURN = 64
    MAX_CANCELS_PER_TURN = 1024


cdef int _receive(LoopState* state, Run* run) noexcept nogil:
    """Reads [peer][header][payload] into run and state.header: the number of frames, or 0 when there is no message.

    All frames of a message are there when the first is. Frames from the fourth on are read and forgotten.
    """
    cdef zmq_msg_t* message = &run.peer
    cdef int num_frames = 0
    while True:
        if zmq.msg_recv(message, state.data, ZMQ_DONTWAIT) < 0:
            if zmq.last_error() == EINTR:
                continue
            return num_frames
        num_frames += 1
        if not zmq.msg_more(message):
            return num_frames
        message = &state.header if num_frames == 1 else &run.payload


cdef inline bint _find_payload(LoopState* state, Run* run, const RequestHeader* header) noexcept nogil:
    """Where the request is: in its frame, or in the gateway's memory, which keeps it there until it has the reply."""
    if header.has_place:
        run.job.payload = NULL if state.requests is NULL else find_place(state.requests, &header.place)
        run.job.size = header.place.size
        return run.job.payload is not NULL
    run.job.payload = <const uint8_t*>zmq.msg_data(&run.payload)
    run.job.size = zmq.msg_size(&run.payload)
    return True


cdef bint _start_run(LoopState* state, Run* run, const RequestHeader* header) noexcept nogil:
    """False: another thread has taken the loop over."""
    run.node.id = header.request_id
    if run.link is not NULL:
        run.link.num_runs += 1
    run.servable = <Servable*>id_find(&state.servables, header.servable_handle)
    if run.servable is NULL or state.is_draining:
        if run.servable is NULL:
            set_error(run, UNAVAILABLE, "the model version is no longer loaded here")
        else:
            set_error(run, UNAVAILABLE, "the worker is stopping")
        reply(state, run)
        return True
    if not _find_payload(state, run, header):
        set_error(run, INTERNAL, "the request is not where the gateway says, in the memory that it shares")
        reply(state, run)
        return True
    if run.link is not NULL and state.replies is not NULL:
        run.job.result.response.home = &state.replies.home
    run.job.line = &run.servable.line
    run.job.state = run.servable.state
    run.job.python = run.servable.python
    run.job.method = header.method
    run.job.enqueued_us = monotonic_us()
    run.job.deadline_us = deadline_after(run.job.enqueued_us, header.remaining_deadline_us)
    run.job.on_done = on_run_done
    run.job.owner = state
    run.servable.num_runs += 1
    id_add(&state.runs, &run.node)
    if run.servable.batcher is not NULL and run_batched(state, run):
        return True
    if atomic_load(&run.servable.not_at_once_until_us) <= run.job.enqueued_us and runs_at_once(&run.job):
        return run_at_once(state, run)
    pool_submit(&state.pool, &run.job)
    return True


cdef bint _admit(LoopState* state, const uint8_t* bytes, size_t size) noexcept nogil:
    """Begins the spare run, which has the payload, if this is a request's header. False: as _start_run."""
    cdef RequestHeader header
    cdef Run* run = state.spare
    if not read_request_header(bytes, size, &header):
        state.counters.malformed += 1
    elif header.epoch != state.epoch:
        state.counters.foreign += 1
    elif id_find(&state.runs, header.request_id) is not NULL:
        state.counters.duplicates += 1
    else:
        state.spare = NULL
        return _start_run(state, run, &header)
    return True


cdef bint take_link_requests(LoopState* state) noexcept nogil:
    cdef Link* link = state.links
    cdef Link* following
    cdef const uint8_t* header
    cdef size_t size
    cdef StreamResult result
    cdef int _i
    while link is not NULL:
        following = link.next
        for _i in range(MAX_REQUESTS_PER_TURN):
            if not link.stream.may_have:
                break
            if state.spare is NULL:
                state.spare = run_new()
                if state.spare is NULL:
                    return True
            result = stream_receive(&link.stream, &header, &size, &state.spare.payload)
            if result == STREAM_BROKEN:
                link_leave(state, link)
                break
            if result == STREAM_EMPTY:
                break
            state.spare.link = link
            if not _admit(state, header, size):
                return False
        link = following
    return True


cdef bint take_requests(LoopState* state) noexcept nogil:
    """Until the socket says that it has no more, or others shall have their turn; data_may_have then tells which.

    False: another thread has taken the loop over.
    """
    cdef Run* run
    cdef int num_frames, _i
    for _i in range(MAX_REQUESTS_PER_TURN):
        if state.spare is NULL:
            state.spare = run_new()
            if state.spare is NULL:
                return True  # what cannot be taken in stays in the socket
        run = state.spare
        num_frames = _receive(state, run)
        if num_frames == 0:
            state.data_may_have = False
            return True
        run.link = NULL
        if num_frames != 3:
            state.counters.malformed += 1
        elif not _admit(state, <const uint8_t*>zmq.msg_data(&state.header), zmq.msg_size(&state.header)):
            return False
    return True


cdef bint take_cancels(LoopState* state) noexcept nogil:
    """Whether the socket said that it has no more."""
    cdef uint64_t epoch, request_id
    cdef IdNode* node
    cdef Run* run
    cdef int _i
    for _i in range(MAX_CANCELS_PER_TURN):
        if zmq.msg_recv(&state.header, state.cancels, ZMQ_DONTWAIT) < 0:
            return zmq.last_error() != EINTR
        if not read_cancel_header(
            <const uint8_t*>zmq.msg_data(&state.header), zmq.msg_size(&state.header), &epoch, &request_id,
        ):
            state.counters.malformed += 1
        elif epoch != state.epoch:
            state.counters.foreign += 1
        else:
            node = id_find(&state.runs, request_id)
            if node is not NULL:
                run = run_of(node)
                atomic_store(&run.job.cancelled, 1)
    return False
