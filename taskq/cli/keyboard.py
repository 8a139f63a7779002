"""Single keys from the terminal, which is put back as it was, whatever happens.

What keys mean is for others.
"""

import atexit
import os
import select
import signal
import sys
import termios
import tty
from collections import deque
from typing import Any

#: What terminals send for keys that are no characters.
_NAMES = {
    b"\x1b[A": "up", b"\x1bOA": "up", b"\x1b[B": "down", b"\x1bOB": "down",
    b"\x1b[5~": "page-up", b"\x1b[6~": "page-down", b"\x1b": "escape",
    b"\t": "tab", b"\r": "enter", b"\n": "enter", b"\x7f": "backspace", b"\x08": "backspace",
    b"\x1a": "suspend",
}  # fmt: skip
#: Of the ones that begin alike the longest is meant.
_LONGEST_FIRST = sorted(_NAMES, key=len, reverse=True)

#: Place of the special characters in what `tcgetattr` returns.
_CHARACTERS = 6


class Keyboard:
    """Keys as they are pressed, on the terminal that is standard input, from `with` to its end.

    Ctrl-C interrupts as ever; Ctrl-Z is a key ("suspend"), so that nothing stops with the terminal
    in disorder.
    """

    def __init__(self) -> None:
        self._fd = sys.stdin.fileno()
        self._before: list[Any] | None = None
        self._keys: deque[str] = deque()

    def __enter__(self) -> "Keyboard":
        self._before = termios.tcgetattr(self._fd)
        atexit.register(self.restore)
        tty.setcbreak(self._fd)
        mode = termios.tcgetattr(self._fd)
        mode[_CHARACTERS][termios.VSUSP] = b"\0"  # which means: no character at all
        termios.tcsetattr(self._fd, termios.TCSANOW, mode)
        return self

    def __exit__(self, *_: object) -> None:
        self.restore()
        atexit.unregister(self.restore)

    def restore(self) -> None:
        """Leave the terminal as it was found.  Idempotent."""
        if self._before is not None:
            termios.tcsetattr(self._fd, termios.TCSADRAIN, self._before)
            self._before = None

    def key(self, timeout: float) -> str | None:
        """The next key, a character or a name; None after *timeout* seconds.  EOFError: no more."""
        if not self._keys and select.select([self._fd], [], [], timeout)[0]:
            read = os.read(self._fd, 1024)
            if not read:
                raise EOFError
            self._keys.extend(_keys(read))
        return self._keys.popleft() if self._keys else None


def suspend() -> None:
    """Stop this process and its group as Ctrl-Z does; returns when it goes on."""
    os.kill(0, signal.SIGTSTP)


def _keys(read: bytes) -> list[str]:
    """The keys in what a terminal sent."""
    found: list[str] = []
    while read:
        sequence = next((each for each in _LONGEST_FIRST if read.startswith(each)), None)
        if sequence == b"\x1b" and len(read) > 1:  # a key that is none of ours
            return found
        if sequence is not None:
            found.append(_NAMES[sequence])
            read = read[len(sequence) :]
        else:
            text = read.decode(errors="replace").partition("\x1b")[0]
            found.append(text[0])
            read = read[len(text[0].encode()) :] if text[0] != "\N{REPLACEMENT CHARACTER}" else b""
    return found
