"""The contract of a pool: children by number that take jobs and say frames.

The supervisor owns a pool and tells the dispatcher what it reports; a pool decides nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from taskq.worker.frames import Frame


class Death(NamedTuple):
    """A child is gone: what it had done, and how it died."""

    #: The last turn that it had finished, and the last job that it had begun; 0 for none.
    finished: int
    begun: int
    #: It died in that job's function: whatever returned before is not to blame.
    inside: bool
    #: How, in words.
    how: str


@dataclass(frozen=True, slots=True)
class Reports:
    """Where a pool reports to; all on the loop's thread."""

    #: The app is imported: the manifest's mapping, and the children of the code before it.
    on_manifest: Callable[[dict[str, object], list[int]], None]
    #: The app cannot be imported; the text says why.
    on_broken: Callable[[str], None]
    #: A child said something.
    on_frame: Callable[[int, Frame], None]
    #: A child is gone.
    on_death: Callable[[int, Death], None]


class Pool(Protocol):
    """Children that run jobs."""

    def start(self) -> None:
        """Begin importing the app; `on_manifest` or `on_broken` follows."""

    def reload(self) -> None:
        """Import the app afresh; `on_manifest` follows.  If it is broken nothing changes."""

    def announce(self) -> None:
        """The worker is ready: let the app's hooks know."""

    def spawn(self, start_timeout: float) -> int:
        """Ask for one more child; its number.  It says READY when it waits for work.

        One that was born and is not ready after *start_timeout* seconds is ended.
        """

    def send(self, child: int, frame: Frame) -> None:
        """Say *frame* to *child*; nothing happens if it is gone."""

    def pause(self, child: int, paused: bool) -> None:
        """Stop (or go on) listening to *child*, so that it waits when it says too much."""

    def slate(self, child: int) -> tuple[int, int, float]:
        """The job that *child* has begun, its state, and the monotonic moment of that."""

    def finished(self, child: int) -> int:
        """The last turn that *child* has finished, after all was heard that it said before."""

    def bar(self, child: int, turn: int) -> None:
        """Keep *child* from beginning jobs of turns before *turn*."""

    def warn(self, child: int, job: int) -> None:
        """Tell the task, if *child* still runs *job*, that its soft time limit has passed."""

    def signal(self, child: int, number: int) -> None:
        """Send signal *number* to *child* and all it started."""

    def terminate(self, child: int) -> None:
        """Ask *child* and all it started to end: SIGTERM."""

    def kill(self, child: int, why: str = "") -> None:
        """End *child* and all it started, at once; *why* becomes part of how it died."""

    def kill_all(self) -> None:
        """End every child at once."""

    def pid(self, child: int) -> int | None:
        """The process id of *child*, None while it is not born."""

    def memory(self, child: int) -> int:
        """KiB of resident memory of *child*; 0 where that cannot be known."""

    def stacks(self, child: int, heard: Callable[[str], None]) -> None:
        """Have *heard* called once with the Python stacks of *child*, or with why there are none.

        One asks at a time.
        """

    def reap_strangers(self) -> None:
        """Reap ended processes that are this one's children without being the pool's own."""

    def close(self, timeout: float) -> None:
        """Let the children go (they finish what is in hand), wait at most *timeout* seconds."""
