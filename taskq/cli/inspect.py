"""`taskq inspect`: workers are asked what they are doing, and their answers shown."""

from taskq.cli.remote import Words

inspect = Words("inspect", "Ask workers what they are doing.")
