"""python examples/run.py two_queues: slow tasks have a worker of their own and hold up nobody.

In three shells in this folder:

    taskq worker -n fast -Q fast -c 2
    taskq worker -n slow -Q slow -c 1
    python call.py
"""

from tasks import report, thumbnail

reports = [report.delay(month) for month in ("January", "February", "March")]
thumbnails = [thumbnail.delay(f"{number}.png") for number in range(5)]

for result in thumbnails:
    print("thumbnail", result.get(timeout=30))
print("reports that are ready by now:", sum(result.ready() for result in reports))
for result in reports:
    print("report", result.get(timeout=30))
