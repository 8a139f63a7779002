"""The benchmark's tasks and calls in dramatiq."""

from typing import Any

import dramatiq
import work
from dramatiq.brokers.rabbitmq import RabbitmqBroker


class TypedQueues(RabbitmqBroker):
    """Its own broker, but for the type of the queues, which has no setting."""

    def _build_queue_arguments(self, queue_name: str) -> dict[str, Any]:
        own = super()._build_queue_arguments(queue_name)
        return own | {"x-queue-type": work.SETTINGS["queue_type"]}


broker = TypedQueues(
    url=work.SETTINGS["url"], confirm_delivery=work.SETTINGS.get("confirm_delivery", False)
)
dramatiq.set_broker(broker)

ACTORS = {
    name: dramatiq.actor(function, actor_name=name, queue_name=work.QUEUE)
    for name, function in work.TASKS.items()
}


def send(task: str, *args: Any) -> None:
    ACTORS[task].send(*args)


def send_many(calls: list[tuple[Any, ...]]) -> None:
    for call in calls:
        send(*call)


def close() -> None:
    broker.close()
