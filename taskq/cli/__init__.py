"""The `taskq` command: one file for each group of commands, each turns options into one call."""
