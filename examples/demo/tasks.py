"""The worker's side of the demo: one task that counts the tokens of a Python file."""

import tokenize

from taskq import TaskQ

app = TaskQ("demo")


@app.task(name="demo.count_tokens")
def count_tokens(path: str) -> dict[str, int | str]:
    """How many lines and tokens the Python source at *path* has."""
    with tokenize.open(path) as file:
        lines = file.readlines()
    try:
        tokens = sum(1 for _ in tokenize.generate_tokens(iter(lines).__next__))
    except (SyntaxError, tokenize.TokenError):
        tokens = 0  # the standard library's tests contain broken files on purpose
    return {"path": path, "lines": len(lines), "tokens": tokens}
