"""What a program that sends work imports: tasks, calls and results; nothing here runs a worker."""
