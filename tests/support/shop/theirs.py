"""The tasks of the fleet for real Celery: its worker, its command line and Flower."""

import os

import deeds
from celery import Celery

app = Celery("shop", broker=os.environ["SHOP_BROKER"], backend=os.environ["SHOP_RESULTS"])
app.conf.broker_connection_retry_on_startup = True
app.conf.task_track_started = True

for deed in (deeds.add, deeds.fail, deeds.hold, deeds.note):
    app.task(name=f"shop.{deed.__name__}")(deed)
