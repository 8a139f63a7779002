"""A producer as a preloading web server is one: sends, forks, and sends on both sides of the fork.

`flood.py BROKER QUEUE THREADS COUNT`: each of THREADS threads of the parent, and the forked child,
send COUNT tasks; the ids are printed, one a line.
"""

import os
import sys
import threading

from taskq import TaskQ


def send(app: TaskQ, queue: str, count: int, ids: list[str]) -> None:
    for n in range(count):
        ids.append(app.send_task("tasks.record", args=(n,), queue=queue, ignore_result=True).id)


def main(broker: str, queue: str, threads: int, count: int) -> None:
    app = TaskQ("flood", broker=broker)
    ids: list[str] = []
    send(app, queue, 1, ids)  # the connection is open when the fork comes
    child = os.fork()
    if child == 0:
        ids.clear()
        send(app, queue, count, ids)
    else:
        senders = [
            threading.Thread(target=send, args=(app, queue, count, ids)) for _ in range(threads)
        ]
        for sender in senders:
            sender.start()
        for sender in senders:
            sender.join()
        _, status = os.waitpid(child, 0)
        assert status == 0
    app.close()
    sys.stdout.write("".join(f"{each}\n" for each in ids))
    sys.stdout.flush()
    os._exit(0) if child == 0 else None


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
