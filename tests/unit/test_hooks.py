"""Hooks: who is told, and that nobody who is told can break anything."""

import logging

import pytest

from taskq.hooks import Hook


@pytest.fixture
def hook():
    @Hook
    def something(*, what: str) -> None:
        """Something happened."""

    return something


def test_a_handler_is_told_the_fields(hook):
    heard = []

    @hook
    def listen(*, what, **_):
        heard.append(what)

    hook.send(what="this")

    assert heard == ["this"]


def test_adding_twice_is_adding_once_and_disconnecting_ends_it(hook):
    heard = []
    hook(heard.append)
    listen = lambda **fields: heard.append(fields)  # noqa: E731
    hook.disconnect(heard.append)
    hook(listen)
    hook(listen)

    hook.send(what="a")
    hook.disconnect(listen)
    hook.send(what="b")
    hook.disconnect(listen)

    assert heard == [{"what": "a"}]


def test_a_handler_that_fails_is_logged_and_the_next_is_told(hook, caplog):
    heard = []

    @hook
    def broken(**_):
        raise RuntimeError("no good")

    @hook
    def listen(**_):
        heard.append(1)

    with caplog.at_level(logging.ERROR, logger="taskq"):
        hook.send(what="x")

    assert heard == [1]
    assert "broken" in caplog.text
    assert "no good" in caplog.text


def test_a_hook_knows_whether_anybody_listens(hook):
    assert not hook
    hook(lambda **_: None)
    assert hook


def test_a_handler_may_disconnect_itself_while_it_is_told(hook):
    heard = []

    @hook
    def once(**_):
        heard.append("once")
        hook.disconnect(once)

    @hook
    def always(**_):
        heard.append("always")

    hook.send(what="x")
    hook.send(what="y")

    assert heard == ["once", "always", "always"]
