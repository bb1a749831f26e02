"""Which model, version and signature a request asks for.

The value between an edge's first look at a request and the route table. Free of threads.

Source: tensorflow_serving/apis/model.proto.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """A request's model_spec: at most one of ``version`` and ``version_label`` is not None; neither: the latest.

    An empty ``name`` is possible here and refused by the route table; an empty ``signature_name`` means
    ``serving_default``.
    """

    name: str
    version: int | None = None
    version_label: str | None = None
    signature_name: str = ""
