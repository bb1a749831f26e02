"""A hash table from 64-bit ids to the structs that carry its nodes, for one thread; it only allocates its buckets.

A node is a member of the struct it finds, best its first; the struct's owner keeps it in place while it is in a table.
"""

from libc.stddef cimport size_t
from libc.stdint cimport uint64_t
from libc.stdlib cimport calloc, free


cdef struct IdNode:
    IdNode* next
    uint64_t id


cdef struct IdTable:
    IdNode** buckets
    size_t num_buckets  # a power of two
    size_t num_nodes


cdef inline bint id_table_init(IdTable* table) noexcept nogil:
    """False: out of memory; nothing is to be freed then."""
    table.num_buckets = 64
    table.num_nodes = 0
    table.buckets = <IdNode**>calloc(table.num_buckets, sizeof(IdNode*))
    return table.buckets is not NULL


cdef inline void id_table_free(IdTable* table) noexcept nogil:
    """The nodes are their owners'."""
    free(table.buckets)
    table.buckets = NULL
    table.num_nodes = 0


cdef inline IdNode** _bucket_of(IdNode** buckets, size_t num_buckets, uint64_t id) noexcept nogil:
    # The high bits of the product depend on all of the id's.
    return &buckets[((id * <uint64_t>0x9E3779B97F4A7C15) >> 32) & (num_buckets - 1)]


cdef inline IdNode* id_find(const IdTable* table, uint64_t id) noexcept nogil:
    cdef IdNode* node = _bucket_of(table.buckets, table.num_buckets, id)[0]
    while node is not NULL and node.id != id:
        node = node.next
    return node


cdef inline void _grow(IdTable* table) noexcept nogil:
    """Doubles the buckets; without the memory for it the table only gets slower."""
    cdef size_t num_buckets = 2 * table.num_buckets
    cdef IdNode** buckets = <IdNode**>calloc(num_buckets, sizeof(IdNode*))
    cdef IdNode** bucket
    cdef IdNode* node
    cdef IdNode* following
    cdef size_t i
    if buckets is NULL:
        return
    for i in range(table.num_buckets):
        node = table.buckets[i]
        while node is not NULL:
            following = node.next
            bucket = _bucket_of(buckets, num_buckets, node.id)
            node.next = bucket[0]
            bucket[0] = node
            node = following
    free(table.buckets)
    table.buckets = buckets
    table.num_buckets = num_buckets


cdef inline void id_add(IdTable* table, IdNode* node) noexcept nogil:
    """A node whose id is not in the table yet."""
    cdef IdNode** bucket
    if table.num_nodes >= table.num_buckets:
        _grow(table)
    bucket = _bucket_of(table.buckets, table.num_buckets, node.id)
    node.next = bucket[0]
    bucket[0] = node
    table.num_nodes += 1


cdef inline IdNode* id_take(IdTable* table, uint64_t id) noexcept nogil:
    """Removes the node of that id and returns it; NULL when there is none."""
    cdef IdNode** link = _bucket_of(table.buckets, table.num_buckets, id)
    cdef IdNode* node
    while link[0] is not NULL and link[0].id != id:
        link = &link[0].next
    node = link[0]
    if node is not NULL:
        link[0] = node.next
        table.num_nodes -= 1
    return node
