"""Server programs as children of the tests: found with a clear word, ended with the tests."""

import os
import shutil
from collections.abc import Sequence

#: Debian keeps servers out of an ordinary user's path.
_PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])


def find_program(name: str, package: str, *places: str) -> str:
    """The path of program *name*, looked for in the folders *places* first and then on the path.

    AssertionError naming Debian's *package* if it is nowhere: a missing server fails the tests,
    because a promise that was skipped looks like one that was kept.
    """
    found = shutil.which(name, path=os.pathsep.join([*places, _PATH]))
    assert found, f"{name} is not installed; apt-get install {package} (`make test` does it)"
    return found


def leashed(*command: str) -> Sequence[str]:
    """*command*, to be killed by the kernel when the thread that starts it ends without a word."""
    setpriv = shutil.which("setpriv")  # Linux only: elsewhere the child is merely not leashed
    return (setpriv, "--pdeathsig", "KILL", *command) if setpriv else command
