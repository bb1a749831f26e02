"""The identity of one version of one model.

Everywhere on both lines. A value, free of threads.

Source: tensorflow_serving/core/servable_id.h.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class ServableId:
    """A model's name and a version number, which is not negative in practice but may be."""

    name: str
    version: int

    def __str__(self) -> str:
        """Upstream's text form, which its error messages embed."""
        return f"{{name: {self.name} version: {self.version}}}"
