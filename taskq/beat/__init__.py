"""Beat: what sends tasks when they are due; schedules themselves are in `taskq.schedules`."""
