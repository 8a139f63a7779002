"""Private RabbitMQ nodes: one for the whole session, one to be tormented, a vhost for each test.

With TASKQ_TEST_AMQP_URL set, tests take their vhosts from that server instead, by way of its
management plugin; those that stop a node start one of their own all the same.
"""

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit
from urllib.request import Request, urlopen

import pika
import pytest
from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import ChannelClosedByBroker

from tests.support.ports import free_port
from tests.support.program import find_program, leashed
from tests.support.wait import wait_until

#: Where Debian keeps RabbitMQ's own scripts.  Those on the path change the user when root calls
#: them and refuse everybody else; a private node needs neither.
_DEBIAN = "/usr/lib/rabbitmq/bin"

#: So many vhosts are made by one call, which takes about a second.
_VHOSTS = 50

_ADD_VHOSTS = """
[begin
     Vhost = list_to_binary("t" ++ integer_to_list(N)),
     rabbit_vhost:add(Vhost, <<"tests">>),
     rabbit_auth_backend_internal:set_permissions(
         <<"guest">>, Vhost, <<".*">>, <<".*">>, <<".*">>, <<"tests">>)
 end || N <- lists:seq(%d, %d)], ok.
"""


class RabbitNode:
    """A RabbitMQ node of our own: its ports, data, name service and cookie touch nobody else's.

    Made stopped.  `kill` is SIGKILL, `stop` lets it shut down, and `start` brings it back with
    its data; `close` ends it for good.  *config* is added to its rabbitmq.conf.  Started first
    *beside* another that runs, it joins that one's cluster.  With *management* its plugin answers
    at `api`.
    """

    def __init__(
        self, config: str = "", *, beside: "RabbitNode | None" = None, management: bool = False
    ) -> None:
        self._server = find_program("rabbitmq-server", "rabbitmq-server", _DEBIAN)
        self._rabbitmqctl = find_program("rabbitmqctl", "rabbitmq-server", _DEBIAN)
        self.folder = Path(tempfile.mkdtemp(prefix="taskq-rabbit-"))
        self.name = f"taskq-{secrets.token_hex(4)}@localhost"
        self.port = free_port()
        #: The management plugin's HTTP interface, "" without it.
        self.api = ""
        if management:
            port = free_port()
            self.api = f"http://guest:guest@127.0.0.1:{port}/api/"
            config += f"management.tcp.ip = 127.0.0.1\nmanagement.tcp.port = {port}\n"
        self._env = os.environ | self._write_folder(config, beside)
        self._vhosts: list[str] = []
        self._vhosts_made = 0
        self._node: subprocess.Popen[bytes] | None = None
        self._epmd: subprocess.Popen[bytes] | None = None
        if beside is None:
            # Erlang would leave a name service running that outlives the node; this one is ours.
            self._epmd = subprocess.Popen(
                leashed(find_program("epmd", "erlang-base"), "-port", self._env["ERL_EPMD_PORT"]),
                env=self._env,
                stdin=subprocess.DEVNULL,
            )

    def _write_folder(self, config: str, beside: "RabbitNode | None") -> dict[str, str]:
        """Write what the node reads at its start; returns the environment that points at it."""
        secret, names = secrets.token_hex(16), str(free_port())
        if beside is not None:
            secret = (beside.folder / ".erlang.cookie").read_text()
            names = beside._env["ERL_EPMD_PORT"]
            config += (
                "cluster_formation.peer_discovery_backend = classic_config\n"
                f"cluster_formation.classic_config.nodes.1 = {beside.name}\n"
            )
        cookie = self.folder / ".erlang.cookie"
        cookie.write_text(secret)
        cookie.chmod(0o400)
        plugins = "rabbitmq_management" if self.api else ""
        (self.folder / "enabled_plugins").write_text(f"[{plugins}].\n")
        (self.folder / "rabbitmq.conf").write_text(
            "disk_free_limit.absolute = 1MB\n"  # a full disk is no business of these tests
            "raft.wal_max_size_bytes = 67108864\n"
            "log.console = false\n" + config
        )
        return {
            "HOME": str(self.folder),  # where Erlang looks for the cookie
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_EPMD_PORT": names,
            "RABBITMQ_NODENAME": self.name,
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(free_port()),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
            "RABBITMQ_MNESIA_BASE": str(self.folder / "data"),
            "RABBITMQ_LOG_BASE": str(self.folder / "log"),
            "RABBITMQ_PID_FILE": str(self.folder / "pid"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.folder / "enabled_plugins"),
            "RABBITMQ_CONFIG_FILE": str(self.folder / "rabbitmq.conf"),
            "RABBITMQ_CONF_ENV_FILE": str(self.folder / "none"),
            # Lets the script become the node, so that the process we start is the one we kill.
            "RUNNING_UNDER_SYSTEMD": "true",
        }

    def start(self) -> None:
        """Start the node and return once it takes connections; nothing to do if it runs."""
        self.begin()
        self.wait_until_up()

    @property
    def is_running(self) -> bool:
        """Whether the node was started, and neither stopped nor killed since."""
        return self._node is not None

    def begin(self) -> None:
        """Start the node and do not wait until it is up; nothing to do if it runs."""
        if self._node is not None:
            return
        with (self.folder / "output").open("ab") as output:
            self._node = subprocess.Popen(
                leashed(self._server),
                env=self._env,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def wait_until_up(self) -> None:
        """Wait until the node that was begun takes connections."""
        wait_until(self._answers, f"{self.name} to start", timeout=120)

    def _answers(self) -> bool:
        assert self._node is not None
        ended = self._node.poll()
        assert ended is None, f"{self.name} ended with {ended} at its start:\n{self.log()}"
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
            return True
        return False

    def stop(self) -> None:
        """Let the node shut down in order, and wait for its end."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End the node without a word, and wait until it is gone.

        RabbitMQ keeps what it knows of new vhosts and queues in memory for a while (Mnesia's log
        for seconds, the names of quorum queues for three minutes: dets' auto_save), and a queue
        declared just before the blow never comes back.  These are written down first, because it
        is taskq that is tested here; messages get no such help.
        """
        if self._node is not None:
            self.ctl("eval", "mnesia:sync_log(), [dets:sync(Table) || Table <- dets:all()], ok.")
        self._end(signal.SIGKILL)

    def _end(self, how: signal.Signals) -> None:
        if self._node is not None:
            self._node.send_signal(how)
            try:
                self._node.wait(timeout=60)
            finally:
                self._node.kill()
                self._node.wait()
                self._node = None

    def close(self) -> None:
        """End the node and its name service, and remove the folder.  Idempotent."""
        self._end(signal.SIGKILL)  # nobody will read its data again
        if self._epmd is not None:
            self._epmd.kill()
            self._epmd.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def ctl(self, *arguments: str) -> str:
        """What `rabbitmqctl` *arguments* printed; costs a third of a second of one core."""
        with self.start_ctl(*arguments) as running:
            try:
                printed, complaint = running.communicate(timeout=60)
            finally:
                running.kill()
        assert running.returncode == 0, f"rabbitmqctl {arguments}: {printed}{complaint}"
        return printed

    def start_ctl(self, *arguments: str) -> subprocess.Popen[str]:
        """`rabbitmqctl` *arguments*, running; its two outputs are pipes."""
        return subprocess.Popen(
            leashed(self._rabbitmqctl, "--quiet", *arguments),
            env=self._env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def log(self) -> str:
        """The end of everything the node said."""
        files = [self.folder / "output", self.folder / f"log/{self.name}.log"]
        return "\n".join(file.read_text()[-4000:] for file in files if file.exists())

    def url(self, vhost: str = "/") -> str:
        """The AMQP URL of *vhost*."""
        return f"amqp://guest:guest@127.0.0.1:{self.port}/{vhost.replace('/', '%2F')}"

    def fresh_vhost(self) -> str:
        """The name of a vhost that no test has used; used ones stay until the node is closed."""
        if not self._vhosts:
            first, last = self._vhosts_made + 1, self._vhosts_made + _VHOSTS
            self.ctl("eval", _ADD_VHOSTS % (first, last))
            self._vhosts = [f"t{number}" for number in range(last, first - 1, -1)]
            self._vhosts_made = last
        return self._vhosts.pop()


class RabbitCluster:
    """Three nodes that are one broker: what is in a quorum queue is on all of them."""

    def __init__(self) -> None:
        first = RabbitNode()
        self.nodes = (first, RabbitNode(beside=first), RabbitNode(beside=first))

    def start(self) -> None:
        """Start all nodes, the first one first: it is the one that the others join."""
        self.nodes[0].start()
        for node in self.nodes[1:]:
            node.begin()
        for node in self.nodes[1:]:
            node.wait_until_up()

    def close(self) -> None:
        """End all nodes.  Idempotent."""
        for node in reversed(self.nodes):
            node.close()

    def url(self, first: int = 0) -> str:
        """The URLs of all nodes, to be tried from that of node *first* on."""
        nodes = self.nodes[first:] + self.nodes[:first]
        return ";".join(node.url() for node in nodes)

    def leader(self, queue: str) -> RabbitNode:
        """The node that has the leader of the quorum queue *queue*."""
        names = [member["leader"] for member in self._members(queue)]
        (leader,) = [node for node in self.nodes if node.name in names]
        return leader

    def is_whole(self, queue: str) -> bool:
        """Whether *queue* has a member on every node, and all of them are there."""
        return {node.name for node in self.nodes} == {
            name for found in self._members(queue) for name in found["online"]
        }

    def _members(self, queue: str) -> list[dict[str, Any]]:
        node = next(node for node in self.nodes if node.is_running)
        listed = node.ctl("list_queues", "name", "leader", "online", "--formatter", "json")
        return [found for found in json.loads(listed) if found["name"] == queue]


class GivenServer:
    """A server that ran before the tests: only vhosts of our own are made in it, and removed."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._parts = parts
        self._api = f"http://{parts.hostname}:15672/api/vhosts"
        login = f"{unquote(parts.username or 'guest')}:{unquote(parts.password or 'guest')}"
        self._authorization = f"Basic {b64encode(login.encode()).decode()}"
        self._vhosts: list[str] = []

    def url(self, vhost: str) -> str:
        """The AMQP URL of *vhost*."""
        return urlunsplit(self._parts._replace(path=f"/{vhost}"))

    def fresh_vhost(self) -> str:
        """The name of a new vhost."""
        vhost = f"taskq-test-{secrets.token_hex(8)}"
        self._ask("PUT", vhost)
        self._vhosts.append(vhost)
        return vhost

    def close(self) -> None:
        """Remove the vhosts."""
        while self._vhosts:
            self._ask("DELETE", self._vhosts.pop())

    def _ask(self, verb: str, vhost: str) -> None:
        request = Request(f"{self._api}/{vhost}", method=verb)
        request.add_header("Authorization", self._authorization)
        try:
            urlopen(request, timeout=30).close()
        except OSError as error:
            raise AssertionError(
                f"TASKQ_TEST_AMQP_URL: {verb} {self._api}/{vhost} failed ({error}); its server "
                "needs the management plugin, and the URL a user who may make vhosts"
            ) from error


class Rabbit:
    """What one test sees of RabbitMQ: a *url* to connect to, and a look into its queues."""

    def __init__(self, server: RabbitNode | GivenServer) -> None:
        self._server = server
        self.vhost = server.fresh_vhost()
        self.url = server.url(self.vhost)

    def __repr__(self) -> str:
        return f"Rabbit({self.url})"

    @property
    def node(self) -> RabbitNode:
        """The private node; AssertionError if the server is none of ours."""
        assert isinstance(self._server, RabbitNode), (
            "this test asks rabbitmqctl: run it without TASKQ_TEST_AMQP_URL"
        )
        return self._server

    def ctl(self, *arguments: str) -> str:
        """What `rabbitmqctl` printed."""
        return self.node.ctl(*arguments)

    @contextmanager
    def channel(self) -> Iterator[BlockingChannel]:
        """A channel of pika's blocking connection, for what taskq itself must not be asked."""
        with pika.BlockingConnection(pika.URLParameters(self.url)) as connection:
            yield connection.channel()

    def count(self, queue: str) -> int:
        """How many messages are ready in *queue*; 0 if there is no such queue."""
        try:
            with self.channel() as channel:
                return int(channel.queue_declare(queue, passive=True).method.message_count)
        except ChannelClosedByBroker as closed:
            if closed.reply_code != 404:
                raise
            return 0

    def drain(self, queue: str) -> list[tuple[pika.BasicProperties, bytes]]:
        """Take all ready messages out of *queue*: the properties and the body of each.

        The headers are as pika reads them, which makes integers of floats.
        """
        drained = []
        with self.channel() as channel:
            while (got := channel.basic_get(queue, auto_ack=True))[0] is not None:
                drained.append((got[1], got[2]))
        return drained


@pytest.fixture(scope="session")
def rabbit_node() -> Iterator[RabbitNode | GivenServer]:
    """The session's server, for all tests: none may stop it."""
    url = os.environ.get("TASKQ_TEST_AMQP_URL")
    server = GivenServer(url) if url else RabbitNode()
    try:
        if isinstance(server, RabbitNode):
            server.start()
        yield server
    finally:
        server.close()


@pytest.fixture
def rabbit(rabbit_node: RabbitNode | GivenServer) -> Rabbit:
    """An empty vhost."""
    return Rabbit(rabbit_node)


@pytest.fixture(scope="module")
def own_rabbit_node() -> Iterator[RabbitNode]:
    """A node that this module's tests may stop, kill and alarm."""
    node = RabbitNode()
    try:
        yield node
    finally:
        node.close()


@pytest.fixture
def own_rabbit(own_rabbit_node: RabbitNode) -> Rabbit:
    """An empty vhost on a running node that the test may stop, kill and alarm."""
    own_rabbit_node.start()
    own_rabbit_node.ctl("set_vm_memory_high_watermark", "0.4")  # ends the alarm of a failed test
    return Rabbit(own_rabbit_node)


@pytest.fixture(scope="module")
def rabbit_cluster_nodes() -> Iterator[RabbitCluster]:
    """A cluster that this module's tests may stop and kill."""
    cluster = RabbitCluster()
    try:
        yield cluster
    finally:
        cluster.close()


@pytest.fixture
def rabbit_cluster(rabbit_cluster_nodes: RabbitCluster) -> RabbitCluster:
    """A cluster of three running nodes that the test may stop and kill one by one."""
    rabbit_cluster_nodes.start()
    return rabbit_cluster_nodes
