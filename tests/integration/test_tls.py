"""TLS to servers with an authority of their own: who is trusted, who is not, who is told."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from taskq import ConfigurationError, TaskQ
from taskq.backends.base import BackendOptions
from taskq.backends.redis import RedisBackend
from taskq.broker.amqp import AmqpBroker
from taskq.broker.base import BrokerOptions, Queue
from taskq.errors import BackendUnavailable, BrokerUnavailable
from tests.support.amqp import Bench, to
from tests.support.authority import Authority, Certificate
from tests.support.ports import free_port
from tests.support.process import APP, StartWorker
from tests.support.rabbit import RabbitNode
from tests.support.redis_server import RedisServer
from tests.support.wait import wait_until


class Trust:
    """Who vouches for whom in this module's tests."""

    def __init__(self, ours: Path, theirs: Path) -> None:
        ours.mkdir()
        theirs.mkdir()
        authority, stranger = Authority(ours), Authority(theirs)
        self.authority = authority.certificate
        self.stranger = stranger.certificate
        self.server = authority.issue("server", "DNS:localhost")
        self.client = authority.issue("client")
        self.unknown_client = stranger.issue("client")


class Amqps:
    """A RabbitMQ node with a TLS port beside the plain one."""

    def __init__(self, trust: Trust, *, demanding: bool) -> None:
        self.port = free_port()
        self.node = RabbitNode(
            f"listeners.ssl.1 = 127.0.0.1:{self.port}\n"
            f"ssl_options.cacertfile = {trust.authority}\n"
            f"ssl_options.certfile = {trust.server.certificate}\n"
            f"ssl_options.keyfile = {trust.server.key}\n"
            f"ssl_options.verify = {'verify_peer' if demanding else 'verify_none'}\n"
            f"ssl_options.fail_if_no_peer_cert = {str(demanding).lower()}\n"
        )

    def __enter__(self) -> "Amqps":
        self.node.start()
        wait_for_port(self.port)
        return self

    def __exit__(self, *_: object) -> None:
        self.node.close()

    def url(self, host: str = "localhost", **options: str) -> str:
        query = "&".join(f"{name}={value}" for name, value in options.items())
        return f"amqps://guest:guest@{host}:{self.port}/%2F{'?' if query else ''}{query}"


class Rediss:
    """A Redis server with a TLS port beside the plain one."""

    def __init__(self, trust: Trust, *, demanding: bool) -> None:
        self.port = free_port()
        self.server = RedisServer(
            {
                "tls-port": str(self.port),
                "tls-cert-file": trust.server.certificate,
                "tls-key-file": trust.server.key,
                "tls-ca-cert-file": trust.authority,
                "tls-auth-clients": "yes" if demanding else "no",
            }
        )

    def __enter__(self) -> "Rediss":
        self.server.start()
        wait_for_port(self.port)
        return self

    def __exit__(self, *_: object) -> None:
        self.server.close()

    def url(self, host: str = "localhost", **options: str) -> str:
        query = "&".join(f"{name}={value}" for name, value in options.items())
        password = self.server.password
        return f"rediss://:{password}@{host}:{self.port}/0{'?' if query else ''}{query}"


def wait_for_port(port: int) -> None:
    def answers() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    wait_until(answers, f"port {port} to be listened on")


@pytest.fixture(scope="module")
def trust(tmp_path_factory: pytest.TempPathFactory) -> Trust:
    folder = tmp_path_factory.mktemp("tls")
    return Trust(folder / "ours", folder / "theirs")


@pytest.fixture(scope="module")
def amqps(trust: Trust) -> Iterator[Amqps]:
    """A node that shows its certificate and asks for none."""
    with Amqps(trust, demanding=False) as amqps:
        yield amqps


@pytest.fixture(scope="module")
def demanding_amqps(trust: Trust) -> Iterator[Amqps]:
    """A node that also wants to know who comes."""
    with Amqps(trust, demanding=True) as amqps:
        yield amqps


@pytest.fixture(scope="module")
def rediss(trust: Trust) -> Iterator[Rediss]:
    with Rediss(trust, demanding=False) as rediss:
        yield rediss


@pytest.fixture(scope="module")
def demanding_rediss(trust: Trust) -> Iterator[Rediss]:
    with Rediss(trust, demanding=True) as rediss:
        yield rediss


def broker_refusal(url: str, **ssl: object) -> str:
    """Why the broker at *url* could not be used."""
    options = BrokerOptions((url,), connect_timeout=5.0, ssl=ssl)
    with pytest.raises(BrokerUnavailable) as caught:
        AmqpBroker(options).count("q")
    said = str(caught.value)
    assert "guest:guest" not in said
    return said


def store_refusal(url: str) -> str:
    """Why the store at *url* could not be used."""
    backend = RedisBackend(BackendOptions(url))
    with pytest.raises(BackendUnavailable) as caught:
        backend.fetch("some-id")
    said = str(caught.value)
    assert "open-sesame" not in said
    return said


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [each.getMessage() for each in caplog.records if "is not verified" in each.getMessage()]


# -- a task goes round -----------------------------------------------------------------------------


def test_a_task_and_its_result_travel_by_tls(
    amqps: Amqps, rediss: Rediss, trust: Trust, worker_process: StartWorker
) -> None:
    places = {
        "TASKQ_BROKER_URL": amqps.url(cacertfile=trust.authority),
        "TASKQ_RESULT_BACKEND": rediss.url(ssl_ca_certs=trust.authority),
    }
    worker = worker_process(APP, "--app=tasks", "--concurrency=1", env=places)
    worker.wait_for("worker-ready")
    producer = TaskQ(
        "producer", broker=places["TASKQ_BROKER_URL"], backend=places["TASKQ_RESULT_BACKEND"]
    )
    try:
        assert 5 == producer.send_task("tasks.add", (2, 3)).get(timeout=30)
    finally:
        producer.close()


@pytest.mark.parametrize("where", ["broker_use_ssl", "url"])
def test_a_broker_is_trusted_by_the_authority_that_is_named(
    amqps: Amqps, trust: Trust, where: str
) -> None:
    if where == "url":
        bench = Bench(amqps.url(cacertfile=trust.authority))
    else:  # which also makes TLS of amqp://, as in Celery
        plain = amqps.url().replace("amqps://", "amqp://")
        bench = Bench(plain, ssl={"ca_certs": trust.authority})
    try:
        outlet, hands = bench.outlet(), bench.intake(Queue(where))
        bench.send(outlet, to(where), "one")
        bench.confirm("one")
        hands.intake.ack(hands.wait()[0])
    finally:
        bench.close()


# -- who is not trusted ----------------------------------------------------------------------------


def test_a_server_whose_authority_is_unknown_is_refused(
    amqps: Amqps, rediss: Rediss, trust: Trust
) -> None:
    for said in (broker_refusal(amqps.url()), broker_refusal(amqps.url(cacertfile=trust.stranger))):
        assert f"guest:***@localhost:{amqps.port}" in said
        assert "certificate verify failed" in said
        assert "name the authority that signed it by ca_certs in broker_use_ssl" in said
    for url in (rediss.url(), rediss.url(ssl_ca_certs=trust.stranger)):
        said = store_refusal(url)
        assert f":***@localhost:{rediss.port}" in said
        assert "certificate verify failed" in said
        assert "name the authority that signed it by ssl_ca_certs in the URL" in said


def test_a_server_with_another_name_is_refused(amqps: Amqps, rediss: Rediss, trust: Trust) -> None:
    for said in (
        broker_refusal(amqps.url("127.0.0.1", cacertfile=trust.authority)),
        store_refusal(rediss.url("127.0.0.1", ssl_ca_certs=trust.authority)),
    ):
        assert "not valid for '127.0.0.1'" in said
        assert "use the host name in the certificate" in said


def test_a_worker_that_does_not_trust_its_broker_says_so_and_goes_on_trying(
    amqps: Amqps, worker_process: StartWorker
) -> None:
    worker = worker_process(APP, "--app=tasks", env={"TASKQ_BROKER_URL": amqps.url()})

    for _ in range(2):
        failed = worker.wait_for("connection-failed", role="listener")
        assert "certificate verify failed" in failed["reason"]
        assert "cacertfile" in failed["reason"]
    assert "guest:guest" not in worker.log()


@contextmanager
def listening_in() -> Iterator[tuple[int, list[bytes]]]:
    """A port, and the first bytes that each client sent to it."""
    server = socket.create_server(("127.0.0.1", 0))
    heard: list[bytes] = []

    def listen() -> None:
        while True:
            try:
                client, _ = server.accept()
            except OSError:
                return
            with client:
                heard.append(client.recv(1000))
                client.sendall(b"-ERR no\r\n")

    thread = threading.Thread(target=listen)
    thread.start()
    try:
        yield server.getsockname()[1], heard
    finally:
        server.shutdown(socket.SHUT_RDWR)
        server.close()
        thread.join(10)


def test_nothing_is_said_in_plain_text_to_a_server_that_speaks_no_tls() -> None:
    with listening_in() as (port, heard):
        broker_said = broker_refusal(f"amqps://guest:guest@localhost:{port}/")
        store_said = store_refusal(f"rediss://:open-sesame@localhost:{port}/0")

    assert "it speaks no TLS on this port" in broker_said
    assert "it speaks no TLS on this port" in store_said
    handshake = b"\x16\x03"
    assert len(heard) >= 2
    assert {handshake} == {first[:2] for first in heard}


@pytest.mark.parametrize(
    "make",
    [
        lambda: AmqpBroker(BrokerOptions(("amqp://u:secret@h/?cacertfile=ca.pem",))),
        lambda: RedisBackend(BackendOptions("redis://:secret@h/?ssl_ca_certs=ca.pem")),
    ],
    ids=["amqp", "redis"],
)
def test_tls_options_of_a_plain_url_are_no_false_comfort(make) -> None:
    with pytest.raises(
        ConfigurationError, match=r"is not encrypted.*use (amqps|rediss)://"
    ) as said:
        make()
    assert "secret" not in str(said.value)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: AmqpBroker(BrokerOptions(("amqps://h/?cacertfile=/no/ca",))), "/no/ca"),
        (lambda: AmqpBroker(BrokerOptions(("amqps://h/?verify=maybe",))), "'maybe'"),
        (lambda: RedisBackend(BackendOptions("rediss://h/?ssl_ca_certs=/no/ca")), "/no/ca"),
        (lambda: RedisBackend(BackendOptions("rediss://h/?ssl_cert_reqs=maybe")), "'maybe'"),
        (lambda: RedisBackend(BackendOptions("rediss://h/?ssl_sert_reqs=none")), "ssl_sert_reqs"),
    ],
)
def test_options_of_no_use_are_named_before_anything_connects(make, words) -> None:
    with pytest.raises(ConfigurationError, match=words):
        make()


# -- client certificates ---------------------------------------------------------------------------


def test_a_client_that_is_asked_shows_its_certificate(
    demanding_amqps: Amqps, demanding_rediss: Rediss, trust: Trust
) -> None:
    certificate, key = trust.client
    broker = AmqpBroker(
        BrokerOptions(
            (demanding_amqps.url(),),
            ssl={"ca_certs": trust.authority, "certfile": certificate, "keyfile": key},
        )
    )
    by_url = demanding_amqps.url(cacertfile=trust.authority, certfile=certificate, keyfile=key)
    store = RedisBackend(
        BackendOptions(
            demanding_rediss.url(
                ssl_ca_certs=trust.authority, ssl_certfile=certificate, ssl_keyfile=key
            )
        )
    )

    assert 0 == broker.count("q")
    assert 0 == AmqpBroker(BrokerOptions((by_url,))).count("q")
    assert store.fetch("some-id") is None
    store.close()


def test_a_client_without_a_trusted_certificate_is_told_what_to_do(
    demanding_amqps: Amqps, demanding_rediss: Rediss, trust: Trust
) -> None:
    def refusals(client: Certificate | None) -> Iterator[str]:
        ours = {"certfile": client.certificate, "keyfile": client.key} if client else {}
        yield broker_refusal(demanding_amqps.url(), ca_certs=trust.authority, **ours)
        named = {f"ssl_{name}": value for name, value in ours.items()}
        yield store_refusal(demanding_rediss.url(ssl_ca_certs=trust.authority, **named))

    for client in (None, trust.unknown_client):
        for said in refusals(client):
            assert "name a client certificate that it trusts by" in said
            assert "certfile and" in said
            assert "keyfile" in said


# -- without verification --------------------------------------------------------------------------


def test_verification_can_be_turned_off_and_that_is_said_once(
    amqps: Amqps, rediss: Rediss, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(2):
        assert 0 == AmqpBroker(BrokerOptions((amqps.url(verify="verify_none"),))).count("q")
        options = BrokerOptions((amqps.url("127.0.0.1"),), ssl={"cert_reqs": "CERT_NONE"})
        assert 0 == AmqpBroker(options).count("q")
        store = RedisBackend(BackendOptions(rediss.url(ssl_cert_reqs="CERT_NONE")))
        assert store.fetch("some-id") is None
        store.close()

    warnings = warnings_of(caplog)
    assert 3 == len(warnings), warnings
    for warning, port in zip(warnings, (amqps.port, amqps.port, rediss.port), strict=True):
        assert f":***@{'127.0.0.1' if warning is warnings[1] else 'localhost'}:{port}" in warning


@pytest.mark.parametrize("results", ["redis", "rpc"])
@pytest.mark.parametrize("pool", ["prefork", "solo"])
def test_a_worker_says_of_each_server_once_that_it_is_not_verified(
    amqps: Amqps, rediss: Rediss, worker_process: StartWorker, pool: str, results: str
) -> None:
    settings = {
        "broker_url": amqps.url(verify="verify_none"),
        "result_backend": "rpc://",
    }
    servers = {f"amqps://guest:***@localhost:{amqps.port}/%2F"}
    if results == "redis":
        settings["result_backend"] = rediss.url(ssl_cert_reqs="none")
        servers.add(f"rediss://:***@localhost:{rediss.port}/0")
    worker = worker_process(
        *(APP, "-Q", f"q-{pool}-{results}", "-c", "3", "--pool", pool, "--max-tasks-per-child=2"),
        env={f"TASKQ_{name.upper()}": value for name, value in settings.items()},
    )
    with TaskQ(**settings) as app:
        sent = [
            app.send_task("tasks.add", args=(1, n), queue=f"q-{pool}-{results}") for n in range(12)
        ]
        assert [1 + n for n in range(12)] == [each.get(timeout=60) for each in sent]
    worker.stop()

    said = [event for event in worker.events if event["event"] == "tls-unverified"]
    assert sorted(servers) == sorted(event["server"] for event in said)
    assert worker.log().count("is not verified") == len(servers)
