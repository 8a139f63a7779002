from tests.faults.arena import AT_ONCE, COUNT, SCALE, WINDOW, MakeArena
from tests.support.rabbit import Rabbit
from tests.support.site import Site
import pytest, time
@pytest.mark.parametrize("n", range(2))
def test_gone(arena_on, rabbit, n):
    arena = arena_on(Site(rabbit.url))
    worker = arena.worker()
    arena.flood(seconds=0.002, pause=0.005)
    arena.done(COUNT // 8)
    with rabbit.channel() as channel:
        print("deleted", channel.queue_delete("q1").method.message_count)
    try:
        worker.wait_for("queue-gone", timeout=3)
        print(n, "told")
    except AssertionError:

        from collections import Counter
        for _ in range(12):
            with rabbit.channel() as channel:
                m = channel.queue_declare("q1", passive=True).method
            print(m.message_count, m.consumer_count, Counter(arena._floods[0].outcomes().values()), len(arena.ledger.ids()))
            time.sleep(1)
        arena._floods[0].end()
        worker.end()
