"""What is known of a finished stage of a published number, here or in a report that another machine wrote."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

NO_RUNTIME = "not set"
"""In the place of a runtime's name where the stage chose it."""


@dataclass(frozen=True)
class Made:
    """A stage that is up to date: what it took, and what it was made with."""

    seconds: float
    versions: Mapping[str, str]
    machine: Mapping[str, int | str]
    code: str
    """Stands for the code of the stage and of those before it."""
    metrics: Mapping[str, Any] = field(default_factory=dict)
    """Its figures where another machine made it; empty for those that lie here."""

    def record(self, configuration: str) -> dict[str, Any]:
        """What the report keeps of a run beside its figures."""
        return {
            "configuration": configuration,
            "code": self.code,
            "seconds": round(self.seconds, 1),
            "versions": dict(self.versions),
            "machine": dict(self.machine),
        }

    @staticmethod
    def of(record: Mapping[str, Any], metrics: Mapping[str, Any]) -> "Made":
        """A run as a report has it."""
        return Made(record["seconds"], record["versions"], record["machine"], record["code"], metrics)
