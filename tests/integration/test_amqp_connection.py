"""How a connection to RabbitMQ is found, refused, secured and kept."""

import logging
import socket
import ssl
import subprocess
import threading
from contextlib import contextmanager

import pytest
from pika import frame, spec

from taskq.broker.amqp import AmqpBroker
from taskq.broker.base import BrokerOptions, Queue
from taskq.broker.connection import parameters
from taskq.errors import BrokerUnavailable, ConfigurationError
from tests.support.amqp import Bench, to


def read(url, **options):
    return parameters(url, BrokerOptions((url,), **options), "test")


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("amqp://", ("localhost", 5672, "/", "guest", "guest")),
        ("amqp://h", ("h", 5672, "/", "guest", "guest")),
        ("amqp://h/", ("h", 5672, "/", "guest", "guest")),
        ("amqp://h//", ("h", 5672, "/", "guest", "guest")),
        ("amqp://h/%2F", ("h", 5672, "/", "guest", "guest")),
        ("amqp://h/%2f", ("h", 5672, "/", "guest", "guest")),
        ("amqp://me@h:1/v", ("h", 1, "v", "me", "guest")),
        ("amqp://m%40e:p%2F%3A@h/a%20b", ("h", 5672, "a b", "m@e", "p/:")),
        ("amqp://[::1]:7/v", ("::1", 7, "v", "guest", "guest")),
        ("amqps://h/v", ("h", 5671, "v", "guest", "guest")),
    ],
)
def test_urls_are_read_as_rabbitmq_describes_them(url, expected):
    read_parameters = read(url)

    credentials = read_parameters.credentials
    assert expected == (
        read_parameters.host,
        read_parameters.port,
        read_parameters.virtual_host,
        credentials.username,
        credentials.password,
    )


@pytest.mark.parametrize(
    ("url", "options", "words"),
    [
        ("amqp://me:secret@h:port/", {}, "Port could not be cast"),
        ("amqp://me:secret@h/?hartbeat=3", {}, "unknown parameter 'hartbeat'"),
        ("amqps://me:secret@h/", {"ssl": {"ca_cert": "x"}}, "unknown option 'ca_cert'"),
        ("amqps://me:secret@h/?cacertfile=/no/such", {}, "No such file"),
    ],
)
def test_a_url_that_cannot_be_used_is_named_without_its_password(url, options, words):
    with pytest.raises(ConfigurationError, match=words) as caught:
        AmqpBroker(BrokerOptions((url,), **options))
    assert "secret" not in str(caught.value)


def test_tls_verifies_unless_told_otherwise():
    verified = read("amqps://h/").ssl_options.context
    unverified = read("amqps://h/?verify=verify_none").ssl_options.context

    assert (ssl.CERT_REQUIRED, True) == (verified.verify_mode, verified.check_hostname)
    assert (ssl.CERT_NONE, False) == (unverified.verify_mode, unverified.check_hostname)
    assert read("amqp://h/").ssl_options is None
    assert read("amqp://h/", ssl={"enabled": True}).ssl_options is not None
    options = read("amqp://h/", ssl={"cert_reqs": "none", "server_hostname": "rabbit"}).ssl_options
    assert ("rabbit", ssl.CERT_NONE) == (options.server_hostname, options.context.verify_mode)


def refusal(url, **options):
    with pytest.raises(BrokerUnavailable) as caught:
        AmqpBroker(BrokerOptions((url,), connect_timeout=1.0, **options)).count("q")
    return str(caught.value)


def test_a_wrong_password_is_said_and_not_shown(rabbit):
    said = refusal(rabbit.url.replace("guest:guest", "guest:secret"))

    assert "403 ACCESS_REFUSED" in said
    assert "Login was refused" in said
    assert "secret" not in said


def test_an_unknown_vhost_is_said(rabbit):
    assert "vhost no-such not found" in refusal(rabbit.url.replace(rabbit.vhost, "no-such"))


@contextmanager
def impostor(answer):
    """The URL of a server that says *answer* to every client and hangs up."""
    server = socket.create_server(("127.0.0.1", 0))

    def serve():
        while True:
            try:
                client, _ = server.accept()
            except OSError:
                return
            with client:
                client.recv(100)
                client.sendall(answer)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield f"amqp://127.0.0.1:{server.getsockname()[1]}/"
    finally:
        server.shutdown(socket.SHUT_RDWR)
        server.close()
        thread.join()


def test_a_server_of_another_kind_is_said():
    with impostor(b"HTTP/1.1 400 Bad Request\r\n\r\n") as url:
        assert "no frame of AMQP 0-9-1" in refusal(url)


def test_the_last_words_of_a_broker_that_hangs_up_are_heard():
    start = spec.Connection.Start(0, 9, {"version": "3.10.8"}, "PLAIN", "en_US")
    close = spec.Connection.Close(530, "NOT_ALLOWED - go away", 0, 0)
    words = b"".join(frame.Method(0, method).marshal() for method in (start, close))

    with impostor(words) as url:
        assert "530 NOT_ALLOWED - go away" in refusal(url)


def test_a_server_that_never_answers_is_given_up():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        broker = AmqpBroker(BrokerOptions((f"amqp://127.0.0.1:{port}/",), connect_timeout=0.2))
        with pytest.raises(BrokerUnavailable):
            broker.count("q")


def test_the_next_url_is_tried_when_one_is_refused(rabbit, caplog):
    bench = Bench("")
    bench.broker = AmqpBroker(BrokerOptions(("amqp://u:secret@127.0.0.1:1/", rabbit.url)))
    try:
        outlet = bench.outlet()
        bench.send(outlet, to("q"), "one")
        bench.confirm("one")
    finally:
        bench.close()

    assert "cannot reach amqp://u:***@127.0.0.1:1/ (outlet): Connection refused" in caplog.text


def test_the_broker_comes_back_and_so_do_outlet_and_intake(rabbit_through_proxy):
    rabbit_through_proxy.cut()
    bench = Bench(rabbit_through_proxy.url)
    try:
        outlet = bench.outlet()
        hands = bench.intake(Queue("q"))
        bench.send(outlet, to("q"), "one")
        bench.loop.turn(0.1)
        rabbit_through_proxy.mend()
        hands.wait()
        rabbit_through_proxy.half_close()
        bench.until(lambda: hands.lost, "the loss")
        bench.send(outlet, to("q"), "two")
        bench.confirm("one", "two")
        hands.wait(3)
    finally:
        bench.close()

    assert {"one", "two"} == set(hands.names())


def test_the_operator_sees_who_is_connected(rabbit):
    bench = Bench(rabbit.url)
    try:
        outlet = bench.outlet()
        bench.send(outlet, to("q"), "one")
        bench.confirm("one")
        listed = rabbit.ctl("list_connections", "vhost", "client_properties")
    finally:
        bench.close()

    (line,) = [line for line in listed.splitlines() if line.startswith(f"{rabbit.vhost}\t")]
    assert '"connection_name","test outlet"' in line
    assert '"product","taskq"' in line


def test_pika_keeps_its_narration_to_itself(bench, caplog):
    with caplog.at_level(logging.DEBUG, "taskq"):
        outlet = bench.outlet()
        bench.send(outlet, to("q"), "one")
        bench.confirm("one")

    assert {"taskq"} == {record.name.split(".")[0] for record in caplog.records}


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A certificate for `localhost` that only itself vouches for, and its key."""
    folder = tmp_path_factory.mktemp("tls")
    certificate, key = folder / "cert.pem", folder / "key.pem"
    command = (
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 "
        f"-subj /CN=localhost -addext subjectAltName=DNS:localhost -keyout {key} -out {certificate}"
    )
    subprocess.run(command.split(), check=True, capture_output=True)
    return certificate, key


class TlsTerminator:
    """Speaks TLS before a plain server, one thread for each direction of each connection."""

    def __init__(self, target, certificate, key) -> None:
        self._target = target
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(certificate, key)
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = self._server.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self):
        while True:
            try:
                plain, _ = self._server.accept()
            except OSError:
                return
            self._threads.append(threading.Thread(target=self._serve, args=(plain,)))
            self._threads[-1].start()

    def _serve(self, plain):
        try:
            client = self._context.wrap_socket(plain, server_side=True)
        except OSError:
            plain.close()
            return
        with client, socket.create_connection(self._target) as server:
            back = threading.Thread(target=self._carry, args=(server, client))
            back.start()
            self._carry(client, server)
            back.join()

    def _carry(self, source, target):
        try:
            while data := source.recv(65_536):
                target.sendall(data)
        except OSError:
            pass
        for end in (source, target):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def close(self):
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        for thread in self._threads:
            thread.join(10)


@pytest.fixture
def tls_port(rabbit, certificate):
    terminator = TlsTerminator(("127.0.0.1", rabbit.node.port), *certificate)
    yield terminator.port
    terminator.close()


def test_messages_travel_by_tls(rabbit, certificate, tls_port):
    bench = Bench(f"amqps://localhost:{tls_port}/{rabbit.vhost}?cacertfile={certificate[0]}")
    try:
        outlet = bench.outlet()
        hands = bench.intake(Queue("q"), window=300)
        names = [f"m{number}" for number in range(300)]
        bench.send(outlet, to("q"), *names)
        bench.confirm(*names)
        hands.wait(300)
    finally:
        bench.close()


def test_a_certificate_that_nobody_vouches_for_is_refused(rabbit, certificate, tls_port):
    assert "certificate verify failed" in refusal(f"amqps://localhost:{tls_port}/{rabbit.vhost}")


def test_a_certificate_for_another_host_is_refused_unless_told_the_name(
    rabbit, certificate, tls_port
):
    url = f"amqps://127.0.0.1:{tls_port}/{rabbit.vhost}"
    ca = {"ca_certs": str(certificate[0])}

    assert "certificate verify failed" in refusal(url, ssl=ca)
    named = BrokerOptions((url,), ssl=ca | {"server_hostname": "localhost"})
    assert 0 == AmqpBroker(named).count("q")
