"""The other libraries, in a virtual environment of their own that is made when first wanted."""

import subprocess
import sys
import venv
from collections.abc import Callable
from pathlib import Path

#: What is measured against taskq; make new ones of this list the newest there are, now and then.
REQUIREMENTS = Path(__file__).parent / "peers.txt"

#: Whatever benchmarks keep: the peers, the compiled client, the figures.
STORE = Path(sys.prefix) / "bench"

_PEERS = STORE / "peers"


def install(say: Callable[[str], None]) -> None:
    """Make the environment as `REQUIREMENTS` says; nothing to do if it is so already."""
    installed = _PEERS / "installed.txt"
    wanted = REQUIREMENTS.read_text()
    if installed.exists() and installed.read_text() == wanted:
        return
    say(f"installing the peers into {_PEERS}")
    venv.create(_PEERS, with_pip=True, clear=True)
    pip = [program("python"), "-m", "pip", "install", "-qq", "-r", str(REQUIREMENTS)]
    subprocess.run(pip, check=True)
    installed.write_text(wanted)


def program(name: str) -> str:
    """The path of one of the peers' programs."""
    return str(_PEERS / "bin" / name)


def versions() -> dict[str, str]:
    """The versions of the peers."""
    lines = REQUIREMENTS.read_text().splitlines()
    pairs = (line.partition("==") for line in lines if "==" in line and line[0] != "#")
    return {name.partition("[")[0]: version for name, _, version in pairs}
