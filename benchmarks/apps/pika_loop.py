"""The shortest consumer in Python: pika's blocking connection, acknowledging in batches.

`pika_loop.py URL QUEUE COUNT BATCH PREFETCH` takes COUNT messages and ends.
"""

import sys
from itertools import count as numbers_from
from typing import Any

import pika


def main(url: str, queue: str, count: int, batch: int, prefetch: int) -> None:
    connection = pika.BlockingConnection(pika.URLParameters(url))
    channel = connection.channel()
    channel.basic_qos(prefetch_count=prefetch)
    numbers = numbers_from(1)

    def take(_channel: Any, method: Any, _properties: Any, _body: bytes) -> None:
        number = next(numbers)
        if number % batch == 0 or number == count:
            channel.basic_ack(method.delivery_tag, multiple=True)
        if number == count:
            channel.stop_consuming()

    channel.basic_consume(queue, take)
    channel.start_consuming()
    connection.close()


if __name__ == "__main__":
    url, queue, *numbers = sys.argv[1:]
    main(url, queue, *map(int, numbers))
