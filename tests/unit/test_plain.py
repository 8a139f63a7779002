"""What a worker says of its settings: all that JSON can have, and no secret."""

import json
from datetime import timedelta

import pytest

from taskq.worker.plain import disclosed, plain


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, None),
        (True, True),
        ((1, 2.5), [1, 2.5]),
        ({1: {"a"}}, {"1": ["a"]}),
        (float("inf"), "inf"),
        (timedelta(seconds=1), "datetime.timedelta(seconds=1)"),
        (b"bytes", "b'bytes'"),
    ],
)
def test_whatever_it_is_json_can_have_it(value, shown):
    assert shown == plain(value)
    json.dumps(plain(value), allow_nan=False)


def test_no_password_is_told():
    shown = disclosed(
        {
            "broker_url": "amqp://me:hidden@host/;amqp://me:hidden@other/",
            "result_backend": "db+postgresql://host/x?password=hidden",
            "broker_use_ssl": {"certfile": "/there", "password": "hidden", "enabled": True},
            "urls": ["redis://:hidden@host"],
            "some_api_token": "hidden",
            "empty_password": None,
            "object": timedelta(1),
        }
    )

    assert "hidden" not in json.dumps(shown)
    assert "/there" == shown["broker_use_ssl"]["certfile"]
    assert shown["empty_password"] is None
