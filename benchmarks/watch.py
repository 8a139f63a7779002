"""How many messages a queue holds, as RabbitMQ itself knows it, a hundred times a second.

The judge of every drain: a message counts until it is acknowledged, whoever took it.  The looking
is done inside the broker, at the cost of one question to the queue's process each time; nothing is
asked of the library that is measured.
"""

import time
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from benchmarks.processes import Program
from tests.support.rabbit import RabbitNode

#: Seconds between two looks.
_INTERVAL = 0.01

#: A queue that was filled counts as drained when so many looks in a row found it empty: a task
#: that sends others may leave it empty for a moment.
_EMPTY_LOOKS = 30

_SCRIPT = """
{ok, Queue} = rabbit_amqqueue:lookup(rabbit_misc:r(<<"%(vhost)s">>, queue, <<"%(queue)s">>)),
Count = case amqqueue:get_type(Queue) of
    rabbit_quorum_queue -> fun() ->
        Total = fun rabbit_fifo:query_messages_total/1,
        {ok, {_, N}, _} = ra:local_query(amqqueue:get_pid(Queue), Total),
        N
    end;
    _ -> fun() ->
        [{messages, N}] = rabbit_amqqueue:info(Queue, [messages]),
        N
    end
end,
Look = fun(Seen, Empty) ->
    N = Count(),
    Line = io_lib:format("~b ~b~n", [erlang:system_time(microsecond), N]),
    {[Line | Seen], if N > 0 -> 0; Empty < 0 -> Empty; true -> Empty + 1 end}
end,
Watch = fun Again({Seen, Empty}, Left) ->
    if
        Empty >= %(empty)d; Left =< 0 -> lists:reverse(Seen);
        true -> timer:sleep(%(interval)d), Again(Look(Seen, Empty), Left - 1)
    end
end,
First = Look([], -1),
ok = file:write_file(<<"%(file)s.begun">>, <<>>),
ok = file:write_file(<<"%(file)s.part">>, Watch(First, %(looks)d)),
ok = file:rename(<<"%(file)s.part">>, <<"%(file)s">>).
"""


class Look(NamedTuple):
    """What was found: so many *messages*, ready or unacknowledged, at *time* in seconds."""

    time: float
    messages: int


class Watch:
    """Looks at a queue until it has been filled and is empty again, or *timeout* has passed.

    *file* is where the broker writes down what it saw.
    """

    def __init__(
        self, node: RabbitNode, vhost: str, queue: str, *, file: Path, timeout: float
    ) -> None:
        self._file = file
        self._running = node.start_ctl(
            "eval",
            _SCRIPT
            % {
                "vhost": vhost,
                "queue": queue,
                "file": file,
                "empty": _EMPTY_LOOKS,
                "interval": int(_INTERVAL * 1000),
                "looks": int(timeout / _INTERVAL),
            },
        )
        begun = file.with_name(f"{file.name}.begun")
        while not begun.exists() and self._running.poll() is None:
            time.sleep(0.01)

    @property
    def over(self) -> bool:
        """Whether the looking has ended."""
        return self._file.exists() or self._running.poll() is not None

    def wait(self, worker: Program) -> list[Look]:
        """All looks, once the queue is empty; AssertionError if that took too long.

        Ended if *worker* ends before.
        """
        while not self.over:
            worker.check()
            time.sleep(0.02)
        assert self._file.exists(), f"rabbitmqctl eval: {self._running.communicate()}"
        lines = self._file.read_text().splitlines()
        looks = [Look(int(at) / 1e6, int(count)) for at, count in map(str.split, lines)]
        left = looks[-1].messages
        assert left == 0, f"{left} messages are left of {worker}, which said:\n{worker.log()}"
        return looks

    def close(self) -> None:
        """Look no more; what was seen so far is lost."""
        self._running.kill()
        self._running.communicate()


def drain_time(looks: list[Look]) -> float:
    """Seconds from the first acknowledgement to the last, of a queue full at the first look."""
    first = looks[0].messages
    begun = next(before for before, after in pairwise(looks) if after.messages != first).time
    last = max(look.time for look in looks if look.messages > 0)
    ended = next(look.time for look in looks if look.time > last)
    return ended - begun
