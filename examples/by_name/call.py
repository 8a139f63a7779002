"""python examples/run.py by_name: call tasks by their names, from a program without their code.

The worker is that of the quickstart; this program could be on any other machine.  It needs the
broker's URL (here from TASKQ_BROKER_URL), the name of a task, and what it takes.
"""

from taskq import TaskQ

app = TaskQ("somewhere-else")

result = app.send_task("tasks.add", args=(20, 22))
print("tasks.add:", result.get(timeout=30))

# Nobody can check the arguments here, so the worker's complaint comes back instead.
result = app.send_task("tasks.add", args=(20,))
try:
    result.get(timeout=30)
except TypeError as error:
    print("tasks.add:", error)
