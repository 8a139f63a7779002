"""The supports can fail: what they are there to find, they find."""

import socket
import threading

import pytest

from tests.support.ledger import assert_conserved
from tests.support.process import WorkerProcess
from tests.support.proxy import Proxy


def test_a_lost_task_upsets_the_account(ledger):
    ledger.path.write_text("a 1\n")

    assert_conserved(["a", "b", "c"], ledger, dead=["b"], queued=["c"], once=True)
    with pytest.raises(AssertionError, match=r"lost 1: \['b'\]"):
        assert_conserved(["a", "b"], ledger)


def test_a_strange_and_a_repeated_task_upset_the_account(ledger):
    ledger.path.write_text("a 1\na 1\n")

    assert_conserved(["a"], ledger)
    with pytest.raises(AssertionError, match=r"more than once 1: \['a'\]"):
        assert_conserved(["a"], ledger, once=True)
    with pytest.raises(AssertionError, match=r"never sent 1: \['a'\]"):
        assert_conserved([], ledger)


@pytest.fixture
def shell(tmp_path):
    """Runs a shell script in the place of a worker."""
    started = []

    def start(script):
        process = WorkerProcess(
            "/bin/sh", "-c", script, folder=tmp_path, env={}, log=tmp_path / "log"
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.end()


def test_each_event_is_handed_out_once_and_in_any_order(shell):
    process = shell(
        """
        echo '{"event": "child-ready", "pid": 1}' >/dev/fd/$TASKQ_TEST_SIGNALS
        echo '{"event": "child-ready", "pid": 2}' >/dev/fd/$TASKQ_TEST_SIGNALS
        echo '{"event": "task-failed", "traceback": "cut in the mid' >/dev/fd/$TASKQ_TEST_SIGNALS
        """
    )

    assert process.wait_for("task-failed")["line"].endswith("mid\n")
    assert process.wait_for("child-ready", pid=2) == {"event": "child-ready", "pid": 2}
    assert process.wait_for("child-ready") == {"event": "child-ready", "pid": 1}
    with pytest.raises(AssertionError, match="ended without child-ready"):
        process.wait_for("child-ready")


def test_a_process_that_a_worker_leaves_behind_fails_the_test(shell, monkeypatch):
    process = shell("sleep 1000 & echo started")
    monkeypatch.setattr("tests.support.process.PATIENCE", 0.1)

    with pytest.raises(AssertionError, match=r"the children of .* to end"):
        process.wait()
    assert process.family() == []
    assert process.log() == "started\n"


def test_a_worker_that_does_not_stop_fails_the_test(shell):
    process = shell(
        "trap '' TERM; echo '{\"event\": \"deaf\"}' >/dev/fd/$TASKQ_TEST_SIGNALS; sleep 1000"
    )
    process.wait_for("deaf")

    with pytest.raises(AssertionError, match="still running"):
        process.stop(timeout=0.1)
    assert process.family() == []


@pytest.fixture
def echo():
    """The URL of a server that sends back what it is sent, and takes any number of connections."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve(connection):
        with connection:
            try:
                while data := connection.recv(4096):
                    connection.sendall(data)
            except ConnectionError:
                pass

    def accept():
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=[connection]).start()

    thread = threading.Thread(target=accept)
    thread.start()
    yield f"echo://127.0.0.1:{listener.getsockname()[1]}/"
    listener.shutdown(socket.SHUT_RDWR)
    thread.join()
    listener.close()


def test_the_proxy_cuts_and_mends(echo):
    with Proxy(echo) as proxy:
        with _connected(proxy) as client:
            assert _echoed(client, b"whole") == b"whole"
            proxy.cut()
            with pytest.raises(ConnectionResetError):
                client.recv(1)
        with pytest.raises(ConnectionRefusedError):
            _connected(proxy)

        proxy.mend()
        with _connected(proxy) as client:
            assert _echoed(client, b"mended") == b"mended"


def test_the_proxy_stalls_and_loses_nothing(echo):
    with Proxy(echo) as proxy, _connected(proxy) as client:
        assert _echoed(client, b"before") == b"before"
        proxy.stall()
        client.sendall(b"held")
        client.settimeout(0.1)
        with pytest.raises(TimeoutError):
            client.recv(1)

        proxy.resume()
        client.settimeout(10)
        assert client.recv(100) == b"held"


def test_the_proxy_half_closes(echo):
    with Proxy(echo) as proxy, _connected(proxy) as client:
        assert _echoed(client, b"before") == b"before"
        proxy.half_close()
        assert client.recv(1) == b""
        client.sendall(b"still taken")


def _connected(proxy):
    return socket.create_connection(("127.0.0.1", proxy.port), timeout=10)


def _echoed(client, data):
    client.sendall(data)
    return client.recv(len(data))
