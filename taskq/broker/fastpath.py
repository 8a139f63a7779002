"""The two hot spots of pika replaced: reading messages and confirms, and writing frames.

`Reader` cuts the received bytes into frames.  It takes deliveries, returned messages and confirms
itself and leaves the properties of a message undecoded; every other frame goes on to pika as it
is.  Decoding properties is never pika's business: its codec makes integers of floats, and a table
that it cannot read would cost the connection, again at each redelivery.  `FastConnection` puts the
reader into pika's connection and joins what one turn of the loop wrote into one write, which goes
to the socket at once.  When to connect belongs to `connection`, what to say to `amqp`.

Both lean on internals of pika, which is therefore pinned; see `require_known_pika`.
"""

import socket
import struct
from collections.abc import Callable
from typing import Any

import pika
from pika import frame
from pika.adapters.select_connection import SelectConnection
from pika.adapters.utils.io_services_utils import _AsyncPlaintextTransport, _AsyncSSLTransport
from pika.channel import Channel
from pika.exceptions import AMQPConnectionError, InvalidFrameError

from taskq import clock
from taskq.errors import ConfigurationError
from taskq.loop import Loop
from taskq.wire.message import Message

#: The versions of pika whose internals are known.
_KNOWN_PIKA = "1.4."
#: The internals that this file overrides or calls, so that a silent rename is noticed.
_INTERNALS = (
    (
        SelectConnection,
        "_on_data_available _adapter_emit_data _proto_connection_lost _on_stream_terminated "
        "_terminate_stream _process_frame _proto_connection_made",
    ),
    (
        _AsyncPlaintextTransport,
        "_MAX_RECV_BYTES _MAX_CONSUME_BYTES get_write_buffer_size write _on_socket_writable",
    ),
    (_AsyncSSLTransport, "_MAX_RECV_BYTES write _on_socket_writable"),
    (frame, "decode_frame"),
)
#: pika reads 4 KiB at a time, which is a handful of messages.
_READ_BYTES = 1 << 16

#: Far above the agreed size of a frame, which RabbitMQ exceeds: it does not cut the properties of a
#: message to which its dead-lettering added headers.
_LARGEST_FRAME = 1 << 24

_METHOD, _HEADER, _BODY, _HEARTBEAT = 1, 2, 3, 8
_END = 0xCE
_FRAME = struct.Struct(">BHI")
_INDEX = struct.Struct(">I")
_SIZE = struct.Struct(">Q")
_TAG = struct.Struct(">QB")

# Class 60 (basic), and the method of it.
_PUBLISH, _RETURN, _DELIVER = 0x3C0028, 0x3C0032, 0x3C003C
_DELIVERY = _INDEX.pack(_DELIVER)
_ACK, _REJECT, _NACK = 0x3C0050, 0x3C005A, 0x3C0078

_CONTENT_HEADER = struct.Struct(">BHIHHQ")
_SETTLEMENT = struct.Struct(">BHIIQBB")

#: consumer tag, delivery tag, redelivered, exchange, routing key, message
OnDeliver = Callable[[bytes, int, bool, bytes, bytes, Message], None]
#: reply text, exchange, routing key, message
OnReturn = Callable[[str, bytes, bytes, Message], None]
#: sequence number, whether it stands for all before it too, taken (or refused)
OnConfirm = Callable[[int, bool, bool], None]


def require_known_pika(version: str = pika.__version__) -> None:
    """ConfigurationError unless pika's *version*, and its internals used here, are those known."""
    missing = [
        name for owner, names in _INTERNALS for name in names.split() if not hasattr(owner, name)
    ]
    if missing or not version.startswith(_KNOWN_PIKA):
        found = f"{version}, without {', '.join(missing)}" if missing else version
        raise ConfigurationError(
            f"taskq knows pika {_KNOWN_PIKA}x and found pika {found}: install 'pika>=1.4,<1.5'"
        )


# -- reading -------------------------------------------------------------------------------------


class _Content:
    """A message whose frames are still arriving on one channel."""

    __slots__ = ("fragments", "index", "method", "missing", "raw")

    def __init__(self, index: int, method: bytes) -> None:
        self.index = index
        self.method = method
        self.raw: bytes | None = None
        self.missing = 0
        self.fragments: list[bytes] = []


class Reader:
    """Cuts a stream of bytes into frames and hands each to whoever it is for, in order.

    The callables in *deliveries*, *returns* and *confirms*, by channel number, get what arrives
    there; a message for a channel without one is dropped.  *on_frame* gets all other frames whole.
    A callable may read on (`feed` and `read`) itself.
    """

    def __init__(self, on_frame: Callable[[bytes], None]) -> None:
        self.deliveries: dict[int, OnDeliver] = {}
        self.returns: dict[int, OnReturn] = {}
        self.confirms: dict[int, OnConfirm] = {}
        self._on_frame = on_frame
        self._received: list[bytes] = []
        self._buffer = b""
        self._at = 0
        self._contents: dict[int, _Content] = {}

    def feed(self, received: bytes) -> None:
        """Keep *received* for the next `read`."""
        self._received.append(received)

    def clear(self) -> None:
        """Forget everything not yet read; a `read` that is under way ends."""
        self._received = []
        self._buffer = b""
        self._at = 0

    def read(self) -> None:
        """Hand out all complete frames; InvalidFrameError for bytes that are no AMQP 0-9-1."""
        if self._received:
            self._buffer = b"".join((self._buffer[self._at :], *self._received))
            self._received = []
            self._at = 0
        while True:
            # Looked up anew for each frame, because a callable may have read on.
            buffer, at = self._buffer, self._at
            if len(buffer) - at < 8:
                return
            kind, channel, size = _FRAME.unpack_from(buffer, at)
            start = at + 7
            stop = start + size
            if size > _LARGEST_FRAME or kind not in (_METHOD, _HEADER, _BODY, _HEARTBEAT):
                raise InvalidFrameError(f"{buffer[at : at + 16]!r} is no frame of AMQP 0-9-1")
            if stop >= len(buffer):
                return
            if buffer[stop] != _END:
                raise InvalidFrameError(f"a frame of {size} bytes does not end where it says")
            self._at = stop + 1
            if kind == _BODY:
                self._take_body(channel, buffer[start:stop])
            elif kind == _HEADER:
                self._take_header(channel, buffer[start:stop])
            elif kind == _METHOD:
                if buffer.startswith(_DELIVERY, start) and self._take_whole(channel, start, stop):
                    continue
                if not self._take_method(channel, buffer[start:stop]):
                    self._on_frame(buffer[at : stop + 1])
            else:
                self._on_frame(buffer[at : stop + 1])

    def _take_whole(self, channel: int, start: int, stop: int) -> bool:
        """Take a delivery whose three frames are there; False for all that is not as usual.

        *start* and *stop* are those of its method.
        """
        buffer = self._buffer
        try:
            header = stop + 8
            kind, same, size = _FRAME.unpack_from(buffer, stop + 1)
            body = header + size + 8
            if kind != _HEADER or same != channel or size < 14 or buffer[body - 8] != _END:
                return False
            (length,) = _SIZE.unpack_from(buffer, header + 4)
            kind, same, size = _FRAME.unpack_from(buffer, body - 7)
            end = body + size
            if kind != _BODY or same != channel or size != length or buffer[end] != _END:
                return False
            at = start + 5 + buffer[start + 4]
            consumer = buffer[start + 5 : at]
            tag, redelivered = _TAG.unpack_from(buffer, at)
            after = at + 10 + buffer[at + 9]
            exchange = buffer[at + 10 : after]
            if after + 1 + buffer[after] != stop:
                return False
        except (IndexError, struct.error):
            return False
        deliver = self.deliveries.get(channel)
        if deliver is None or channel in self._contents:
            return False
        self._at = end + 1
        message = Message(buffer[header + 12 : body - 8], buffer[body:end])
        deliver(consumer, tag, redelivered == 1, exchange, buffer[after + 1 : stop], message)
        return True

    def _take_method(self, channel: int, method: bytes) -> bool:
        """Take *method* if it is one of ours."""
        if channel in self._contents:
            raise InvalidFrameError(f"a method in the middle of a message on channel {channel}")
        if len(method) < 4:
            raise InvalidFrameError("a method frame without a method")
        (index,) = _INDEX.unpack_from(method)
        if index in (_DELIVER, _RETURN):
            self._contents[channel] = _Content(index, method)
        elif index in (_ACK, _NACK):
            if len(method) != 13:
                raise InvalidFrameError("a confirm that is cut short")
            tag, flags = _TAG.unpack_from(method, 4)
            if channel in self.confirms:
                self.confirms[channel](tag, bool(flags & 1), index == _ACK)
        else:
            return False
        return True

    def _take_header(self, channel: int, header: bytes) -> None:
        content = self._contents.get(channel)
        if content is None or content.raw is not None or len(header) < 14:
            raise InvalidFrameError(f"an unexpected content header on channel {channel}")
        (content.missing,) = _SIZE.unpack_from(header, 4)
        content.raw = header[12:]
        if not content.missing:
            self._finish(channel, content, b"")

    def _take_body(self, channel: int, fragment: bytes) -> None:
        content = self._contents.get(channel)
        if content is None or content.raw is None or len(fragment) > content.missing:
            raise InvalidFrameError(f"an unexpected body on channel {channel}")
        content.missing -= len(fragment)
        if content.missing:
            content.fragments.append(fragment)
        elif content.fragments:
            self._finish(channel, content, b"".join((*content.fragments, fragment)))
        else:
            self._finish(channel, content, fragment)

    def _finish(self, channel: int, content: _Content, body: bytes) -> None:
        del self._contents[channel]
        assert content.raw is not None
        message, method = Message(content.raw, body), content.method
        try:
            if content.index == _DELIVER:
                consumer, at = _short_string(method, 4)
                tag, redelivered = _TAG.unpack_from(method, at)
                exchange, at = _short_string(method, at + 9)
                routing_key, _ = _short_string(method, at)
            else:
                text, at = _short_string(method, 6)
                exchange, at = _short_string(method, at)
                routing_key, _ = _short_string(method, at)
        except (IndexError, struct.error):
            raise InvalidFrameError(f"a cut method frame: {method!r}") from None
        if content.index == _DELIVER:
            if channel in self.deliveries:
                self.deliveries[channel](
                    consumer, tag, redelivered == 1, exchange, routing_key, message
                )
        elif channel in self.returns:
            self.returns[channel](text.decode("utf-8", "replace"), exchange, routing_key, message)


def _short_string(method: bytes, at: int) -> tuple[bytes, int]:
    start = at + 1
    stop = start + method[at]
    return method[start:stop], stop


# -- writing -------------------------------------------------------------------------------------


def publish_method(channel: int, exchange: str, routing_key: str, mandatory: bool) -> bytes:
    """The first frame of a publish; ValueError for a name of more than 255 bytes."""
    names = b""
    for name in (exchange.encode(), routing_key.encode()):
        if len(name) > 255:
            raise ValueError(f"{name[:32]!r}... takes {len(name)} bytes, AMQP allows 255")
        names += bytes((len(name),)) + name
    payload = _INDEX.pack(_PUBLISH) + b"\0\0" + names + bytes((mandatory,))
    return _FRAME.pack(_METHOD, channel, len(payload)) + payload + b"\xce"


def content(channel: int, raw: bytes, body: bytes, frame_max: int) -> bytes:
    """The frames that follow it: header and body, cut so that none takes over *frame_max* bytes.

    ValueError for properties that do not fit one frame: there is no way to cut those, and the
    broker would close the connection.
    """
    if len(raw) + 20 > frame_max:
        raise ValueError(f"properties of {len(raw)} bytes do not fit a frame of {frame_max}")
    size = len(body)
    header = _CONTENT_HEADER.pack(_HEADER, channel, 12 + len(raw), 60, 0, size)
    if 0 < size <= frame_max - 8:
        return b"".join((header, raw, b"\xce", _FRAME.pack(_BODY, channel, size), body, b"\xce"))
    pieces = [header, raw, b"\xce"]
    for start in range(0, size, frame_max - 8):
        fragment = body[start : start + frame_max - 8]
        pieces += [_FRAME.pack(_BODY, channel, len(fragment)), fragment, b"\xce"]
    return b"".join(pieces)


def ack(channel: int, tag: int, *, multiple: bool = False) -> bytes:
    """The frame that settles delivery *tag*; with *multiple* all unsettled ones before it, too."""
    return _SETTLEMENT.pack(_METHOD, channel, 13, _ACK, tag, multiple, _END)


def reject(channel: int, tag: int, *, requeue: bool) -> bytes:
    """The frame that gives delivery *tag* back, or up."""
    return _SETTLEMENT.pack(_METHOD, channel, 13, _REJECT, tag, requeue, _END)


class FastConnection(SelectConnection):  # type: ignore[misc]  # pika has no types
    """pika's connection with our reader and our way of writing.

    Received bytes are read at the end of the loop's turn, outside pika's own guard: what a
    callback raises leaves the loop as usual, where pika would take it for a lost connection.
    """

    def __init__(
        self,
        parameters: pika.ConnectionParameters,
        loop: Loop,
        *,
        on_open: Callable[["FastConnection"], None],
        on_closed: Callable[["FastConnection", BaseException], None],
    ) -> None:
        #: When the broker was last heard of (monotonic).
        self.heard = clock.monotonic()
        self.reader = Reader(self._take_frame)
        self._turning = loop
        self._unsent: list[bytes] = []
        #: The socket of a connection without TLS, once it is connected.
        self._plain: socket.socket | None = None
        self._reading = False
        self._abandoned = False
        self._cause: BaseException | None = None
        self._on_closed = on_closed
        super().__init__(
            parameters,
            on_open_callback=on_open,
            on_open_error_callback=lambda _connection, _error: None,
            custom_ioloop=loop,
        )

    @property
    def frame_max(self) -> int:
        """The most bytes that a frame may take, as agreed with the broker."""
        return int(self.params.frame_max)

    def open_channel(self, on_open: Callable[[Channel], None]) -> None:
        """Open a channel, unless the connection is going: then whoever asked goes with it."""
        if self.is_open:
            self.channel(on_open_callback=on_open)

    def send(self, frames: bytes) -> None:
        """Write *frames* at the end of this turn of the loop."""
        if not self._unsent:
            self._turning.at_turn_end(self.flush)
        self._unsent.append(frames)

    def flush(self) -> None:
        """Write now what `send` gathered."""
        unsent, self._unsent = self._unsent, []
        transport = self._transport
        if not unsent or transport is None:
            return
        joined = b"".join(unsent)
        if self._plain is not None and not transport.get_write_buffer_size():
            try:
                sent = self._plain.send(joined)
            except OSError:
                sent = 0  # full, or broken: pika meets the same, and knows what follows
            joined = joined[sent:]
        if joined:
            transport.write(joined)
            # At once, where pika would first wait for the loop to say that it is possible.
            transport._on_socket_writable()

    def end_turn(self) -> None:
        """Do what waits for the end of the turn, for who turns the loop inside a callback."""
        self._read()
        self.flush()

    def abandon(self, reason: str) -> None:
        """Drop the connection without a word to the broker; `on_closed` hears the *reason*."""
        if not self.is_closed and not self._abandoned:
            self._abandoned = True
            self._terminate_stream(AMQPConnectionError(reason))

    # -- what pika calls ---------------------------------------------------------------------

    def _proto_connection_made(self, transport: Any) -> None:
        transport._MAX_RECV_BYTES = _READ_BYTES
        if isinstance(transport, _AsyncPlaintextTransport):
            self._plain = transport._sock
            # One read for each time that the loop finds something there; pika would go on until
            # the socket says that it is empty, which takes as long as a read.  TLS may hold back
            # what the loop cannot see.
            transport._MAX_CONSUME_BYTES = 1
        super()._proto_connection_made(transport)

    def _adapter_emit_data(self, data: bytes) -> None:
        self.send(data)

    def _on_data_available(self, data_in: bytes) -> None:
        self.bytes_received += len(data_in)  # pika's heartbeats watch it
        self.heard = clock.monotonic()
        self.reader.feed(data_in)
        if not self._reading:
            self._reading = True
            self._turning.at_turn_end(self._read)

    def _terminate_stream(self, error: Exception | None) -> None:
        self.reader.clear()
        super()._terminate_stream(error)

    def _proto_connection_lost(self, error: BaseException | None) -> None:
        self._read()  # the last words, among them why
        if self._error is not None:
            self._got_eof = False  # the broker's reason tells more than the end of the stream
            error = None
        self._cause = error
        super()._proto_connection_lost(error)

    def _on_stream_terminated(self, error: Exception | None) -> None:
        # Taken before pika replaces some reasons by its guesses.
        reason = self._cause or error or self._error
        super()._on_stream_terminated(error)
        self._on_closed(self, reason)

    def _read(self) -> None:
        self._reading = False
        try:
            self.reader.read()
        except InvalidFrameError as error:
            self._terminate_stream(error)

    def _take_frame(self, whole: bytes) -> None:
        try:
            _, decoded = frame.decode_frame(whole)
        except Exception as error:
            raise InvalidFrameError(f"pika cannot read {whole[:32]!r}: {error!r}") from error
        self._process_frame(decoded)
