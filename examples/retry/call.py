"""python examples/run.py retry: tasks that fail, wait in the broker, and are tried again.

The same as two shells in this folder: `taskq worker -c 2` and `python call.py`.
"""

from tasks import fetch, pay

print(fetch.delay("index.html").get(timeout=30))

# When all retries are used up, the last exception is the result.
result = pay.delay(100)
try:
    result.get(timeout=30)
except ConnectionError as error:
    print("given up:", error)
