"""Where messages go: queues from settings, routes, and a call's options."""

import re

import pytest

from taskq.broker.base import Queue, Route
from taskq.client.options import Options
from taskq.client.router import RouterTable
from taskq.errors import ConfigurationError


def table(queues=None, routes=None, **more):
    more.setdefault("default", "default")
    return RouterTable(queues=queues, routes=routes, **more)


def resolve(router, **options):
    return router.resolve(Options.merged(options))


def said(router, name, args=(), kwargs=None, options=None):
    return router.said(name, args, kwargs or {}, options or {})


# -- queues ----------------------------------------------------------------------------------------


def test_without_settings_everything_goes_to_the_default_queue():
    default = Queue("default")

    assert resolve(table()) == Route("", "default", (default,))
    assert table().worker_queues() == [default]


def test_a_queue_is_made_when_first_named():
    assert resolve(table(), queue="video") == Route("", "video", (Queue("video"),))


def test_an_unlisted_queue_is_refused_where_none_may_be_made():
    router = table(["a", "b"], default="a", create_missing=False)

    with pytest.raises(ConfigurationError, match=r"'c' is not in task_queues \(a, b\)"):
        resolve(router, queue="c")
    with pytest.raises(ConfigurationError, match="'c'"):
        router.worker_queues(["c"])


def test_queues_are_names_or_mappings():
    arguments = {"x-max-length": 5}
    as_list = table(
        [
            "plain",
            {"name": "t", "exchange": "x", "type": "topic", "routing_key": "a.#"},
            {"name": "p", "max_priority": 9, "queue_arguments": arguments},
        ]
    )
    as_mapping = table(
        {
            "plain": None,
            "t": {"exchange": "x", "exchange_type": "topic", "binding_key": "a.#"},
            "p": {"max_priority": 9, "arguments": arguments},
        }
    )

    assert as_list.queues == as_mapping.queues
    assert as_list.queues == {
        "plain": Queue("plain"),
        "t": Queue("t", "x", "topic", "a.#"),
        "p": Queue("p", arguments=arguments, max_priority=9),
    }


@pytest.mark.parametrize(
    ("queues", "words"),
    [
        ({"q": {"exchnge": "x"}}, "did you mean 'exchange'"),
        ({"q": {"exchange": "x", "type": "fan-out"}}, "fan-out"),
        ({"q": {"type": "topic"}}, "has a type, but no exchange"),
        ([{"exchange": "x"}], "has no name"),
    ],
)
def test_a_mistake_in_task_queues_is_named(queues, words):
    with pytest.raises(ConfigurationError, match=words):
        table(queues)


def test_the_prefix_is_put_before_every_queue_once():
    router = table(["a"], default="a", physical="dev-".__add__)

    assert resolve(router).routing_key == "dev-a"
    assert resolve(router, queue="b").declare[0].name == "dev-b"
    assert [queue.name for queue in router.worker_queues(["a", "c"])] == ["dev-a", "dev-c"]


def test_a_maximal_priority_for_all_gives_way_to_a_queues_own():
    router = table({"a": None, "b": {"max_priority": 3}}, max_priority=9)

    assert [router.queue(name).max_priority for name in "abc"] == [9, 3, 9]


def test_a_worker_takes_from_all_queues_or_those_it_is_told():
    router = table(["a", "b"])

    assert [queue.name for queue in router.worker_queues()] == ["a", "b"]
    assert [queue.name for queue in router.worker_queues(["b", "b", "new"])] == ["b", "new"]


# -- places ----------------------------------------------------------------------------------------

_BOUND = {
    "topic-a": {"exchange": "events", "type": "topic", "routing_key": "a.*"},
    "topic-b": {"exchange": "events", "type": "topic", "routing_key": "b.*"},
    "all": {"exchange": "loud", "type": "fanout"},
    "direct": {"exchange": "exact", "routing_key": "key"},
}


def test_a_queue_on_a_direct_exchange_is_reached_by_its_name_alone():
    router = table(_BOUND)

    assert resolve(router, queue="direct") == Route("", "direct", (router.queues["direct"],))
    assert resolve(router, queue="direct", routing_key="other").routing_key == "direct"


def test_a_queue_on_a_topic_exchange_is_reached_through_it():
    router = table(_BOUND)
    queue = router.queues["topic-a"]

    assert resolve(router, queue="topic-a") == Route("events", "a.*", (queue,))
    assert resolve(router, queue="topic-a", routing_key="a.x") == Route("events", "a.x", (queue,))


def test_a_fanout_exchange_needs_no_key():
    router = table(_BOUND)

    assert resolve(router, queue="all") == Route("loud", "", (router.queues["all"],))
    assert resolve(router, exchange="loud") == Route("loud", "", (router.queues["all"],))


def test_an_exchange_brings_all_queues_bound_to_it():
    router = table(_BOUND)
    route = resolve(router, exchange="events", routing_key="b.1")

    assert (route.exchange, route.routing_key) == ("events", "b.1")
    assert {queue.name for queue in route.declare} == {"topic-a", "topic-b"}


def test_an_exchange_that_is_not_in_the_settings_is_taken_as_it_is():
    assert resolve(table(), exchange="foreign", routing_key="k") == Route("foreign", "k", ())


def test_an_exchange_with_a_queue_takes_the_queues_key():
    router = table(_BOUND)

    assert resolve(router, exchange="exact", queue="direct").routing_key == "key"


def test_a_routing_key_alone_names_a_queue():
    assert resolve(table(), routing_key="video") == Route("", "video", (Queue("video"),))


def test_a_routing_key_alone_is_for_the_default_queues_exchange_if_that_reads_keys():
    router = table(_BOUND, default="topic-a")

    assert resolve(router, routing_key="a.x").exchange == "events"


# -- routes ----------------------------------------------------------------------------------------


def test_routes_match_exactly_before_they_match_by_pattern():
    router = table(
        routes={"feed.*": "globbed", "feed.tasks.load": {"queue": "exact", "priority": 3}}
    )

    assert said(router, "feed.tasks.load") == {"queue": "exact", "priority": 3}
    assert said(router, "feed.other") == {"queue": "globbed"}
    assert said(router, "feeds") == {}


def test_patterns_match_in_order():
    routes = [(re.compile(r"(video|image)\.tasks\..*"), "media"), ("*", "rest")]

    assert said(table(routes=routes), "image.tasks.crop") == {"queue": "media"}
    assert said(table(routes=routes), "other") == {"queue": "rest"}


def test_a_function_sees_the_call_and_may_pass():
    seen = []

    def by_size(name, args, kwargs, options, task=None):
        seen.append((name, args, kwargs, options))
        return "big" if args and args[0] > 100 else None

    router = table(routes=[by_size, {"t": "small"}])

    assert said(router, "t", (101,), {"k": 1}, {"priority": 2}) == {"queue": "big"}
    assert said(router, "t", (1,)) == {"queue": "small"}
    assert seen[0] == ("t", (101,), {"k": 1}, {"priority": 2})


def elsewhere(name, args, kwargs, options, task=None):
    return "elsewhere"


def test_a_router_may_be_named():
    assert said(table(routes=f"{__name__}.elsewhere"), "t") == {"queue": "elsewhere"}
    assert said(table(routes=[f"{__name__}:elsewhere"]), "t") == {"queue": "elsewhere"}
    with pytest.raises(ConfigurationError, match="cannot be imported"):
        table(routes=f"{__name__}.nowhere")


@pytest.mark.parametrize("routes", [{"t": 5}, 5, [5]])
def test_a_route_that_is_none_is_refused_at_once(routes):
    with pytest.raises(ConfigurationError, match="task_routes"):
        table(routes=routes)
