"""Bytes to values and back: everything that other programs can see of taskq.

No socket, no clock, no user code; all compatibility with Celery lives in this room.
"""
