"""`taskq control`: workers are told what to do, and say what they make of it."""

from taskq.cli.remote import Words

control = Words("control", "Tell workers what to do.")
