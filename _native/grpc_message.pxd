"""Assembles gRPC's length-prefixed messages out of a stream's DATA, however it is cut; one assembler a stream.

Memory grows as bytes arrive: what a prefix announces reserves at most 64 KiB more than what has come.
"""

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t

cdef enum:
    MESSAGE_PREFIX_BYTES = 5
    MESSAGE_FIRST_CAPACITY = 65536

ctypedef enum AssemblerResult:
    MESSAGE_INCOMPLETE     # all bytes are eaten and more are needed
    MESSAGE_COMPLETE       # assembler_take has it
    # The rest end the stream; a later push eats nothing.
    MESSAGE_TOO_LARGE      # announced is above max_message_size; told as soon as the prefix is known
    MESSAGE_BAD_FLAG       # the prefix's first byte is neither 0 nor 1
    MESSAGE_NO_MEMORY


cdef struct MessageAssembler:
    # One thread's. A prefix is a byte (1: compressed), then the message's length in four bytes, big-endian.
    uint8_t prefix[MESSAGE_PREFIX_BYTES]
    int prefix_size            # how much of the prefix has come
    bint compressed            # these two once it is whole
    size_t announced
    uint8_t* data              # malloc'd; NULL until the message's first byte
    size_t size                # how much of the message has come
    size_t capacity            # the bytes of memory held, for budgets
    size_t max_message_size


cdef void assembler_init(MessageAssembler* assembler, size_t max_message_size) noexcept nogil
# Frees what is held; the assembler is then as after init.
cdef void assembler_free(MessageAssembler* assembler) noexcept nogil
# Eats *data until one message is complete or all is eaten, and moves *data and *size on past what it ate.
cdef AssemblerResult assembler_push(MessageAssembler* assembler, const uint8_t** data, size_t* size) noexcept nogil
# After MESSAGE_COMPLETE: hands the message over (to be freed with free(); NULL when it is empty) and starts the next.
# Until it is called, pushes eat nothing and return MESSAGE_COMPLETE.
cdef void assembler_take(MessageAssembler* assembler, uint8_t** data, size_t* size, bint* compressed) noexcept nogil
# Whether a stream may end here: no message is begun, and none waits to be taken.
cdef bint assembler_is_between_messages(const MessageAssembler* assembler) noexcept nogil
