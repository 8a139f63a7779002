"""python examples/run.py quickstart: the same as two shells in this folder.

taskq worker -c 2
python call.py
"""

from tasks import add, app, divide

# delay() takes what the function takes, and returns when the broker has the message.
print("2 + 3 =", add.delay(2, 3).get(timeout=30))

# Many at once: their confirms are awaited together.
results = app.send_many(add.s(n, n) for n in range(10))
print("doubled:", [result.get(timeout=30) for result in results])

# What a task raises is raised again here; its notes hold the worker's own traceback.
try:
    divide.delay(1, 0).get(timeout=30)
except ZeroDivisionError as error:
    print("1 / 0 :", error)
