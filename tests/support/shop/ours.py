"""The tasks of the fleet for taskq's workers."""

import os

import deeds

from taskq import TaskQ

app = TaskQ("shop", broker=os.environ["SHOP_BROKER"], backend=os.environ["SHOP_RESULTS"])
app.conf.task_track_started = True

for deed in (deeds.add, deeds.fail, deeds.hold, deeds.note):
    app.task(name=f"shop.{deed.__name__}")(deed)
