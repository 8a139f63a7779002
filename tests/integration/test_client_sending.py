"""Sending on every kind of broker: what arrives is what was called; errors say what happened."""

import asyncio
import os
import subprocess
import sys
import threading
import uuid
from datetime import UTC, datetime, timedelta

import pytest

from taskq import (
    ConfigurationError,
    EncodeError,
    PublishError,
    PublishRefused,
    Retry,
    TaskQ,
    Undeliverable,
    clock,
    hooks,
)
from taskq.client.context import Request, running
from taskq.wire import task as wire
from taskq.wire.headers import read_headers
from tests.support.site import Site

LIMIT = 1 << 20
ACCEPT = ("json", "msgpack")


@pytest.fixture(params=["memory", "sqlite", "amqp"])
def site(request, tmp_path):
    """A broker of each kind."""
    urls = {
        "memory": lambda: f"memory://{uuid.uuid4().hex}",
        "sqlite": lambda: f"sqlite:///{tmp_path}/taskq.db",
        "amqp": lambda: request.getfixturevalue("rabbit").url,
    }
    site = Site(urls[request.param]())
    yield site
    for app in site.apps:
        app.close()


@pytest.fixture
def app(site):
    return site.app(result_backend="disabled://")


def take(site, queue="default", count=1):
    """The next *count* messages of *queue* as (headers, arguments, message)."""
    return [
        (read_headers(message), wire.open_body(message, ACCEPT, LIMIT), message)
        for message in site.take(queue, count)
    ]


# -- what arrives ----------------------------------------------------------------------------------


def test_a_call_arrives_as_it_was_made(site, app):
    @app.task(name="proj.add")
    def add(x, y=0):
        pass

    result = add.delay(1, y=2)

    ((headers, body, message),) = take(site)
    assert (headers.task, headers.id, headers.root_id) == ("proj.add", result.id, result.id)
    assert (body.args, body.kwargs) == ((1,), {"y": 2})
    assert (headers.parent_id, headers.retries, headers.eta) == (None, 0, None)
    assert headers.ignore_result is False
    assert headers.origin.startswith(f"gen{os.getpid()}@")
    assert uuid.UUID(result.id).version == 4
    assert message.properties.delivery_mode == 2


def test_the_options_of_a_call_travel_with_it(site, app):
    when = datetime.now(UTC) + timedelta(hours=3)
    app.send_task(
        "t",
        (1,),
        queue="other",
        task_id="my-id",
        headers={"tenant": "blue"},
        serializer="msgpack",
        compression="gzip",
        priority=0,
        expires=when,
        time_limit=9,
        soft_time_limit=5.5,
        shadow="s",
        ignore_result=True,
    )

    ((headers, body, message),) = take(site, "other")
    assert headers.id == "my-id"
    assert headers.extra == {"tenant": "blue"}
    assert headers.expires == pytest.approx(when.timestamp())
    assert (headers.time_limit, headers.soft_time_limit) == (9, 5.5)
    assert (headers.shadow, headers.ignore_result) == ("s", True)
    assert body.args == (1,)
    assert message.properties.content_type == "application/x-msgpack"
    assert message.headers["compression"] == "application/x-gzip"


def test_call_wins_over_route_over_task_over_settings(site, app):
    app.conf.update(task_default_queue="settings", task_routes={"routed": "route"})
    plain = app.task(name="plain")(lambda: None)
    owned = app.task(name="owned", queue="task", expires=60)(lambda: None)
    routed = app.task(name="routed", queue="task")(lambda: None)

    plain.delay()
    owned.delay()
    routed.delay()
    routed.apply_async(queue="call")

    assert [site.count(queue) for queue in ("settings", "task", "route", "call")] == [1, 1, 1, 1]
    ((headers, _, _),) = take(site, "task")
    assert headers.expires > clock.wall()


def test_a_prefix_is_part_of_the_brokers_name_only(site, app):
    app.conf.queue_prefix = "dev-"
    app.send_task("t", queue="q")

    assert site.count("dev-q") == 1


def test_many_calls_arrive_in_order(site, app):
    @app.task(name="t")
    def work(n):
        pass

    calls = [work.s(n).set(queue="q") for n in range(50)] + [app.signature("u", (50,), queue="q")]
    results = app.send_many(calls)

    arrived = take(site, "q", 51)
    assert [body.args for _, body, _ in arrived] == [(n,) for n in range(51)]
    assert [headers.id for headers, _, _ in arrived] == [result.id for result in results]
    assert arrived[50][0].task == "u"


def test_coroutines_send_too(site, app):
    @app.task(name="t")
    def work(n):
        pass

    async def main():
        sent = await asyncio.gather(*(work.adelay(n) for n in range(20)))
        return [*sent, await app.asend_task("t", (20,))]

    results = asyncio.run(main())

    arrived = take(site, count=21)
    assert {headers.id for headers, _, _ in arrived} == {result.id for result in results}


def test_what_a_hook_adds_travels_and_what_was_sent_is_told(site, app):
    told = []

    def before(*, task, headers, **_):
        headers["trace"] = f"trace of {task}"

    def after(*, task_id, routing_key, headers, **_):
        told.append((task_id, routing_key, headers))

    hooks.before_publish(before)
    hooks.after_publish(after)
    try:
        result = app.send_task("t")
    finally:
        hooks.before_publish.disconnect(before)
        hooks.after_publish.disconnect(after)

    ((headers, _, _),) = take(site)
    assert headers.extra == {"trace": "trace of t"}
    assert told == [(result.id, "default", {"trace": "trace of t"})]


# -- later -----------------------------------------------------------------------------------------


def test_a_delayed_call_is_not_there_before_its_time(site, app):
    app.send_task("late", countdown=3600)
    app.send_task("late", eta=datetime.now(UTC) + timedelta(hours=1))
    app.send_task("early", eta=datetime.now(UTC) - timedelta(hours=1))
    app.send_task("soon", countdown=0.2)

    arrived = {headers.task: headers for headers, _, _ in take(site, count=2)}
    assert set(arrived) == {"early", "soon"}
    assert arrived["soon"].eta is not None
    assert site.count("default") == 0


def test_a_time_without_zone_is_in_the_apps_zone(site, app):
    app.conf.timezone = "Asia/Tokyo"
    app.send_task("t", eta=datetime(2020, 1, 1, 9))

    ((headers, _, _),) = take(site)
    assert headers.eta == datetime(2020, 1, 1, 0, tzinfo=UTC).timestamp()


@pytest.mark.parametrize("wrong", [{"countdown": float("nan")}, {"expires": "soon"}])
def test_a_time_that_is_none_is_refused(site, app, wrong):
    with pytest.raises(ValueError, match="give seconds or a datetime"):
        app.send_task("t", **wrong)


# -- inside a task ---------------------------------------------------------------------------------


def run_of(task, **fields):
    request = Request(
        task=task.name,
        id="run-1",
        args=(1,),
        root_id="root",
        parent_id="parent",
        headers={"tenant": "blue"},
        delivery_info={"exchange": "", "routing_key": "default", "priority": 0},
        reply_to="reply-queue",
        called_directly=False,
    )
    for name, value in fields.items():
        setattr(request, name, value)
    return running(request)


def test_what_a_task_sends_is_its_child(site, app):
    task = app.task(name="t")(lambda: None)
    with run_of(task):
        task.delay()

    ((headers, _, _),) = take(site)
    assert (headers.root_id, headers.parent_id) == ("root", "run-1")


def test_a_further_try_is_the_same_run_with_one_more_retry(site, app):
    @app.task(name="t", bind=True)
    def work(self, x):
        raise self.retry(countdown=0)

    work.delay(0)
    with run_of(work, retries=1) as request, pytest.raises(Retry) as asked:
        work.invoke((1,), {})
    work.send_again(request, asked.value)

    _first, (headers, body, message) = take(site, count=2)
    assert (headers.id, headers.retries, headers.task) == ("run-1", 2, "t")
    assert (headers.root_id, headers.parent_id) == ("root", "parent")
    assert headers.extra == {"tenant": "blue"}
    assert message.properties.reply_to == "reply-queue"
    assert body.args == (1,)


def test_a_further_try_may_differ_and_wait(site, app):
    @app.task(name="t", bind=True)
    def work(self, x):
        raise self.retry(args=(x + 1,), countdown=0.1, queue="slow")

    with run_of(work) as request, pytest.raises(Retry) as asked:
        work.invoke((1,), {})
    work.send_again(request, asked.value)

    ((headers, body, _),) = take(site, "slow")
    assert (headers.id, headers.retries, body.args) == ("run-1", 1, (2,))
    assert headers.eta is not None


def test_a_further_try_goes_back_where_it_came_from_whatever_the_prefix(site, app):
    app.conf.queue_prefix = "dev-"
    task = app.task(name="t")(lambda x: None)
    app.send_task("other", queue="q")
    info = {"exchange": "", "routing_key": "dev-q"}
    with run_of(task, delivery_info=info) as request:
        task.send_again(request, Retry())

    assert site.count("dev-q") == 2


def test_a_retry_that_does_not_throw_is_sent_at_once(site, app):
    @app.task(name="t", bind=True)
    def work(self, x):
        return self.retry(countdown=0, throw=False).when

    work.delay(0)
    with run_of(work):
        assert work.invoke((1,), {}) == 0

    assert site.count("default") == 2


# -- refused ---------------------------------------------------------------------------------------


def test_an_exchange_that_is_not_there_refuses_and_disturbs_nobody(site, app):
    app.conf.task_publish_retry_policy = {"max_retries": 1}
    wrong, right = [], []

    def send_wrong():
        for _ in range(3):
            try:
                app.send_task("lost", exchange="nowhere", routing_key="k", task_id="lost-1")
            except PublishRefused as error:
                wrong.append(str(error))

    def send_right():
        right.extend(app.send_task("kept").id for _ in range(50))

    threads = [threading.Thread(target=send) for send in (send_wrong, send_right)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(wrong) == 3
    assert "lost[lost-1] was not queued in exchange 'nowhere' with routing key 'k' on " in wrong[0]
    assert "guest:guest" not in wrong[0]
    assert {headers.id for headers, _, _ in take(site, count=50)} == set(right)


def test_a_refused_call_among_many_is_named_and_the_others_are_queued(site, app):
    app.conf.task_publish_retry_policy = {"max_retries": 0}
    calls = [app.signature("t") for _ in range(3)]
    calls[1] = calls[1].set(exchange="nowhere", task_id="lost-1")

    with pytest.raises(ExceptionGroup, match="1 of 3 calls") as caught:
        app.send_many(calls)

    (error,) = caught.value.exceptions
    assert isinstance(error, PublishRefused)
    assert "t[lost-1]" in str(error)
    assert site.count("default") == 2


def test_what_cannot_travel_is_refused_before_anything_is_sent(site, app):
    app.conf.task_max_payload = 1000
    with pytest.raises(EncodeError, match="args"):
        app.send_task("t", (object(),))
    with pytest.raises(
        EncodeError, match=r"t\[.*\] take 1,.* bytes, and task_max_payload allows 1,000"
    ):
        app.send_task("t", ("x" * 1000,))
    with pytest.raises(ValueError, match="'task'"):
        app.send_task("t", headers={"task": "other"})
    with pytest.raises(ValueError, match="priority is 256"):
        app.send_task("t", priority=256)
    with pytest.raises(EncodeError):
        app.send_many([app.signature("t"), app.signature("t", (object(),))])
    with pytest.raises(TypeError, match="did you mean 'queue'"):
        app.send_task("t", queu="q")

    assert site.count("default") == 0


def test_an_unlisted_queue_is_refused_with_the_names_there_are(site, app):
    app.conf.update(task_queues=["a", "default"], task_create_missing_queues=False)

    with pytest.raises(ConfigurationError, match=r"queue 'b' is not in task_queues \(a, default\)"):
        app.send_task("t", queue="b")


# -- exchanges from settings -----------------------------------------------------------------------


def test_topic_and_fanout_exchanges_reach_the_queues_bound_to_them(site, app):
    app.conf.task_queues = {
        "a": {"exchange": "events", "type": "topic", "routing_key": "shop.*"},
        "b": {"exchange": "events", "type": "topic", "routing_key": "#"},
        "c": {"exchange": "loud", "type": "fanout"},
        "d": {"exchange": "loud", "type": "fanout"},
        "default": None,
    }
    app.send_task("t", exchange="events", routing_key="shop.sale")
    app.send_task("t", exchange="events", routing_key="other")
    app.send_task("t", exchange="loud")

    assert [site.count(queue) for queue in "abcd"] == [1, 2, 1, 1]


# -- processes -------------------------------------------------------------------------------------


#: A memory broker is one process's.
across_processes = pytest.mark.parametrize("site", ["sqlite", "amqp"], indirect=True)


@across_processes
def test_many_threads_and_a_forked_child_send_each_call_once(site, app):
    def send(name):
        for number in range(100):
            app.send_task("t", (name, number))

    send("before")
    threads = [threading.Thread(target=send, args=(f"thread-{each}",)) for each in range(4)]
    for thread in threads:
        thread.start()
    child = os.fork()
    if child == 0:
        try:
            send("child")
            app.close()
        finally:
            os._exit(0)
    for thread in threads:
        thread.join()
    assert os.waitpid(child, 0)[1] == 0
    send("after")

    names = ["before", "after", "child", *(f"thread-{each}" for each in range(4))]
    arrived = [tuple(body.args) for _, body, _ in take(site, count=700)]
    assert sorted(arrived) == sorted((name, number) for name in names for number in range(100))
    assert site.count("default") == 0


@across_processes
def test_a_program_that_sends_and_ends_leaves_no_call_behind(site):
    code = (
        "import sys; from taskq import TaskQ; app = TaskQ(broker=sys.argv[1]);"
        "[app.send_task('t', (n,)) for n in range(10)]"
    )
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, site.url],
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")
    assert site.count("default") == 10


def test_an_app_can_be_used_again_after_it_was_closed(site, app):
    app.send_task("t")
    app.close()
    app.close()
    app.send_task("t")

    assert site.count("default") == 2


def test_a_broker_that_is_not_there_is_named_within_the_timeout():
    app = TaskQ(
        broker="amqp://me:secret@127.0.0.1:1//",
        publish_timeout=0.5,
        result_backend="disabled://",
    )
    try:
        with pytest.raises(PublishError) as caught:
            app.send_task("t", task_id="i")
    finally:
        app.close()

    assert isinstance(caught.value, PublishRefused)
    assert "t[i] was not queued in queue 'default'" in str(caught.value)
    assert "secret" not in str(caught.value)


# -- other outlets ---------------------------------------------------------------------------------


class Fussy:
    """An outlet that refuses the first messages and passes the others on."""

    def __init__(self, outlet, refusals):
        self.outlet = outlet
        self.refusals = refusals
        self.seen = []

    def publish(self, message, route, done, **options):
        self.seen.append((message.headers["id"], options["confirm"]))
        if self.refusals:
            self.refusals -= 1
            done(PublishRefused("the queue is full"))
        else:
            self.outlet.publish(message, route, done, **options)

    def close(self, timeout=5.0):
        self.outlet.close(timeout)


def test_a_refusal_is_tried_again_as_the_policy_says(site, app):
    app.conf.task_publish_retry_policy = {"max_retries": 2, "interval_step": 0.01}
    fussy = Fussy(app.producer.outlet, refusals=2)
    app.use_outlet(fussy)

    first = app.send_task("t")
    fussy.refusals = 3
    with pytest.raises(PublishRefused, match="the queue is full"):
        app.send_task("t")
    asyncio.run(app.asend_task("t"))

    assert [id for id, _ in fussy.seen[:3]] == [first.id] * 3
    assert len(fussy.seen) == 7
    assert site.count("default") == 2


def test_what_leads_nowhere_is_refused_at_once_and_not_tried_again(site, app):
    fussy = Fussy(app.producer.outlet, refusals=0)
    app.use_outlet(fussy)

    for send in (app.send_task, lambda *args, **to: asyncio.run(app.asend_task(*args, **to))):
        with pytest.raises(
            Undeliverable, match="t\\[lost-1\\] was not queued in exchange 'nowhere'"
        ):
            send("t", exchange="nowhere", routing_key="k", task_id="lost-1")
    with pytest.raises(ExceptionGroup) as caught:
        app.send_many(
            [app.signature("t", exchange="nowhere", task_id="lost-2"), app.signature("t")]
        )

    assert [Undeliverable] == [type(error) for error in caught.value.exceptions]
    assert [id for id, _ in fussy.seen[:3]] == ["lost-1", "lost-1", "lost-2"]
    assert len(fussy.seen) == 4


def test_an_outlet_that_is_given_is_used_and_told_whether_to_confirm(site, app):
    fussy = Fussy(app.producer.outlet, refusals=0)
    app.use_outlet(fussy)

    app.send_task("t")
    app.send_task("t", confirm=True)

    assert [confirm for _, confirm in fussy.seen] == [False, True]
    assert site.count("default") == 2
