"""How the options of a call, its route, its task and the settings become one."""

import pytest

from taskq.client.options import CallOptions, Options, Signature


def test_the_strongest_layer_is_the_last():
    task, route, call = {"queue": "t", "priority": 1}, {"queue": "r"}, {"priority": 5}

    merged = Options.merged(task, route, call)

    assert (merged.queue, merged.priority) == ("r", 5)


def test_places_of_different_layers_are_not_mixed():
    route = {"exchange": "e", "routing_key": "k", "priority": 3}

    assert Options.merged(route, {"queue": "q"}) == Options(queue="q", priority=3)
    assert Options.merged({"queue": "q"}, route) == Options(
        exchange="e", routing_key="k", priority=3
    )
    assert Options.merged(route, {"routing_key": "l", "queue": None}) == Options(
        exchange="e", routing_key="l", priority=3
    )


def test_none_gives_way_and_zero_does_not():
    merged = Options.merged({"queue": "t", "priority": 3}, {"queue": None, "priority": 0})

    assert (merged.queue, merged.priority) == ("t", 0)


def test_an_unknown_option_names_the_one_that_was_meant():
    with pytest.raises(TypeError, match="'qeue'; did you mean 'queue'"):
        Options.merged({"qeue": "x"})


def test_what_callers_may_say_is_what_options_know():
    assert set(CallOptions.__annotations__) <= set(Options._fields)


def test_a_signature_is_a_value_and_set_makes_another():
    first = Signature("t", (1,), {"k": 2})
    second = first.set(queue="q").set(priority=3)

    assert first == Signature("t", (1,), {"k": 2})
    assert first.options == {}
    assert second.options == {"queue": "q", "priority": 3}
