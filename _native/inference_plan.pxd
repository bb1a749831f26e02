"""What Classify and Regress feed and fetch on a signature, once it has been found fit for them."""

from tensorgate._native.byte_writer cimport ByteWriter
from tensorgate._native.session cimport Endpoint, SessionState, Signature


cdef struct InferencePlan:
    # Endpoints of the signature; NULL where it has none, or where the other API has it.
    const Endpoint* input
    const Endpoint* classes  # Classify
    const Endpoint* scores   # Classify
    const Endpoint* value    # Regress


# Fill plan and return a canonical status code; for any but OK they have written the client's text to message.
cdef int plan_classification(
    const SessionState* state, const Signature* signature, InferencePlan* plan, ByteWriter* message) noexcept nogil
cdef int plan_regression(
    const SessionState* state, const Signature* signature, InferencePlan* plan, ByteWriter* message) noexcept nogil
