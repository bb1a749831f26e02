"""Takes workers' replies off their sockets and ends the requests that they answer.

On a request's line: worker ‖ frames → outcome → whoever submitted. Each reply makes room for a request that waits.

The descriptor behind ZMQ_FD is edge-triggered: it becomes readable when the socket's state may have changed, once, and
both sending and receiving consume that signal. So a socket is drained after every wake-up and after every send, in the
loop's hook; where the hook of the turn has run already, a timer that is due at once brings it round again.

Source: zmq_getsockopt(3) on ZMQ_FD.
"""

from libc.string cimport memset

from tensorgate._native.dispatcher_state cimport Dispatcher, Line, Outcome, Request, expect_replies
from tensorgate._native.event_loop cimport Hook, timer_cancel
from tensorgate._native.frame_header cimport ReplyHeader
from tensorgate._native.request_end cimport leave_line, release_pin, request_free, settle, tell_error, tell_success
from tensorgate._native.request_queue cimport table_find
from tensorgate._native.request_route cimport hand_waiting
from tensorgate._native.status_codes cimport LAST_CODE, OK, UNKNOWN
from tensorgate._native.worker_frames cimport FOUND_FOREIGN, FOUND_NOTHING, FOUND_REPLY, flush_requests, receive_reply
from tensorgate._native.zmq_api cimport zmq, zmq_msg_t

cdef enum:
    # Messages taken off one socket before the loop's other work gets its turn.
    MAX_REPLIES_PER_TURN = 256


cdef bint take_message(Line* line) noexcept nogil:
    cdef zmq_msg_t header_frame, payload
    cdef ReplyHeader header
    cdef int found = receive_reply(line, &header_frame, &header, &payload)
    if found == FOUND_REPLY:
        _take_reply(line, &header, &payload)
    elif found == FOUND_FOREIGN:
        line.dispatcher.counters.foreign_replies += 1
    zmq.msg_close(&payload)
    zmq.msg_close(&header_frame)
    return found != FOUND_NOTHING


cdef void _take_reply(Line* line, const ReplyHeader* header, zmq_msg_t* payload) noexcept nogil:
    cdef Dispatcher* dispatcher = line.dispatcher
    cdef Request* request = table_find(dispatcher, header.request_id)
    cdef Outcome outcome
    if request is NULL or request.line is not line:
        dispatcher.counters.unknown_replies += 1
        return
    leave_line(request)
    release_pin(request)
    if not settle(request):
        dispatcher.counters.late_replies += 1
    elif header.code == OK:
        dispatcher.counters.succeeded += 1
        memset(&outcome, 0, sizeof(Outcome))
        outcome.payload = payload
        outcome.is_shared = header.has_place
        outcome.queue_us = header.queue_us
        outcome.run_us = header.run_us
        outcome.batch_rows = header.batch_rows
        outcome.padding_rows = header.padding_rows
        tell_success(request, &outcome)
    else:
        dispatcher.counters.failed += 1
        tell_error(
            request, <int>header.code if header.code <= LAST_CODE else UNKNOWN, header.message, header.message_size)
    request_free(request)
    hand_waiting(line)


cdef void drain_lines(Hook* hook) noexcept nogil:
    cdef Dispatcher* dispatcher = <Dispatcher*>hook.owner
    cdef Line* line = dispatcher.lines
    cdef int num_taken
    timer_cancel(dispatcher.loop, &dispatcher.drain_timer)
    while line is not NULL:
        num_taken = 0
        line.may_have_replies |= line.stream.may_have
        # Sending on the way sets the flag again.
        while line.may_have_replies and num_taken < MAX_REPLIES_PER_TURN:
            line.may_have_replies = False
            while num_taken < MAX_REPLIES_PER_TURN and take_message(line):
                num_taken += 1
        if num_taken == MAX_REPLIES_PER_TURN:
            line.may_have_replies = True
        line = line.next
    # The flags that stand now are of lines that have more than their share, or were sent to by another line's replies.
    timer_cancel(dispatcher.loop, &dispatcher.drain_timer)
    line = dispatcher.lines
    while line is not NULL:
        # After the replies, which may have made room for more requests.
        flush_requests(line)
        if line.may_have_replies:
            expect_replies(line)
        line = line.next
