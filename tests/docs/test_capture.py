"""What README shows of `taskq top` has the form of what it prints."""

from pathlib import Path

import pytest

from tests.docs import capture
from tests.support.process import StartWorker
from tests.support.rabbit import Rabbit


def test_the_readme_shows_taskq_top_as_it_is(
    rabbit: Rabbit, worker_process: StartWorker, tmp_path: Path
) -> None:
    taken = capture.take(rabbit.url, tmp_path, worker_process)

    assert capture.form(capture.shown()) == capture.form(taken), taken


def test_another_form_is_seen() -> None:
    shown = capture.form(capture.shown())

    for change in (("READY", "ROWS"), ("mail@shop", "post@shop"), ("workers", "hosts")):
        assert shown != capture.form(capture.shown().replace(*change))
    with pytest.raises(AssertionError):
        capture.form(capture.shown().replace("online ", "", 1))
