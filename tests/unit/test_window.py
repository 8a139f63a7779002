"""The window: wide while tasks are short, as narrow as the children where they are long."""

import pytest

from taskq.worker.window import HOLD, Window


def after(window: Window, seconds: float, count: int) -> int:
    for _ in range(count):
        window.ran(seconds)
    return window.width


def test_a_worker_begins_with_one_message_for_each_child():
    assert 4 == Window(4).width


def test_a_few_tasks_say_nothing_yet():
    assert 2 == after(Window(2), 0.0, 7)


def test_short_tasks_open_the_window_at_once():
    assert 256 == after(Window(2), 0.0, 8)


@pytest.mark.parametrize("seconds", [0.06, 1.0, 3600.0])
def test_long_tasks_leave_it_at_one_for_each_child(seconds):
    assert 2 == after(Window(2), seconds, 100)


@pytest.mark.parametrize("seconds", [0.0005, 0.001, 0.005, 0.02])
def test_what_is_held_is_done_within_a_moment(seconds):
    width = after(Window(1), seconds, 50)

    assert HOLD / 2 <= width * seconds <= 1.5 * HOLD


def test_a_rare_long_task_does_not_close_it():
    window = Window(2)
    for _ in range(50):
        after(window, 0.001, 40)
        window.ran(60.0)

    assert window.width >= 30


def test_tasks_that_become_long_close_it():
    window = Window(2)
    after(window, 0.0, 100)

    assert 2 == after(window, 0.2, 40)


def test_it_does_not_flicker():
    window = Window(2)
    after(window, 0.001, 20)

    changes = sum(window.ran(0.0008 if turn % 2 else 0.0012) for turn in range(500))

    assert changes <= 1


def test_a_standstill_closes_it_and_short_tasks_open_it_again():
    window = Window(2)
    after(window, 0.0, 8)

    assert window.close(HOLD)
    assert 2 == window.width
    assert not window.close(HOLD)
    assert after(window, 0.0, 100) > 100


def test_a_chosen_width_stays():
    window = Window(2, fixed=10)

    assert 10 == after(window, 0.0, 100)
    assert 10 == after(window, 10.0, 100)
    assert not window.close(10.0)


def test_it_follows_the_number_of_children():
    window = Window(2)
    after(window, 0.0, 100)

    assert window.staff(3)
    assert 384 == window.width
    assert 3 == after(window, 1.0, 100)


def test_a_choice_for_each_child_follows_them():
    window = Window(2, each=4)

    assert 8 == after(window, 0.0, 100)
    assert window.staff(3)
    assert 12 == after(window, 10.0, 100)


def test_a_choice_for_all_children_does_not():
    window = Window(2, fixed=10)

    assert not window.staff(3)
    assert 10 == window.width
