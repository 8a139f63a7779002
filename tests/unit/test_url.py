"""Passwords are hidden wherever a URL can hold one."""

import pytest

from taskq.url import masked


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("amqp://me:secret@h/v", "amqp://me:***@h/v"),
        ("redis://:secret@h/0", "redis://:***@h/0"),
        ("amqp://me:se:cr@et@h/v", "amqp://me:***@h/v"),
        ("no amqp://a:b@h, nor redis://:c@h", "no amqp://a:***@h, nor redis://:***@h"),
        ("redis://h/0?db=1&password=secret&x=1", "redis://h/0?db=1&password=***&x=1"),
        ("rediss://h/?ssl_password=secret", "rediss://h/?ssl_password=***"),
        ("at 'db+postgresql://h/d?password=secret'", "at 'db+postgresql://h/d?password=***'"),
        ("amqps://h/?cacertfile=/etc/ca.pem", "amqps://h/?cacertfile=/etc/ca.pem"),
        ("sqlite:////tmp/taskq.db", "sqlite:////tmp/taskq.db"),
    ],
)
def test_a_password_is_masked_and_the_rest_is_left(text: str, shown: str) -> None:
    assert shown == masked(text)
