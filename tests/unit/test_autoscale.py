"""How many children there should be, from what goes on at a row of moments."""

from hypothesis import given
from hypothesis import strategies as st

from taskq.worker.autoscale import IDLE, Autoscale


def test_waiting_jobs_make_it_grow_when_no_child_is_free():
    scale = Autoscale(10, 2)

    assert 4 == scale.look(0.0, 2, busy=2, waiting=5)


def test_it_grows_by_what_waits():
    assert 5 == Autoscale(10, 2).look(0.0, 4, busy=4, waiting=1)


def test_nothing_grows_while_a_child_is_free():
    assert 4 == Autoscale(10, 2).look(0.0, 4, busy=3, waiting=9)


def test_children_that_are_only_coming_count_as_free():
    scale = Autoscale(10, 1)

    assert 2 == scale.look(0.0, 1, busy=1, waiting=9)
    assert 2 == scale.look(0.1, 2, busy=1, waiting=8)


def test_there_are_never_more_than_the_most():
    assert 3 == Autoscale(3, 1).look(0.0, 2, busy=2, waiting=100)


def test_what_was_not_needed_for_a_while_goes():
    scale = Autoscale(10, 1)
    scale.look(0.0, 8, busy=8, waiting=0)

    assert 8 == scale.look(IDLE - 1, 8, busy=3, waiting=0)
    assert 3 == scale.look(IDLE + 1, 8, busy=2, waiting=0)


def test_there_are_never_less_than_the_least():
    scale = Autoscale(10, 2)
    scale.look(0.0, 5, busy=0, waiting=0)

    assert 2 == scale.look(IDLE, 5, busy=0, waiting=0)


def test_new_children_are_given_their_time():
    scale = Autoscale(10, 1)
    scale.look(0.0, 1, busy=1, waiting=0)
    assert 2 == scale.look(IDLE, 1, busy=1, waiting=3)

    assert 2 == scale.look(IDLE + 1, 2, busy=0, waiting=0)
    assert 1 == scale.look(3 * IDLE, 2, busy=0, waiting=0)


def test_bounds_may_change():
    scale = Autoscale(10, 1)
    scale.most, scale.least = 4, 3

    assert 4 == scale.look(0.0, 8, busy=8, waiting=8)
    assert 3 == scale.look(0.1, 1, busy=0, waiting=0)


@given(
    st.lists(st.tuples(st.floats(0.0, 20.0), st.integers(0, 12), st.integers(0, 50)), max_size=60),
    st.integers(1, 5),
    st.integers(0, 6),
)
def test_it_stays_between_its_bounds_and_fires_nobody_who_was_needed(looks, least, more):
    scale, now, children = Autoscale(least + more, least), 0.0, least
    past: list[tuple[float, int]] = []
    for pause, busy, waiting in looks:
        now += pause
        busy = min(busy, children)
        past.append((now, busy))
        wanted = scale.look(now, children, busy, waiting)

        assert least <= wanted <= least + more
        if wanted < children:
            assert wanted >= max(seen for at, seen in past if at > now - IDLE)
        children = wanted
