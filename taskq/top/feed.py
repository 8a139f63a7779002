"""What the picture is made of, brought by two threads: one hears events, one asks and acts.

Asking takes its time, since nobody knows how many workers there are; so the screen waits for
neither.  What goes wrong is told in `note` and tried again.
"""

import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from taskq import clock
from taskq.app import TaskQ
from taskq.broker.base import Keeper
from taskq.broker.topology import dead
from taskq.errors import TaskqError
from taskq.events.receiver import Event, Receiver
from taskq.queues import find
from taskq.top.picture import Picture, found
from taskq.top.stage import Action

#: Seconds that the last worker's answer is waited for.
_PATIENCE = 1.0
#: All workers are asked who they are in every so manieth look; those that are known, in each.
_ALL = 5
#: Seconds until it is seen that the screen is closed.
_TURN = 0.2


class Feed:
    """Fills `picture` from `with` to its end; whoever looks at that holds `lock`.

    *queues* are names as people use them; those that workers take from come on top.  With *events*
    workers are told to tell of their tasks, and at the end those that did not before, to stop.
    """

    def __init__(
        self,
        app: TaskQ,
        *,
        interval: float,
        events: bool = True,
        queues: Sequence[str] = (),
        management: str | None = None,
    ) -> None:
        self.lock = threading.Lock()
        self.picture = Picture(clock.wall())
        #: What happened last that people should know.
        self.note = ""
        #: A bug that ended one of the threads.
        self.failure: BaseException | None = None
        self._app = app
        self._interval = interval
        self._events = events
        self._management = management
        self._queues = [find(app, name).name for name in queues]
        if not queues:
            self._queues = [each.name for each in app.router.queues.values()]
        #: Workers that answered; those of them that were told to send events, and by us alone.
        self._nodes: list[str] = []
        self._stats: dict[str, Any] = {}
        self._asked: set[str] = set()
        self._enabled: set[str] = set()
        self._actions: queue.SimpleQueue[Action | None] = queue.SimpleQueue()
        self._ending = threading.Event()
        self._looked = threading.Semaphore(0)
        self._threads = [
            threading.Thread(target=self._guard, args=[work], name=f"taskq-top-{name}", daemon=True)
            for name, work in (("ear", self._listen), ("asker", self._ask))
        ]

    def __enter__(self) -> "Feed":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._actions.put(None)
        for thread in self._threads:
            thread.join()

    def do(self, action: Action) -> None:
        """Do *action* soon; `note` tells what came of it."""
        self._actions.put(action)

    def wait(self) -> None:
        """Return after two looks, so that what changes between them is known."""
        for _ in range(2):
            self._looked.acquire()

    def _guard(self, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:
            self.failure = error
            self._looked.release(2)

    # -- hearing -----------------------------------------------------------------------------

    def _listen(self) -> None:
        while not self._ending.is_set():
            try:
                with Receiver(self._app, {"*": self._on_event}) as receiver:
                    while not self._ending.is_set():
                        receiver.capture(timeout=_TURN)
            except TaskqError as error:
                self.note = str(error)
                self._ending.wait(self._interval)

    def _on_event(self, event: Event) -> None:
        with self.lock:
            self.picture.event(event, clock.wall())

    # -- asking ------------------------------------------------------------------------------

    def _ask(self) -> None:
        keeper = self._app.broker.keeper(self._management)
        try:
            looks = 0
            while not self._ending.is_set():
                try:
                    self._look(keeper, looks)
                    looks += 1
                except TaskqError as error:
                    self.note = str(error)
                self._looked.release()
                self._act()
            self._disable()
        finally:
            keeper.close()

    def _act(self) -> None:
        """Do what is asked for, if anything is before it is time to look again."""
        try:
            action = self._actions.get(timeout=self._interval)
        except queue.Empty:
            return
        if action is not None:
            try:
                self.note = self._done(action)
            except TaskqError as error:
                self.note = str(error)

    def _look(self, keeper: Keeper, looks: int) -> None:
        control, now = self._app.control, clock.wall()
        stocks = keeper.look([*self._queues, *map(dead, self._queues)])
        with self.lock:
            known = self.picture.nodes(now)
            self.picture.stocks(self._queues, stocks, clock.wall())
        everyone = looks % _ALL == 0 or not set(known) <= set(self._nodes)
        stats = {}
        if everyone or self._nodes:
            meant = None if everyone else self._nodes
            stats = control.inspect(meant, _PATIENCE).stats() or {}
        if everyone:
            self._stats = stats
        else:  # one answer that is late says nothing of a worker
            self._stats = self._stats | stats
        with self.lock:
            self.picture.answers(self._stats)
        if everyone and stats:
            self._nodes = sorted(stats)
            self._learn_queues()
        if self._events:
            self._enable(stats)

    def _learn_queues(self) -> None:
        """Ask those that are there which queues they take from."""
        answers = self._app.control.inspect(self._nodes, _PATIENCE).active_queues() or {}
        taken = {
            each["name"]
            for described in answers.values()
            if isinstance(described, list)
            for each in described
            if isinstance(each, dict) and isinstance(each.get("name"), str)
        }
        self._queues += sorted(taken - set(self._queues))

    def _enable(self, stats: Mapping[str, Any]) -> None:
        """Have those send events that do not, and those once that do not say whether they do."""
        silent = [node for node, told in stats.items() if not self._sends(node, told)]
        if not silent:
            return
        self._asked.update(silent)
        replies = self._app.control.enable_events(destination=silent, reply=True, timeout=_PATIENCE)
        new = [node for each in replies for node, reply in each.items() if _is_new(reply)]
        if new:
            self._enabled.update(new)
            self.note = f"events of tasks enabled on {', '.join(new)}, until this ends"

    def _sends(self, node: str, told: object) -> bool:
        sends = found(told, "taskq", "events")
        return sends if isinstance(sends, bool) else node in self._asked

    def _disable(self) -> None:
        """Leave workers as they were."""
        if self._enabled:
            try:
                self._app.control.disable_events(destination=sorted(self._enabled))
            except TaskqError:
                pass  # they tell nobody, which costs little

    def _done(self, action: Action) -> str:
        """Do *action*; what came of it, for people."""
        control, name = self._app.control, action.name
        if action.verb == "revoke":
            control.revoke(name)
            return f"{name} revoked"
        steer = control.pause if action.verb == "pause" else control.resume
        logical = name.removeprefix(self._app.conf.queue_prefix)
        # To all that there are and will be; the answers of those that are known are waited for.
        nodes = len(self._nodes)
        steer(logical, reply=bool(nodes), limit=nodes or None, timeout=_PATIENCE)
        return f"queue {name} {action.verb}d"


def _is_new(reply: object) -> bool:
    return isinstance(reply, dict) and reply.get("ok") == "task events enabled"
