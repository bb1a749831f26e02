"""A whole unary request goes to the dispatcher, and its outcome to the answer.

On a request's line: gRPC call → model_spec → route → dispatcher. Everything here is for the thread of the
server's loop.
"""

from libc.string cimport memcpy, memset

from tensorgate._native.byte_writer cimport ByteWriter, writer_free, writer_init
from tensorgate._native.dispatcher cimport dispatcher_submit
from tensorgate._native.dispatcher_state cimport Dispatcher, Outcome, Request
from tensorgate._native.event_loop cimport timer_cancel
from tensorgate._native.grpc_answer cimport grpc_call_fail, grpc_call_finish, grpc_call_reply
from tensorgate._native.grpc_message cimport Message
from tensorgate._native.grpc_state cimport SPEC_IN_TASKS, GrpcCall, GrpcServer
from tensorgate._native.proto_scan cimport ModelSpecView, scan_model_spec_view, scan_task_spec_view
from tensorgate._native.request_account cimport account_unrouted
from tensorgate._native.request_end cimport request_free, request_new
from tensorgate._native.request_memory cimport message_of_block
from tensorgate._native.route_table cimport VersionState, resolve_route, signature_place, unpin_version
from tensorgate._native.status_codes cimport INTERNAL, OK, RESOURCE_EXHAUSTED, UNAVAILABLE
from tensorgate._native.zmq_api cimport message_of_malloc, zmq


cdef void _on_done(Request* request, const Outcome* outcome) noexcept nogil:
    """The dispatcher has a request's outcome."""
    cdef GrpcCall* call = <GrpcCall*>request.owner
    call.request = NULL
    call.message_size = 0
    if outcome.code == OK:
        grpc_call_reply(call, outcome.payload)
    else:
        grpc_call_finish(call, outcome.code, outcome.message, outcome.message_size)


cdef inline bint _scan_spec(GrpcCall* call, ModelSpecView* spec) noexcept nogil:
    """False: the request's bytes are no message."""
    if call.method.spec_place == SPEC_IN_TASKS:
        return scan_task_spec_view(call.message.data, call.message.size, spec)
    return scan_model_spec_view(call.message.data, call.message.size, 1, spec)


cdef inline bint _take_over(Request* request, const Message* message) noexcept nogil:
    """Makes the content the request's payload; False: out of memory, and it is not."""
    if message.block is not NULL:
        return message_of_block(&request.payload, message.block)
    return message_of_malloc(&request.payload, message.data, message.size)


cdef void grpc_call_submit(GrpcCall* call) noexcept nogil:
    cdef GrpcServer* server = call.server
    cdef Dispatcher* dispatcher = server.dispatcher
    cdef ModelSpecView spec
    cdef ByteWriter text
    cdef VersionState* version
    cdef Request* request
    cdef int code = OK
    if not _scan_spec(call, &spec):
        # As gRPC's own deserializer answers.
        grpc_call_fail(call, INTERNAL, "")
        return
    if dispatcher.routes is NULL:
        grpc_call_fail(call, UNAVAILABLE, "The server is starting.")
        return
    writer_init(&text)
    version = resolve_route(dispatcher.routes, &spec, &code, &text)
    if version is NULL:
        account_unrouted(dispatcher.account, call.method.number, code, spec.name, spec.name_size)
        grpc_call_finish(call, code, text.data, text.size)
        writer_free(&text)
        return
    request = request_new()
    if request is NULL:
        _refuse_pinned(call, version)
        return
    # While the message that the name is in is the call's.
    request.signature = signature_place(version, spec.signature_name, spec.signature_name_size)
    zmq.msg_close(&request.payload)
    if not _take_over(request, &call.message):
        zmq.msg_init(&request.payload)
        request_free(request)
        _refuse_pinned(call, version)
        return
    # Its bytes count in the budget until the answer is there.
    request.payload_size = call.message.size
    request.block = call.message.block
    memset(&call.message, 0, sizeof(Message))
    request.version = version
    request.method = call.method.number
    request.is_native = True
    request.priority = call.priority
    request.deadline_us = call.deadline_us
    memcpy(request.traceparent, call.traceparent, call.traceparent_size)
    request.traceparent_size = call.traceparent_size
    request.on_done = _on_done
    request.owner = call
    call.request = request
    # From now on the dispatcher watches the deadline.
    timer_cancel(server.http2.loop, &call.timer)
    dispatcher_submit(dispatcher, request)


cdef void _refuse_pinned(GrpcCall* call, VersionState* version) noexcept nogil:
    unpin_version(version)
    grpc_call_fail(call, RESOURCE_EXHAUSTED, "Out of memory")
