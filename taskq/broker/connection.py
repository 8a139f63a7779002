"""A connection to RabbitMQ that is kept alive on our loop, and a channel on which things may fail.

`Link` connects, watches and reconnects; `Scratch` declares on a connection that is up.  What is
published or consumed over it is the business of `amqp`.
"""

import logging
import re
import struct
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import pika
from pika.channel import Channel
from pika.exceptions import (
    AMQPError,
    ChannelClosedByBroker,
    ConnectionClosedByBroker,
    ConnectionOpenAborted,
    StreamLostError,
)

from taskq import clock, tls
from taskq.broker.base import BrokerOptions
from taskq.broker.fastpath import FastConnection
from taskq.broker.topology import (
    BindExchange,
    BindQueue,
    Declaration,
    DeclareExchange,
    DeclareQueue,
)
from taskq.errors import ConfigurationError
from taskq.log import event
from taskq.loop import Loop, Timer
from taskq.retry import RetryPolicy
from taskq.url import masked

#: When all URLs have failed, they are tried again after up to this long, which grows to 5 seconds.
_BACKOFF = RetryPolicy(limit=None, backoff=0.25, longest=5.0)

#: AMQP reply codes; the first is for what an operator closed, which is no fault of what was sent.
CONNECTION_FORCED, ACCESS_REFUSED, NOT_FOUND, PRECONDITION_FAILED = 320, 403, 404, 406

# -- addresses -----------------------------------------------------------------------------------

#: What an amqp URL may have behind the question mark, RabbitMQ's names, and the names of
#: `BrokerOptions.ssl` for them: https://www.rabbitmq.com/docs/uri-query-parameters
_TLS_QUERY = {
    "cacertfile": "ca_certs",
    "certfile": "certfile",
    "keyfile": "keyfile",
    "server_name_indication": "server_hostname",
    "verify": "cert_reqs",
}
_TLS_OPTIONS = frozenset({"enabled", *_TLS_QUERY.values()})
_TLS_FILES = ("ca_certs", "certfile", "keyfile")
#: What `broker_use_ssl` and the URL call the authority's certificate, and our own.
_AUTHORITY = "ca_certs in broker_use_ssl or cacertfile in the URL"
_CERTIFICATE = "certfile and keyfile in broker_use_ssl or in the URL"


def parameters(url: str, options: BrokerOptions, role: str) -> pika.ConnectionParameters:
    """What pika needs to connect to *url*; *role* tells the broker's operator what for.

    ConfigurationError, without the password, for a URL or a TLS option that cannot be used.
    """
    try:
        parts = urlsplit(url)
        port, query = parts.port, dict(parse_qsl(parts.query, keep_blank_values=True))
    except ValueError as error:
        raise ConfigurationError(f"broker_url {masked(url)!r}: {error}") from None
    if unknown := query.keys() - _TLS_QUERY.keys():
        raise ConfigurationError(
            f"broker_url {masked(url)!r} has the unknown parameter {min(unknown)!r}; "
            f"known are {', '.join(_TLS_QUERY)}"
        )
    tls_options = {**options.ssl, **{_TLS_QUERY[name]: value for name, value in query.items()}}
    encrypted = tls_options.get("enabled", bool(options.ssl)) or parts.scheme.lower() == "amqps"
    if query and not encrypted:
        raise ConfigurationError(
            f"broker_url {masked(url)!r} is not encrypted, so {min(query)!r} means nothing there; "
            "use amqps://"
        )
    host = unquote(parts.hostname or "localhost")
    return pika.ConnectionParameters(
        host=host,
        port=port or (5671 if encrypted else 5672),
        virtual_host=unquote(parts.path[1:]) or "/",
        credentials=pika.PlainCredentials(
            unquote(parts.username or "guest"), unquote(parts.password or "guest")
        ),
        heartbeat=max(1, round(options.heartbeat)) if options.heartbeat else 0,
        socket_timeout=options.connect_timeout,
        stack_timeout=options.connect_timeout,
        blocked_connection_timeout=options.blocked_timeout,
        client_properties={
            "connection_name": f"{options.name} {role}",
            "product": "taskq",
            "version": f"on pika {pika.__version__}",
        },
        ssl_options=_tls(url, tls_options, host) if encrypted else None,
    )


def _tls(url: str, options: Mapping[str, Any], host: str) -> pika.SSLOptions:
    if unknown := options.keys() - _TLS_OPTIONS:
        raise ConfigurationError(
            f"broker_use_ssl has the unknown option {min(unknown)!r}; "
            f"known are {', '.join(sorted(_TLS_OPTIONS))}"
        )
    verify = tls.verifies(options.get("cert_reqs", "required"), "cert_reqs of broker_use_ssl")
    context = tls.context(*(options.get(name) for name in _TLS_FILES), verify=verify)
    if not verify:
        tls.announce_unverified(url.partition("?")[0], f"name its authority by {_AUTHORITY}")
    return pika.SSLOptions(context, options.get("server_hostname") or host)


def why(error: BaseException) -> str:
    """The innermost reason of pika's *error* in words."""
    inner: object = error
    while isinstance(inner, BaseException):
        error = inner
        wrapped = getattr(error, "exceptions", None) or [getattr(error, "exception", None)]
        inner = wrapped[-1] or (error.args[-1] if error.args else None)
    if isinstance(error, (ConnectionClosedByBroker, ChannelClosedByBroker)):
        return f"{error.reply_code} {error.reply_text}"
    if isinstance(error, ConnectionOpenAborted):
        return "it took the connection and did not answer in time"
    if isinstance(error, StreamLostError):
        return "it closed the connection without a word"
    if said := tls.explain(error, authority=_AUTHORITY, certificate=_CERTIFICATE):
        return said
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__


# -- the connection ------------------------------------------------------------------------------


class Link:
    """One connection to the first broker that answers, mended for ever until it is closed.

    ::

        connecting --opened--> up --lost--> waiting --> connecting --> ...
             +------------failed--------------^

    The URLs are tried in turn; when all have failed, it waits with growing, fully jittered delays.
    *on_up* hears the new connection, *on_down* why it was lost, *on_blocked* whether an alarm
    stops publishing.  Its life is told to the log, or to *tell*.
    """

    def __init__(
        self,
        loop: Loop,
        options: BrokerOptions,
        role: str,
        *,
        on_up: Callable[[FastConnection], None],
        on_down: Callable[[str, BaseException], None],
        on_blocked: Callable[[bool], None] = lambda _blocked: None,
        tell: Callable[..., None] = event,
    ) -> None:
        _silence_pika()
        self.loop = loop
        self.options = options
        #: The URL in use or tried last, without the password.
        self.url: str
        #: The connection while it is up.
        self.connection: FastConnection | None = None
        self.blocked = False
        #: Why there is no connection, or was none the last time.
        self.reason = "no connection yet"
        self.server_version: tuple[int, ...] = ()
        self._role = role
        self._addresses = [(masked(url), parameters(url, options, role)) for url in options.urls]
        self._on_up, self._on_down, self._on_blocked = on_up, on_down, on_blocked
        self._tell = tell
        self._attempt = 0  # which address, counted on and on
        self._failures = 0
        self._closing = False
        self._timer: Timer | None = None  # to reconnect, or to look after the heartbeats
        self._current: FastConnection
        self._connect()

    def prove(self) -> None:
        """To be called when the connection does what it is for: the delays start anew."""
        self._failures = 0

    def close(self, timeout: float) -> None:
        """Close in order within *timeout* seconds, or else without a word.  Turns the loop."""
        if self._closing:
            return
        self._closing = True
        self._cancel_timer()
        current = self._current
        if self.connection is None or self.blocked:  # a blocking broker would not read our farewell
            current.abandon("closed")
        elif current.is_open:
            current.close()
        self.wait(lambda: current.is_closed, timeout)
        current.abandon("closed")
        self.wait(lambda: current.is_closed, 1.0)

    def wait(self, condition: Callable[[], bool], timeout: float) -> bool:
        """Turn the loop until *condition* holds, at most *timeout* seconds; whether it does.

        May be called inside a callback of the loop.
        """
        deadline = clock.monotonic() + timeout
        while True:
            self._current.end_turn()  # the turn that called us cannot
            left = deadline - clock.monotonic()
            if condition():
                return True
            if left <= 0:
                return False
            self.loop.turn(left)

    def _connect(self) -> None:
        self._timer = None
        self.url, address = self._addresses[self._attempt % len(self._addresses)]
        self._current = FastConnection(
            address, self.loop, on_open=self._opened, on_closed=self._ended
        )

    def _opened(self, connection: FastConnection) -> None:
        self.connection = connection
        version = str((connection.server_properties or {}).get("version", ""))
        self.server_version = tuple(int(number) for number in re.findall(r"\d+", version))
        connection.add_on_connection_blocked_callback(
            lambda _connection, method: self._block(str(method.method.reason))
        )
        connection.add_on_connection_unblocked_callback(lambda *_: self._unblock())
        self._tell("connected", broker=self.url, role=self._role)
        self._watch()
        self._on_up(connection)

    def _ended(self, _connection: FastConnection, error: BaseException) -> None:
        was_up = self.connection is not None
        was_blocked, self.blocked = self.blocked, False
        self.connection = None
        self._cancel_timer()
        if self._closing:
            return
        self.reason = why(error)
        self._attempt += 1
        delay = 0.0
        if self._attempt % len(self._addresses) == 0:
            self._failures += 1
            delay = _BACKOFF.delay_before(self._failures)
        self._tell(
            "connection-lost" if was_up else "connection-failed",
            broker=self.url,
            role=self._role,
            reason=self.reason,
            delay=delay,
        )
        self._timer = self.loop.call_later(delay, self._connect)
        if was_up:
            self._on_down(self.reason, error)
        if was_blocked:
            self._on_blocked(False)  # a new connection is told anew

    def _block(self, reason: str) -> None:
        self.blocked = True
        self.reason = f"it blocks publishing ({reason})"
        self._tell("blocked", broker=self.url, reason=reason)
        self._on_blocked(True)

    def _unblock(self) -> None:
        self.blocked = False
        self._tell("unblocked", broker=self.url)
        self._on_blocked(False)

    def _watch(self) -> None:
        """Give up a connection on which nothing came for two heartbeats; pika takes its time."""
        heartbeat = self._current.params.heartbeat
        if not heartbeat:
            return
        silence = clock.monotonic() - self._current.heard
        if silence > 2 * heartbeat:
            self._current.abandon(f"no word from it for {silence:.0f} s")
        else:
            self._timer = self.loop.call_later(heartbeat / 2, self._watch)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _silence_pika() -> None:
    # It narrates every step of its life, and calls errors what is mended a moment later; taskq's
    # own events say the same.  Whoever set a level of their own wants to hear it.
    logger = logging.getLogger("pika")
    if logger.level == logging.NOTSET:
        logger.setLevel(logging.CRITICAL)


# -- declaring -----------------------------------------------------------------------------------

#: Called with None when all is declared, else with the broker's refusal in words.
Declared = Callable[[str | None], None]


class Scratch:
    """A channel of a link's connection for what the broker may answer by closing the channel.

    Declarations are made one after the other, each once: those made before are remembered.  A queue
    or exchange that exists with other arguments (406), or that this user may not configure (403),
    is used as it is.  Ends with the connection; what is not declared by then is never heard of.
    """

    def __init__(self, link: Link, connection: FastConnection) -> None:
        self._link = link
        self._connection = connection
        self._channel: Channel | None = None
        self._made: set[Declaration] = set()
        self._jobs: deque[tuple[deque[Declaration], Declared]] = deque()
        self._busy = False
        self._refusal: str | None = None  # of the current declaration, while it is looked up
        self._deadline: Timer | None = None

    def ensure(self, declarations: Iterable[Declaration], then: Declared) -> None:
        """Make *declarations* in order, then call *then*; the first refusal ends the sequence."""
        self._jobs.append((deque(declarations), then))
        self._go_on()

    def forget(self, declarations: Iterable[Declaration] | None = None) -> None:
        """Make *declarations* (None: all) again when they are next needed: something is gone."""
        self._made.difference_update(self._made.copy() if declarations is None else declarations)

    def _go_on(self) -> None:
        while self._jobs and not self._busy:
            declarations, then = self._jobs[0]
            while declarations and declarations[0] in self._made:
                declarations.popleft()
            if not declarations:
                self._jobs.popleft()
                then(None)
            elif not self._connection.is_open:
                return  # it goes, and with it this object
            elif self._channel is None:
                self._busy = True
                self._connection.open_channel(self._channel_opened)
            else:
                self._busy = True
                try:
                    self._declare(self._channel, declarations[0])
                except (AMQPError, ValueError, TypeError, struct.error) as error:
                    self._answered()
                    self._refuse(f"{declarations[0]} cannot be sent: {error!r}")

    def _channel_opened(self, channel: Channel) -> None:
        self._channel = channel
        channel.add_on_close_callback(self._channel_closed)
        self._busy = False
        self._go_on()

    def _declare(self, channel: Channel, declaration: Declaration) -> None:
        self._deadline = self._link.loop.call_later(
            self._link.options.declare_timeout, self._give_up
        )
        passive = self._refusal is not None
        match declaration:
            case DeclareQueue(name, arguments):
                channel.queue_declare(
                    name,
                    passive=passive,
                    durable=True,
                    arguments=dict(arguments),
                    callback=self._made_it,
                )
            case DeclareExchange(name, kind, arguments, must_exist, durable):
                channel.exchange_declare(
                    name,
                    kind,
                    passive=passive or must_exist,
                    durable=durable,
                    arguments=dict(arguments),
                    callback=self._made_it,
                )
            case BindQueue(queue, exchange, routing_key):
                channel.queue_bind(queue, exchange, routing_key, callback=self._made_it)
            case BindExchange(target, source, routing_key):
                channel.exchange_bind(target, source, routing_key, callback=self._made_it)

    def _made_it(self, _answer: Any) -> None:
        self._answered()
        declaration = self._jobs[0][0].popleft()
        self._made.add(declaration)
        if self._refusal is not None and isinstance(declaration, DeclareQueue):
            event("queue-foreign", queue=declaration.name, reason=self._refusal)
        self._refusal = None
        self._go_on()

    def _channel_closed(self, _channel: Channel, error: Exception) -> None:
        self._channel = None
        if not isinstance(error, ChannelClosedByBroker):
            self._answered()
            return
        if not self._busy:
            return
        self._answered()
        declaration = self._jobs[0][0][0]
        if (
            self._refusal is None
            and error.reply_code in (ACCESS_REFUSED, PRECONDITION_FAILED)
            and isinstance(declaration, DeclareQueue | DeclareExchange)
        ):
            self._refusal = error.reply_text  # is it there?
        else:
            self._refuse(self._refusal or error.reply_text)
        self._go_on()

    def _refuse(self, refusal: str) -> None:
        _, then = self._jobs.popleft()
        self._refusal = None
        then(refusal)

    def _answered(self) -> None:
        self._busy = False
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _give_up(self) -> None:
        if self._link.blocked:  # it does not read what we ask
            self._deadline = self._link.loop.call_later(
                self._link.options.declare_timeout, self._give_up
            )
        else:
            self._connection.abandon(
                f"it did not answer a declaration within {self._link.options.declare_timeout:g} s"
            )


def ignore(*_: object) -> None:
    """For the callbacks that pika asks for and never calls, as our reader is before it."""
