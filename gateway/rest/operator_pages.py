"""The pages beside the API, for operators and their tools: health, readiness, metrics, the list of models.

Beside the REST line; answered at once on the REST loop, also while models load and while the server ends.

Source: the paths are Kubernetes' (/livez, /readyz, /healthz), the Open Inference Protocol's (/v2/health), Prometheus'
and TensorFlow Serving's (util/prometheus_exporter); the list of models is tensorgate's own.
"""

from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus

from tensorgate.gateway.monitoring.metrics import CONTENT_TYPE
from tensorgate.gateway.monitoring.serving_metrics import CONTENT_TYPE as SERVING_CONTENT_TYPE
from tensorgate.gateway.rest.http_messages import TEXT_TYPE, Answer, json_answer

MODELS_PATH = b"/v1/models"
LIVENESS_PATHS = frozenset({b"/healthz", b"/livez", b"/v2/health/live"})
READINESS_PATHS = frozenset({b"/readyz", b"/v2/health/ready"})
METRICS_PATH = b"/metrics"
METRICS_TYPE = CONTENT_TYPE.encode()
SERVING_METRICS_TYPE = SERVING_CONTENT_TYPE.encode()


def is_open_page(raw_path: bytes) -> bool:
    """Whether the page, outside the API, needs no token: who watches over servers has none."""
    return raw_path in LIVENESS_PATHS or raw_path in READINESS_PATHS


@dataclass(frozen=True, slots=True)
class OperatorPages:
    """What the pages show; all are called on the REST loop, and must not block."""

    readiness_trouble: Callable[[], str] = str
    """Why the server is not ready; empty where it is."""
    metrics_text: Callable[[], bytes] = bytes
    serving_metrics_paths: frozenset[bytes] = frozenset()
    """Where TensorFlow Serving's metrics are shown."""
    serving_metrics_text: Callable[[], bytes] = bytes
    models_json: Callable[[], bytes] = bytes

    def models(self) -> Answer:
        """GET /v1/models."""
        return json_answer(self.models_json())

    def page(self, raw_path: bytes, trouble: str | None) -> Answer:
        """The page at a path outside the API; ``trouble``: why the REST server itself cannot serve now."""
        if raw_path in LIVENESS_PATHS:
            return plain_answer(HTTPStatus.OK)
        if raw_path in READINESS_PATHS:
            trouble = trouble or self.readiness_trouble()
            return plain_answer(HTTPStatus.SERVICE_UNAVAILABLE, trouble) if trouble else plain_answer(HTTPStatus.OK)
        if raw_path == METRICS_PATH:
            return Answer(HTTPStatus.OK.value, self.metrics_text(), METRICS_TYPE)
        if raw_path in self.serving_metrics_paths:
            return Answer(HTTPStatus.OK.value, self.serving_metrics_text(), SERVING_METRICS_TYPE)
        return plain_answer(HTTPStatus.NOT_FOUND)


def plain_answer(status: HTTPStatus, text: str = "") -> Answer:
    """A page of one line; without a text, what the status says."""
    text = text or ("ok" if status is HTTPStatus.OK else status.phrase)
    return Answer(status.value, f"{text}\n".encode(), TEXT_TYPE)
