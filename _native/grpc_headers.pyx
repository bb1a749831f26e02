"""The headers of a gRPC request: read one by one, then judged as a whole.

On a request's line: HTTP/2 → gRPC headers → messages. Everything here is for the thread of the server's loop.

Source: gRPC over HTTP/2 (PROTOCOL-HTTP2.md in the grpc repository); W3C Trace Context.
"""

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memcmp, memcpy

from tensorgate._native.access_tokens cimport judge_roles, roles_of_header
from tensorgate._native.admission cimport priority_of
from tensorgate._native.byte_writer cimport put_bytes
from tensorgate._native.compressed_messages cimport gzip_is_available
from tensorgate._native.dispatcher_state cimport MAX_TRACEPARENT
from tensorgate._native.grpc_answer cimport grpc_call_fail, grpc_call_fail_for_memory, grpc_call_fail_http
from tensorgate._native.grpc_state cimport GrpcCall, GrpcMethod, GrpcServer
from tensorgate._native.grpc_wire cimport (
    ENCODING_IDENTITY,
    accepted_encodings,
    encoding_of,
    is_grpc_content_type,
    parse_timeout,
)
from tensorgate._native.status_codes cimport INTERNAL, OK, RESOURCE_EXHAUSTED, UNIMPLEMENTED


cdef enum:
    # What RFC 9113 counts for a header beside its bytes.
    HEADER_OVERHEAD = 32


cdef inline bint _is(const uint8_t* name, const char* literal, size_t size) noexcept nogil:
    return memcmp(name, literal, size) == 0


cdef const GrpcMethod* _find_method(GrpcServer* server, const uint8_t* path, size_t size) noexcept nogil:
    cdef size_t i
    for i in range(server.num_methods):
        if server.methods[i].path_size == size and memcmp(server.methods[i].path, path, size) == 0:
            return &server.methods[i]
    return NULL


cdef void _put_metadata(
    GrpcCall* call, const uint8_t* name, size_t name_size, const uint8_t* value, size_t value_size,
) noexcept nogil:
    cdef uint32_t[2] sizes
    sizes[0] = <uint32_t>name_size
    sizes[1] = <uint32_t>value_size
    put_bytes(&call.metadata, sizes, 8)
    put_bytes(&call.metadata, name, name_size)
    put_bytes(&call.metadata, value, value_size)


cdef void grpc_call_take_header(
    GrpcCall* call, const uint8_t* name, size_t name_size, const uint8_t* value, size_t value_size,
) noexcept nogil:
    call.header_bytes += name_size + value_size + HEADER_OVERHEAD
    if call.header_bytes > call.server.http2.limits.max_header_list_size:
        return
    if name_size == 5 and _is(name, ":path", 5):
        call.method = _find_method(call.server, value, value_size)
    elif name_size == 7 and _is(name, ":method", 7):
        call.is_post = value_size == 4 and _is(value, "POST", 4)
    elif name_size == 12 and _is(name, "content-type", 12):
        call.is_grpc = is_grpc_content_type(value, value_size)
    elif name_size == 12 and _is(name, "grpc-timeout", 12):
        call.has_bad_timeout = not parse_timeout(value, value_size, &call.timeout_us)
    elif name_size == 13 and _is(name, "grpc-encoding", 13):
        call.encoding = encoding_of(value, value_size)
    elif name_size == 20 and _is(name, "grpc-accept-encoding", 20):
        call.accepted_encodings = accepted_encodings(value, value_size)
    elif name_size == 13 and call.server.tokens is not NULL and _is(name, "authorization", 13):
        # Of two, nobody can say which one counts.
        call.roles = 0 if call.has_authorization else roles_of_header(call.server.tokens, value, value_size)
        call.has_authorization = True
    else:
        if name_size == 11 and _is(name, "traceparent", 11) and value_size <= MAX_TRACEPARENT:
            memcpy(call.traceparent, value, value_size)
            call.traceparent_size = value_size
        elif name_size == 10 and _is(name, "x-priority", 10):
            call.priority = priority_of(value, value_size)
        # Pseudo-headers come first, so the method is known.
        if call.method is not NULL and call.method.number == 0 and name_size and name[0] != 58:
            _put_metadata(call, name, name_size, value, value_size)


cdef bint _has_token(GrpcCall* call) noexcept nogil:
    """Whether the call's token is enough for its method; else it has been refused, and answered."""
    cdef const char* text = NULL
    cdef int code = judge_roles(call.has_authorization, call.roles, call.method.roles, &text)
    if code != OK:
        grpc_call_fail(call, code, text)
    return code == OK


cdef bint grpc_call_admit(GrpcCall* call) noexcept nogil:
    cdef GrpcServer* server = call.server
    if call.header_bytes > server.http2.limits.max_header_list_size:
        grpc_call_fail(call, RESOURCE_EXHAUSTED, "received metadata size exceeds hard limit")
    elif not call.is_post:
        grpc_call_fail_http(call, "405")
    elif not call.is_grpc:
        grpc_call_fail_http(call, "415")
    elif call.method is NULL:
        grpc_call_fail(call, UNIMPLEMENTED, "")
    elif server.tokens is not NULL and not _has_token(call):
        pass
    elif call.has_bad_timeout:
        grpc_call_fail(call, INTERNAL, "grpc-timeout is malformed")
    elif call.encoding == 0 or (call.encoding != ENCODING_IDENTITY and not gzip_is_available()):
        grpc_call_fail(call, UNIMPLEMENTED, "The message encoding is not supported; identity, deflate and gzip are.")
    elif call.stream.connection.held_bytes > server.http2.limits.max_unsent_bytes:
        # It asks for more and does not take what it has been given.
        grpc_call_fail_for_memory(call)
    else:
        return True
    return False
