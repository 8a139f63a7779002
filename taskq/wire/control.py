"""Remote control as Celery's programs speak it: requests and replies to bytes, and back again.

What a command does, and who is meant by a request, is the business of the room `control`.  Facts
about the format are from kombu 5.7's pidbox, seen on the wire.  A sender chooses the serializer:
so both are read, and a reply is best written in that of its request.
"""

import reprlib
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, NamedTuple

from taskq.errors import MessageMalformed
from taskq.wire import codec
from taskq.wire.message import Message, Properties

#: What the bodies may be written in.
_ACCEPTED = ("json", "msgpack")

#: More bytes than this are no command: fifty thousand ids to revoke take half as many.
_MOST_BYTES = 4 << 20
#: So many nodes may be named.
_MOST_NODES = 10_000
#: AMQP's short strings take so many bytes, and so do all names here.
_LONGEST = 255
#: A logical clock beyond this was not counted up to.
_LATEST_CLOCK = 1 << 53


class Request(NamedTuple):
    """Do *method* with *arguments*: all nodes, those in *destination*, or whose names fit.

    A *pattern* counts only with a *matcher* ("glob" or "pcre") and without a destination.  Replies
    are wanted if there is a *reply_to* (exchange and routing key); they bear the *ticket*.  *clock*
    is the sender's logical one; *expires* is the moment (seconds since the epoch) after which the
    sender does not wait any more, 0 if there is none.
    """

    method: str
    arguments: Mapping[str, Any]
    destination: tuple[str, ...] | None = None
    pattern: str | None = None
    matcher: str | None = None
    ticket: str | None = None
    reply_to: tuple[str, str] | None = None
    clock: int = 0
    expires: float = 0.0
    #: What it is written in.
    serializer: str = "json"


class Reply(NamedTuple):
    """What *node* said to the request of that *ticket*."""

    ticket: str | None
    node: str
    value: Any
    clock: int = 0


def exchanges(namespace: str) -> tuple[str, str]:
    """The exchanges for requests and for replies where `control_exchange` is *namespace*.

    The queue of a node's mailbox is called after the node and the first, with a dot in between.
    """
    return f"{namespace}.pidbox", f"reply.{namespace}.pidbox"


def write_request(request: Request) -> Message:
    """*request* as a message for all nodes; EncodeError for arguments that cannot be sent."""
    body: dict[str, Any] = {
        "method": request.method,
        "arguments": dict(request.arguments),
        "destination": None if request.destination is None else list(request.destination),
        "pattern": request.pattern,
        "matcher": request.matcher,
    }
    if request.ticket is not None:
        body["ticket"] = request.ticket
    if request.reply_to is not None:
        exchange, routing_key = request.reply_to
        body["reply_to"] = {"exchange": exchange, "routing_key": routing_key}
    headers = {"clock": request.clock, "expires": request.expires}
    return _message(body, headers, request.serializer, delivery_mode=2)


def write_reply(
    node: str, reply: object, ticket: str | None, clock: int, serializer: str = "json"
) -> Message:
    """What *node* says to the request of *ticket*; EncodeError for what cannot be sent.

    A set travels in an envelope that Celery's clients do not know.
    """
    return _message({node: reply}, {"ticket": ticket, "clock": clock}, serializer, delivery_mode=1)


def _message(
    body: dict[str, Any], headers: dict[str, Any], serializer: str, delivery_mode: int
) -> Message:
    encoded = codec.dumps(body, serializer)
    properties = Properties(
        headers=headers,
        content_type=encoded.content_type,
        content_encoding=encoded.content_encoding,
        delivery_mode=delivery_mode,
        priority=0,
    )
    return Message.of(properties, encoded.body)


# -- reading -------------------------------------------------------------------------------------


def read_request(message: Message) -> Request:
    """The request in *message*; MessageMalformed, and nothing else, for any other message.

    Void arguments are none, and keys that nobody knows are passed over.
    """
    body = _body(message)
    method = _name("method", body.get("method"))
    if method is None:
        raise MessageMalformed("a request names no method")
    arguments = body.get("arguments") or {}
    if not isinstance(arguments, dict) or not all(isinstance(key, str) for key in arguments):
        raise MessageMalformed(
            f"`arguments` of {method!r} are not named: {reprlib.repr(arguments)}"
        )
    return Request(
        method,
        arguments,
        _nodes(body.get("destination")),
        _name("pattern", body.get("pattern")),
        _name("matcher", body.get("matcher")),
        _name("ticket", body.get("ticket")),
        _address(body.get("reply_to")),
        _clock(message),
        _moment(message.headers.get("expires")),
        codec.serializer(message.labels.content_type) or "json",
    )


def read_reply(message: Message) -> Reply:
    """The reply in *message*; MessageMalformed, and nothing else, for any other message."""
    body = _body(message)
    if len(body) != 1:
        raise MessageMalformed(f"a reply comes from one node, and not from {len(body)}")
    ((node, value),) = body.items()
    node = _name("node", node)
    if node is None:
        raise MessageMalformed("a reply names no node")
    ticket = message.headers.get("ticket")
    return Reply(ticket if isinstance(ticket, str) else None, node, value, _clock(message))


def _body(message: Message) -> dict[Any, Any]:
    if message.properties.malformed is not None:
        raise MessageMalformed(message.properties.malformed)
    if len(message.body) > _MOST_BYTES:
        raise MessageMalformed(f"{len(message.body)} bytes, {_MOST_BYTES} is the limit")
    labels = message.labels
    body = codec.loads(message.body, labels.content_type, labels.content_encoding, _ACCEPTED)
    if not isinstance(body, dict):
        raise MessageMalformed(f"body is no mapping: {reprlib.repr(body)}")
    return body


def _name(field: str, value: object) -> str | None:
    """*value* if it is short text that can be seen and sent, or None if it is void."""
    if value is None or value == "":
        return None
    if isinstance(value, str) and value.isprintable() and len(value.encode()) <= _LONGEST:
        return value
    raise MessageMalformed(f"`{field}` is no name: {reprlib.repr(value)}")


def _nodes(value: object) -> tuple[str, ...] | None:
    """Names, or None for all; as Celery has it, nobody named means all."""
    if value is None:
        return None
    if not isinstance(value, list) or len(value) > _MOST_NODES:
        raise MessageMalformed(f"`destination` lists no nodes: {reprlib.repr(value)}")
    return tuple(filter(None, (_name("destination", node) for node in value))) or None


def _address(value: object) -> tuple[str, str] | None:
    if not value:
        return None
    if isinstance(value, dict):
        exchange = _name("exchange", value.get("exchange"))
        routing_key = _name("routing_key", value.get("routing_key"))
        if exchange is not None and routing_key is not None:
            return exchange, routing_key
    raise MessageMalformed(f"`reply_to` is no address: {reprlib.repr(value)}")


def _clock(message: Message) -> int:
    value = message.headers.get("clock")
    return value if type(value) is int and 0 <= value < _LATEST_CLOCK else 0


def _moment(value: object) -> float:
    if isinstance(value, int | float | Decimal) and 0 <= (moment := float(value)) < _LATEST_CLOCK:
        return moment
    return 0.0
