"""How far the schedule was sent: the note that a leader keeps at its lease for the next one.

What a lease is, and when notes change hands, is in `lease`.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from taskq.beat.base import Run


@dataclass(slots=True)
class Progress:
    """What a leader writes down for the next one."""

    #: All that was due by then has been sent, or need not be; None: nobody ever sent anything.
    through: float | None = None
    #: The last runs of entries that must not overlap, where no store that all share knows them.
    runs: Mapping[str, Run] = field(default_factory=dict)
    host: str = ""

    def to_text(self) -> str:
        """The note for a lease."""
        return json.dumps({"through": self.through, "runs": self.runs, "host": self.host})

    @classmethod
    def read(cls, text: str) -> "Progress":
        """What `to_text` wrote; of anything else, nothing."""
        try:
            found = json.loads(text)
            runs = {name: Run(*run) for name, run in found["runs"].items()}
            return cls(found["through"], runs, found["host"])
        except (ValueError, TypeError, KeyError, AttributeError):
            return cls()
