"""Bearer tokens: which roles the one in a request's `authorization` header has, and whether they are enough.

Beside the beginning of a request's line: the native gRPC edge asks it of every call, REST and grpcio's edge through
Python. A header is compared with every token, whole and always to the end, so that the time it takes says nothing of
how near it came to any.

Source: RFC 6750 2.1 (the header), RFC 9110 11.1 (the scheme's case does not matter).
"""

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

from tensorgate._native.status_codes cimport OK, PERMISSION_DENIED, UNAUTHENTICATED

MAX_BYTES = MAX_TOKEN_BYTES

cdef const char* SCHEME = b"bearer "

cdef const char* NO_TOKEN = b"A token is needed: send the header 'authorization: Bearer TOKEN'."
cdef const char* UNKNOWN_TOKEN = b"The 'authorization' header holds no bearer token that this server knows."
cdef const char* TOO_FEW_ROLES = b"The token is for other things than this: its roles do not permit it."


cdef uint32_t roles_of_header(const TokenTable* table, const uint8_t* value, size_t size) noexcept nogil:
    cdef uint64_t[TOKEN_WORDS] shown
    cdef AccessToken* token
    cdef uint64_t difference
    cdef uint64_t is_same
    cdef uint32_t roles = 0
    cdef size_t i, k
    if size < 7:
        return 0
    for i in range(7):
        # Letters only differ in that bit between their cases, and a space has it.
        if (value[i] | 0x20) != <uint8_t>SCHEME[i] or (i == 6 and value[i] != 0x20):
            return 0
    while size > 7 and value[7] == 0x20:
        value += 1
        size -= 1
    value += 7
    size -= 7
    if size == 0 or size > MAX_TOKEN_BYTES:
        return 0
    memset(shown, 0, sizeof(shown))
    memcpy(shown, value, size)
    for i in range(table.num_tokens):
        token = &table.tokens[i]
        difference = token.size ^ size
        for k in range(TOKEN_WORDS):
            difference |= token.words[k] ^ shown[k]
        # All ones where there is no difference, else zero; not a branch.
        is_same = ((difference | (0 - difference)) >> 63) - 1
        roles |= token.roles & <uint32_t>is_same
    return roles


cdef int judge_roles(bint has_token, uint32_t roles, uint32_t needed, const char** text) noexcept nogil:
    if needed == 0 or roles & needed:
        return OK
    if roles:
        text[0] = TOO_FEW_ROLES
        return PERMISSION_DENIED
    text[0] = UNKNOWN_TOKEN if has_token else NO_TOKEN
    return UNAUTHENTICATED


cdef class AccessTokens:
    def __cinit__(self, tokens):
        cdef AccessToken* made
        cdef bytes text
        self.table.tokens = <AccessToken*>calloc(len(tokens) + 1, sizeof(AccessToken))
        if self.table.tokens is NULL:
            raise MemoryError
        for text, roles in tokens:
            if not text or len(text) > MAX_TOKEN_BYTES:
                raise ValueError(f"a token has 1 to {MAX_BYTES} bytes, not {len(text)}")
            made = &self.table.tokens[self.table.num_tokens]
            memcpy(made.words, <const char*>text, len(text))
            made.size = len(text)
            made.roles = roles
            self.table.num_tokens += 1

    def __dealloc__(self):
        free(self.table.tokens)

    def refusal(self, header, uint32_t needed):
        cdef const char* text = NULL
        cdef bytes value
        cdef uint32_t roles = 0
        cdef int code
        if header is not None:
            value = header
            roles = roles_of_header(&self.table, <const uint8_t*><const char*>value, len(value))
        code = judge_roles(header is not None, roles, needed, &text)
        return None if code == OK else (code, text.decode("ascii"))
