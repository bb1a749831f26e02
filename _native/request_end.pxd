"""The ends of requests; for the thread of the dispatcher's loop."""

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t

from tensorgate._native.byte_writer cimport ByteWriter
from tensorgate._native.dispatcher_state cimport Dispatcher, Outcome, Request

cdef const char* NO_MEMORY_TEXT

# A zeroed request with its timer and an empty payload; NULL: out of memory.
cdef Request* request_new() noexcept nogil
# For a request that was never submitted, or that has ended. Its pin, if any, is the caller's.
cdef void request_free(Request* request) noexcept nogil

# Marks a request settled, without a deadline from now on. False if it was settled before.
cdef bint settle(Request* request) noexcept nogil
# Keeps a copy of the request if it is one of those that its version logs; before it is sent.
cdef void choose_for_log(Request* request) noexcept nogil
# on_done, for a request that has just been settled with an answer.
cdef void tell_success(Request* request, const Outcome* outcome) noexcept nogil
# The same with an error.
cdef void tell_error(Request* request, int code, const uint8_t* message, size_t size) noexcept nogil
# Settles it with an error, unless it is settled.
cdef void fail_request(Request* request, int code, const uint8_t* message, size_t size) noexcept nogil
cdef void release_pin(Request* request) noexcept nogil
# Ends and frees a request that no worker has; the last one frees the text, too.
cdef void end_request(Request* request, int code, const uint8_t* message, size_t size) noexcept nogil
cdef void end_with_text(Request* request, int code, const char* text) noexcept nogil
cdef void end_with(Request* request, int code, ByteWriter* message) noexcept nogil

# Takes a request off its line, from the queue or from among those handed.
cdef void leave_line(Request* request) noexcept nogil
# Its deadline has passed.
cdef void expire(Request* request) noexcept nogil
# The submitter has lost interest: on_done is not called any more, and the request is not the submitter's any more.
cdef void dispatcher_cancel(Dispatcher* dispatcher, Request* request) noexcept nogil
