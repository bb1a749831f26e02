"""Who goes first where several models have more to do than there is time: by weight, and by what each has had.

Of one kind of threads; guarded by whoever owns the two structs. While all weights are alike nobody asks.

Source: start-time fair queueing (Goyal, Vin, Cheng 1996), with run time for length.
"""

from libc.stdint cimport int64_t

cdef enum:
    # Run time that a model which had nothing to do can have saved up.
    MAX_SAVED_US = 100000


cdef struct FairShare:
    int64_t weight             # at least 1
    int64_t served_us          # run time


cdef struct FairShares:
    bint is_weighted           # some weight is, or was, not 1
    int64_t turn_us            # of the last one whose turn came


cdef inline int64_t turn_of(const FairShares* shares, const FairShare* share) noexcept nogil:
    """The smallest goes first."""
    return max(share.served_us // share.weight, shares.turn_us - MAX_SAVED_US)


cdef inline void take_turn(FairShares* shares, const FairShare* share) noexcept nogil:
    if shares.is_weighted:
        shares.turn_us = max(shares.turn_us, turn_of(shares, share))


cdef inline void charge(const FairShares* shares, FairShare* share, int64_t run_us) noexcept nogil:
    share.served_us = turn_of(shares, share) * share.weight + run_us


cdef inline void set_weight(FairShares* shares, FairShare* share, int64_t weight) noexcept nogil:
    share.served_us = turn_of(shares, share) * weight
    share.weight = weight
    shares.is_weighted |= weight != 1
