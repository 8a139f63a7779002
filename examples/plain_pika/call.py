"""python examples/run.py plain_pika: send a task with nothing but pika, no taskq and no Celery.

Needs RabbitMQ: TASKQ_BROKER_URL=amqp://guest:guest@localhost// before the command.  The worker is
that of the quickstart.  Every word of the message is explained in docs/protocol.md.
"""

import json
import os
import sys
import uuid

import pika

url = os.environ.get("TASKQ_BROKER_URL", "")
if not url.startswith("amqp"):
    sys.exit("This example speaks AMQP: set TASKQ_BROKER_URL=amqp://guest:guest@localhost//")
connection = pika.BlockingConnection(pika.URLParameters(url))
channel = connection.channel()
channel.confirm_delivery()  # from now on publishing waits until the broker has the message

# A worker declares its queues itself.  A producer that may come first does it in the same words.
channel.queue_declare(
    "default.dead",
    durable=True,
    arguments={
        "x-queue-type": "quorum",
        "x-max-length": 1_000_000,
        "x-overflow": "drop-head",
        "x-delivery-limit": 1_000_000,
    },
)
channel.queue_declare(
    "default",
    durable=True,
    arguments={
        "x-queue-type": "quorum",
        "x-dead-letter-exchange": "",
        "x-dead-letter-routing-key": "default.dead",
        "x-dead-letter-strategy": "at-least-once",
        "x-overflow": "reject-publish",
        "x-delivery-limit": 100,
    },
)

# Where the result is to go: any queue will do.
replies = channel.queue_declare("", exclusive=True).method.queue

task_id = str(uuid.uuid4())
channel.basic_publish(
    exchange="",
    routing_key="default",
    mandatory=True,
    properties=pika.BasicProperties(
        content_type="application/json",
        content_encoding="utf-8",
        delivery_mode=2,
        correlation_id=task_id,
        reply_to=replies,
        headers={"task": "tasks.add", "id": task_id},
    ),
    body=json.dumps([[2, 3], {}, {}]),
)
print("sent", task_id)

for _method, _properties, body in channel.consume(replies, auto_ack=True, inactivity_timeout=30):
    if body is None:
        sys.exit("no result within 30 s")
    answer = json.loads(body)
    print(answer["status"], answer["result"])
    break
connection.close()
