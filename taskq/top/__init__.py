"""What `taskq top` shows, without a terminal.

`picture` gathers what is known and makes tables of it, `stage` is what keys do to the view; both
are pure.  `feed` brings events, answers of workers and numbers of queues.  Drawing and the keyboard
are the business of `cli`.
"""
