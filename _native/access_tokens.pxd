"""Bearer tokens and what each may be used for; not changed once they are made, so any thread may read them."""

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint32_t, uint64_t


cdef enum:
    MAX_TOKEN_BYTES = 256
    TOKEN_WORDS = MAX_TOKEN_BYTES // 8


cdef struct AccessToken:
    uint64_t words[TOKEN_WORDS]  # its bytes, and zeros
    uint64_t size
    uint32_t roles


cdef struct TokenTable:
    AccessToken* tokens
    size_t num_tokens


# The roles of the token in an `authorization` header's value; 0: it holds no bearer token, or one that nobody has.
cdef uint32_t roles_of_header(const TokenTable* table, const uint8_t* value, size_t size) noexcept nogil
# Whether who shows a token of these roles may do what needs one of needed: OK, or the status' code and its text, which
# is a constant. has_token: there was a header, whatever it held.
cdef int judge_roles(bint has_token, uint32_t roles, uint32_t needed, const char** text) noexcept nogil


cdef class AccessTokens:
    cdef TokenTable table
