"""A worker's ear for commands: hears requests, has those obeyed that are meant for it, replies.

What commands do is the business of `commands`.  Nothing that is sent here can end a worker, and
little can hold up its tasks: requests are obeyed a few milliseconds at a time, and all that waits
is bounded.

What was decided before a worker came, or while it did not hear, is in a log.  Each time the ear is
open anew the log is played, and of it what outlives a worker is remembered; what is heard meanwhile
waits.

::

    start ──> listening ──ear open──> playing the log ──> obeying
                  │                        ▲                 │
                  └── ear does not open ───┘<──ear open anew─┘
"""

import fnmatch
import re
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from taskq import clock, log
from taskq.broker.base import Broker, Listening, Outlet
from taskq.control import commands
from taskq.control.base import LOG, REPLIES, REQUESTS, CommandError, Later, Reply, Worker
from taskq.control.memory import Change, net
from taskq.errors import EncodeError, MessageMalformed
from taskq.loop import Loop, Timer
from taskq.wire.control import Request, read_request, write_reply
from taskq.wire.message import Message

#: Requests are obeyed for so long (seconds), then the loop turns to other work.
_SLICE = 0.005
#: So many requests wait, of so many bytes; of more the latest are dropped.
_MOST_REQUESTS, _MOST_BYTES = 50_000, 64 * 1024 * 1024
#: Replies that cannot go out are tried again after so many seconds, kept for so many, and not more
#: than so many of so many bytes.
_RETRY, _KEPT = 0.05, 5.0
_MOST_REPLIES, _MOST_REPLY_BYTES = 10_000, 16 * 1024 * 1024
#: A worker begins without an ear after so many seconds: tasks do not wait for commands.
_PATIENCE = 2.0
#: A sender that stopped waiting so long ago (seconds) is not obeyed any more: clocks differ.
_STALE = 60.0
#: Seconds between two reports of what could not be read, and between two looks at what is old.
_REPORT, _TIDY = 10.0, 3600.0

#: What is remembered has one of these words in its request; all else in the log is passed over
#: unread, as most of it are questions.
_LASTING = re.compile(
    b"|".join(name.encode() for name, command in commands.BY_NAME.items() if command.change)
)

#: Longer patterns are not tried.
_LONGEST_PATTERN = 256
#: A regular expression may take time that doubles with each choice in it, and nothing can stop it:
#: so there may be few, and none over a group.
_MOST_CHOICES = 5
_CHOICE = re.compile(r"[*+?{|]")
_OVER_GROUP = re.compile(r"\)[*+{]|\(\?")


class _Unsent(NamedTuple):
    """A reply that could not go out yet; *until* is monotonic."""

    until: float
    message: Message
    routing_key: str


class Mailbox:
    """The mailbox of *worker*, whose replies go out by *outlet*; on the loop's thread only."""

    def __init__(self, loop: Loop, broker: Broker, outlet: Outlet, worker: Worker) -> None:
        self._loop = loop
        self._broker = broker
        self._outlet = outlet
        self._worker = worker
        self._on_ready: Callable[[], None] | None = None
        self._ear: Listening | None = None
        self._log: Listening | None = None
        #: What the log said so far; None while it is not played.
        self._past: list[Change] | None = None
        self._requests: deque[Message] = deque()
        self._request_bytes = 0
        self._working = False
        self._replies: deque[_Unsent] = deque()
        self._reply_bytes = 0
        self._dropped = self._unreadable = 0
        self._why = ""
        #: Timers by what they are for.
        self._timers: dict[str, Timer] = {}
        self._is_open = False

    def start(self, on_ready: Callable[[], None]) -> None:
        """Call *on_ready* once it is known what was decided before, then go on listening.

        Where the broker does not tell, that is after a few seconds.
        """
        self._is_open = True
        self._on_ready = on_ready
        self._later("patience", _PATIENCE, self._play)
        self._later("tidy", _TIDY, self._tidy)
        self._ear = self._broker.listen(
            self._loop,
            REQUESTS,
            "",
            on_message=self._on_request,
            on_ready=self._play,
            queue=f"{self._worker.node}.{REQUESTS}",
        )

    def close(self) -> None:
        """Hear nothing more, and send what replies can go out at this moment.  Idempotent."""
        if not self._is_open:
            return
        self._is_open = False
        self._send_again()
        for timer in self._timers.values():
            timer.cancel()
        for each in (self._ear, self._log):
            if each is not None:
                each.close()
        self._requests.clear()
        self._replies.clear()

    def _later(self, what: str, delay: float, callback: Callable[[], None]) -> None:
        if what not in self._timers:
            self._timers[what] = self._loop.call_later(delay, partial(self._due, what, callback))

    def _due(self, what: str, callback: Callable[[], None]) -> None:
        del self._timers[what]
        callback()

    # -- the log -----------------------------------------------------------------------------

    def _play(self) -> None:
        """The ear is open, or open anew, or still not open."""
        if not self._is_open:
            return
        if (timer := self._timers.pop("patience", None)) is not None:
            timer.cancel()
        if self._log is not None:
            self._log.close()
        past: list[Change] = []
        self._past = past
        self._log = self._broker.history(
            self._loop,
            LOG,
            REQUESTS,
            on_message=partial(self._note, past),
            on_ready=partial(self._played, past),
        )

    def _note(self, past: list[Change], message: Message) -> None:
        if _LASTING.search(message.body) is None:
            return
        try:
            request = read_request(message)
            if self._is_meant(request):
                change = self._change(request)
                if change is not None:
                    past.append(change)
        except (MessageMalformed, CommandError):
            pass  # whoever lived then said so

    def _change(self, request: Request) -> Change | None:
        command = commands.find(request.method)
        if command.change is None:
            return None
        return command.change(self._worker, command.read(request.arguments))

    def _played(self, past: list[Change]) -> None:
        if past is not self._past:
            return
        self._past = None
        for change in net(past):
            try:
                self._remember(change)
            except Exception as error:
                log.event("control-failed", command=type(change).__name__, exception=repr(error))
        if self._on_ready is not None:
            on_ready, self._on_ready = self._on_ready, None
            on_ready()
        self._work_soon()

    def _remember(self, change: Change) -> None:
        try:
            self._worker.remembered.take(change, clock.wall())
        except ValueError as error:
            raise CommandError(str(error)) from None
        self._worker.apply(change)

    def _tidy(self) -> None:
        self._later("tidy", _TIDY, self._tidy)
        self._worker.remembered.forget(clock.wall())

    # -- requests ----------------------------------------------------------------------------

    def _on_request(self, message: Message) -> None:
        size = len(message.raw) + len(message.body)
        if len(self._requests) >= _MOST_REQUESTS or self._request_bytes + size > _MOST_BYTES:
            self._dropped += 1
            self._later("report", _REPORT, self._report)
            return
        self._requests.append(message)
        self._request_bytes += size
        self._work_soon()

    def _work_soon(self) -> None:
        if self._requests and not self._working and self._past is None:
            self._working = True
            self._loop.add_callback(self._work)

    def _work(self) -> None:
        self._working = False
        end = clock.monotonic() + _SLICE
        while self._requests and self._past is None:
            message = self._requests.popleft()
            self._request_bytes -= len(message.raw) + len(message.body)
            self._obey(message)
            if clock.monotonic() >= end:
                break
        self._work_soon()

    def _obey(self, message: Message) -> None:
        try:
            request = read_request(message)
        except MessageMalformed as error:
            self._unreadable += 1
            self._why = str(error)
            self._later("report", _REPORT, self._report)
            return
        if not self._is_meant(request):
            return
        self._worker.clock.hear(request.clock)
        reply = self._run(request)
        if isinstance(reply, Later):
            reply.then(partial(self._answer, request))
        else:
            self._answer(request, reply)

    def _is_meant(self, request: Request) -> bool:
        node = self._worker.node
        if request.destination is not None:
            return node in request.destination
        if request.pattern is None or request.matcher is None:
            return True
        try:
            return _fits(node, request.pattern, request.matcher)
        except (ValueError, ArithmeticError, RecursionError, re.error) as error:
            log.event("control-unfit", pattern=log.brief(request.pattern), reason=error)
            return False

    def _run(self, request: Request) -> Reply:
        """Obey *request*; whatever happens is in the reply."""
        try:
            command = commands.find(request.method)
            if command.change is None and _is_stale(request):
                return commands.SILENCE
            given = command.read(request.arguments)
            _tell(command, request)
            if command.change is not None:
                self._remember(command.change(self._worker, given))
            return command.run(self._worker, given)
        except CommandError as error:
            log.event("control-refused", command=request.method, reason=error)
            return {"error": str(error)}
        except Exception as error:
            # A mistake of ours: it costs a reply, and not a worker with all its tasks.
            log.event("control-failed", command=request.method, exception=repr(error))
            return {"error": repr(error)}

    # -- replies -----------------------------------------------------------------------------

    def _answer(self, request: Request, reply: Reply) -> None:
        if reply is commands.SILENCE or request.reply_to is None or not self._is_open:
            return
        exchange, routing_key = request.reply_to
        if exchange != REPLIES:
            return  # exchanges are declared, and that is not for strangers to ask for
        message = self._written(request, reply)
        if self._replies or not self._outlet.broadcast(message, REPLIES, routing_key):
            self._keep(_Unsent(clock.monotonic() + _KEPT, message, routing_key))

    def _written(self, request: Request, reply: Reply) -> Message:
        tick = self._worker.clock.tick()
        node, ticket, serializer = self._worker.node, request.ticket, request.serializer
        try:
            return write_reply(node, reply, ticket, tick, serializer)
        except (EncodeError, ValueError) as error:
            log.event("control-failed", command=request.method, exception=repr(error))
            return write_reply(node, {"error": ascii(error)}, ticket, tick, serializer)

    def _keep(self, reply: _Unsent) -> None:
        self._replies.append(reply)
        self._reply_bytes += len(reply.message.body)
        while len(self._replies) > _MOST_REPLIES or self._reply_bytes > _MOST_REPLY_BYTES:
            self._drop_reply()
        self._later("replies", _RETRY, self._send_again)

    def _send_again(self) -> None:
        now = clock.monotonic()
        while self._replies:
            until, message, routing_key = self._replies[0]
            if until > now and not self._outlet.broadcast(message, REPLIES, routing_key):
                self._later("replies", _RETRY, self._send_again)
                return
            self._drop_reply()

    def _drop_reply(self) -> None:
        self._reply_bytes -= len(self._replies.popleft().message.body)

    def _report(self) -> None:
        if self._unreadable:
            log.event("control-unreadable", count=self._unreadable, reason=log.brief(self._why))
        if self._dropped:
            log.event("control-dropped", count=self._dropped)
        self._unreadable = self._dropped = 0


def _tell(command: commands.Command, request: Request) -> None:
    name = "control-command" if command.kind == "control" else "control-question"
    if log.audible(name):
        shown = log.brief(repr(dict(request.arguments)))
        log.event(name, command=request.method, arguments=shown)


def _is_stale(request: Request) -> bool:
    return 0 < request.expires < clock.wall() - _STALE


def _fits(node: str, pattern: str, matcher: str) -> bool:
    """Whether *node* is meant by *pattern*; ValueError for one that is not to be tried."""
    if len(pattern) > _LONGEST_PATTERN:
        raise ValueError(f"patterns may have {_LONGEST_PATTERN} characters")
    if matcher == "glob":
        return fnmatch.fnmatchcase(node, pattern)
    if matcher == "pcre":
        if len(_CHOICE.findall(pattern)) > _MOST_CHOICES or _OVER_GROUP.search(pattern):
            raise ValueError(
                f"at most {_MOST_CHOICES} of * + ? {{ | and none after a group, or use glob"
            )
        return re.match(pattern, node) is not None
    raise ValueError(f"there is no matcher {matcher!r:.40}, but glob and pcre")
