"""The text forms of gRPC over HTTP/2: timeouts, status messages, content types, encodings, binary metadata.

Pure functions of bytes that somebody else owns; what they write goes to a ByteWriter, whose ``failed`` says that memory
ran out.
"""

from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint8_t

from tensorgate._native.byte_writer cimport ByteWriter

cdef enum:
    # Sets of encodings are sums of these; 0 stands for one that is not known.
    ENCODING_IDENTITY = 1
    ENCODING_GZIP = 2
    ENCODING_DEFLATE = 4
    # Of a status message's UTF-8, as upstream cuts it; the mark comes on top.
    MAX_MESSAGE_BYTES = 1024


# The value of grpc-timeout, in microseconds rounded up (8 digits of hours fit in 63 bits). False: malformed.
cdef bint parse_timeout(const uint8_t* data, size_t size, int64_t* timeout_us) noexcept nogil

# How many bytes of a status message remain: all up to MAX_MESSAGE_BYTES, else that many, less a character cut in half.
# A message that was cut is to be followed by "...TRUNCATED".
cdef size_t cut_message(const uint8_t* message, size_t size) noexcept nogil
# Appends the message percent-encoded as grpc-message has it; the whole of it.
cdef void put_percent_encoded(ByteWriter* out, const uint8_t* message, size_t size) noexcept nogil
# Appends the value of grpc-message for a status message of any length: cut, marked if cut, percent-encoded.
cdef void put_grpc_message(ByteWriter* out, const uint8_t* message, size_t size) noexcept nogil

# Whether the value of content-type is application/grpc, alone or followed by "+…" or ";…".
cdef bint is_grpc_content_type(const uint8_t* data, size_t size) noexcept nogil

# Appends what the base64 of one value of -bin metadata stands for, padded or not; the caller splits at commas first.
# False: malformed, and nothing is appended.
cdef bint decode_bin_header(const uint8_t* data, size_t size, ByteWriter* out) noexcept nogil
# Appends base64 without padding, for -bin metadata on its way out.
cdef void put_base64(ByteWriter* out, const uint8_t* data, size_t size) noexcept nogil

# The set of encodings that the value of grpc-accept-encoding allows; identity is always among them.
cdef int accepted_encodings(const uint8_t* data, size_t size) noexcept nogil
# The encoding that the value of grpc-encoding names, or 0.
cdef int encoding_of(const uint8_t* data, size_t size) noexcept nogil
