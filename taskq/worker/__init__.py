"""Running tasks: one parent that holds the broker, one nursery that forks, children that work.

The parent never imports the app; a child never talks to the broker.  What decides (dispatcher,
gate, outcome, ledger) touches no socket, clock or chance; what does is little.
"""
