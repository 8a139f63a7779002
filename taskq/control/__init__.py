"""Remote control: commands that reach workers while they work, and the answers to them.

`mailbox` hears commands in a worker, `commands` says what each does, `memory` keeps what must
outlive a worker, and `inspector` is the caller's side, `app.control`.  What a command may ask of a
worker is in `base`; how it looks on the wire is the business of `wire.control`.
"""
