"""RabbitMQ raises a memory alarm, and takes no messages, while tasks are sent and run."""

from pathlib import Path

from taskq import AsyncResult
from tests.faults.arena import COUNT, WINDOW, MakeArena
from tests.support.ledger import assert_conserved
from tests.support.rabbit import Rabbit
from tests.support.site import Site
from tests.support.wait import wait_until


def alarm(rabbit: Rabbit, on: bool) -> None:
    rabbit.ctl("set_vm_memory_high_watermark", "0.000001" if on else "0.4")


def test_during_an_alarm_acks_go_on_and_nothing_is_begun(
    arena_on: MakeArena, own_rabbit: Rabbit, tmp_path: Path
) -> None:
    arena = arena_on(Site(own_rabbit.url))
    app = arena.site.app()

    def send(gate: str, *, silent: bool = True) -> AsyncResult[None]:
        args = ("hold", str(tmp_path / gate))
        return app.send_task("tasks.act", args=args, queue="q1", ignore_result=silent)

    first, telling = send("first"), send("telling", silent=False)
    others = [send("others").id for _ in range(2 * WINDOW)]
    worker = arena.worker()
    arena.done(2)

    alarm(own_rabbit, True)
    (tmp_path / "telling").touch()  # RabbitMQ speaks of an alarm to who publishes, and no sooner
    worker.wait_for("blocked")
    before = own_rabbit.count("q1")
    (tmp_path / "first").touch()
    wait_until(lambda: own_rabbit.count("q1") == before - 1, "an ack, which makes room")
    begun = arena.ledger.ids()
    alarm(own_rabbit, False)
    (tmp_path / "others").touch()

    assert telling.get(timeout=30) is None
    assert {first.id, telling.id} <= set(begun)
    assert len(begun) <= 3  # one may have begun before the broker spoke
    arena.done(2 + len(others))
    assert 0 == worker.stop()
    assert_conserved([first.id, telling.id, *others], arena.ledger, once=True)


def test_no_confirmed_task_is_lost_by_alarms_that_come_and_go(
    arena_on: MakeArena, own_rabbit: Rabbit
) -> None:
    arena = arena_on(Site(own_rabbit.url))
    arena.worker()
    flood = arena.flood(pause=0.02, TASKQ_PUBLISH_TIMEOUT="0.5")

    for at in (1, 2):
        flood.wait_for(at * COUNT // 4)
        alarm(own_rabbit, True)
        refused = len(flood.ids("refused"))
        wait_until(lambda known=refused: len(flood.ids("refused")) > known, "a call to be refused")
        alarm(own_rabbit, False)

    arena.balance(repeats=0)
