"""The worker's side of the demo: one task that counts the tokens of a Python file."""

import io
import time
import tokenize
from pathlib import Path
from typing import Any

from taskq import TaskQ

app = TaskQ("demo")


@app.task(name="demo.count_tokens")
def count_tokens(path: str) -> dict[str, Any]:
    """Lines and tokens of the Python source at *path*, and the seconds that counting took."""
    began = time.perf_counter()
    source = Path(path).read_bytes()
    tokens = 0
    try:
        for _ in tokenize.tokenize(io.BytesIO(source).readline):
            tokens += 1
    except (SyntaxError, tokenize.TokenError, UnicodeDecodeError):
        pass  # Python's own tests contain broken files on purpose: count up to the flaw
    seconds = time.perf_counter() - began
    return {"path": path, "lines": source.count(b"\n"), "tokens": tokens, "seconds": seconds}
