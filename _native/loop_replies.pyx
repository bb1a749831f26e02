"""The data loop's replies: from a result that is final to three frames, sent now or as soon as ZeroMQ takes them.

Last stage of a request's line in the worker. The loop's thread owns it; ZeroMQ's own thread frees what was sent.

Replies are never dropped while the gateway lives: without a high-water mark, which is the rule, the gateway's credit
bounds what is outstanding; with one, a reply that ZeroMQ does not take (ROUTER_MANDATORY: EAGAIN) is kept and tried
again. A gateway that has gone (EHOSTUNREACH) fails what it had outstanding by itself, and its replies are dropped.

Source: zmq_socket(3) on ROUTER, zmq_setsockopt(3) on ROUTER_MANDATORY.
"""

from libc.errno cimport EAGAIN, EINTR
from libc.stddef cimport size_t
from libc.stdint cimport uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp, memset, strlen

from tensorgate._native.byte_writer cimport ByteWriter, put_bytes, writer_init
from tensorgate._native.clocks cimport monotonic_us
from tensorgate._native.frame_header cimport ReplyHeader, write_reply_header
from tensorgate._native.frame_stream cimport stream_flush, stream_send
from tensorgate._native.loop_links cimport link_forget_run
from tensorgate._native.loop_state cimport Link, RETRY_AFTER_US, LoopState, Run, RunList, pop_run, push_run
from tensorgate._native.predict cimport run_result_free, run_result_init
from tensorgate._native.reply_memory cimport place_of_reply, reply_told
from tensorgate._native.status_codes cimport OK, RESOURCE_EXHAUSTED
from tensorgate._native.zmq_api cimport ZMQ_DONTWAIT, ZMQ_SNDMORE, message_of_copy, message_of_malloc, zmq, zmq_msg_t


cdef enum:
    # Below this a copy costs less than a buffer that another thread frees.
    COPY_BELOW_BYTES = 128


cdef Run* run_new() noexcept nogil:
    cdef Run* run = <Run*>calloc(1, sizeof(Run))
    if run is not NULL:
        run_result_init(&run.job.result)
        zmq.msg_init(&run.peer)
        zmq.msg_init(&run.payload)
    return run


cdef void run_free(Run* run) noexcept nogil:
    if run is not NULL:
        zmq.msg_close(&run.peer)
        zmq.msg_close(&run.payload)
        run_result_free(&run.job.result)
        free(run)


cdef bint _write_header(LoopState* state, const Run* run) noexcept nogil:
    """Into state.reply_header."""
    cdef ReplyHeader header
    memset(&header, 0, sizeof(ReplyHeader))
    header.epoch = state.epoch
    header.request_id = run.node.id
    header.code = <uint64_t>run.job.result.code
    header.message = run.job.result.message.data
    header.message_size = run.job.result.message.size
    header.queue_us = run.job.queue_us
    header.run_us = run.job.result.run_us
    header.batch_rows = run.job.result.batch_rows
    header.padding_rows = run.job.result.padding_rows
    if header.code == OK and run.job.result.response.block is not NULL:
        header.has_place = True
        header.place = place_of_reply(&run.job.result.response)
    state.reply_header.size = 0
    state.reply_header.failed = False
    write_reply_header(&state.reply_header, &header)
    return not state.reply_header.failed


cdef bint _send_on_link(LoopState* state, Run* run) noexcept nogil:
    cdef Link* link = run.link
    if not _write_header(state, run):
        return False
    if stream_send(&link.stream, state.reply_header.data, state.reply_header.size, &run.payload):
        state.counters.completed += 1
        if run.job.result.code == OK and run.job.result.response.block is not NULL:
            reply_told(&run.job.result.response)
        if not state.holds_replies:
            stream_flush(&link.stream)
    else:
        state.counters.unsent += 1
    run_free(run)
    link_forget_run(state, link)
    return True


cdef bint _send(LoopState* state, Run* run) noexcept nogil:
    """False: not now. True: the reply has gone, or never will; the run is freed."""
    cdef zmq_msg_t header
    if run.link is not NULL:
        return _send_on_link(state, run)
    if not _write_header(state, run) or not message_of_copy(
        &header, state.reply_header.data, state.reply_header.size
    ):
        return False
    state.data_may_have = True
    if zmq.msg_send(&run.peer, state.data, ZMQ_DONTWAIT | ZMQ_SNDMORE) < 0:
        zmq.msg_close(&header)
        if zmq.last_error() == EAGAIN or zmq.last_error() == EINTR:
            return False
        state.counters.unsent += 1
    # Once the first frame is taken, so are the others; should the peer go in between, ZeroMQ drops them all.
    elif (
        zmq.msg_send(&header, state.data, ZMQ_DONTWAIT | ZMQ_SNDMORE) < 0
        or zmq.msg_send(&run.payload, state.data, ZMQ_DONTWAIT) < 0
    ):
        zmq.msg_close(&header)
        state.counters.unsent += 1
    else:
        state.counters.completed += 1
    run_free(run)
    return True


cdef void set_error(Run* run, int code, const char* message) noexcept nogil:
    run.job.result.code = code
    run.job.result.message.size = 0
    put_bytes(&run.job.result.message, message, strlen(message))


cdef bint _take_response(Run* run) noexcept nogil:
    """Makes the response the payload; False: out of memory."""
    cdef ByteWriter* response = &run.job.result.response
    if response.size < COPY_BELOW_BYTES:
        return message_of_copy(&run.payload, response.data, response.size)
    if not message_of_malloc(&run.payload, response.data, response.size):
        return False
    writer_init(response)  # the memory is ZeroMQ's now
    return True


cdef void reply(LoopState* state, Run* run) noexcept nogil:
    """Sends the result, which is final, now or as soon as ZeroMQ takes it."""
    zmq.msg_close(&run.payload)
    # A response in the gateway's memory stays there.
    if run.job.result.code != OK or run.job.result.response.block is not NULL:
        zmq.msg_init(&run.payload)
    elif not _take_response(run):
        zmq.msg_init(&run.payload)
        set_error(run, RESOURCE_EXHAUSTED, "not enough memory for the response")
    if not _send(state, run):
        if state.num_unsent == 0:
            state.retry_us = monotonic_us() + RETRY_AFTER_US
        push_run(&state.unsent, run)
        state.num_unsent += 1


cdef bint _same_peer(Run* run, Run* other) noexcept nogil:
    cdef size_t size = zmq.msg_size(&run.peer)
    return size == zmq.msg_size(&other.peer) and memcmp(
        zmq.msg_data(&run.peer), zmq.msg_data(&other.peer), size) == 0


cdef void retry_unsent(LoopState* state) noexcept nogil:
    cdef RunList kept = state.unsent
    cdef Run* run
    cdef Run* refused = NULL
    cdef bint gives_up = 0 <= state.give_up_us <= state.loop.now_us
    state.unsent.first = NULL
    while True:
        run = pop_run(&kept)
        if run is NULL:
            break
        # A gateway that takes no reply takes no other one either.
        if (refused is NULL or not _same_peer(run, refused)) and _send(state, run):
            state.num_unsent -= 1
        elif gives_up:
            state.num_unsent -= 1
            state.counters.unsent += 1
            run_free(run)
        else:
            refused = run
            push_run(&state.unsent, run)
    state.retry_us = monotonic_us() + RETRY_AFTER_US
