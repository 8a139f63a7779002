"""How often a task may begin: tokens for each task name, and when to come back without one.

A limit of 10/s makes a token every tenth of a second, and one is kept for the next task that
comes.  That holds for one worker, as in Celery: two workers run 20 a second.  Pure: moments, in
seconds since the epoch, are passed in.

A message whose token is nearly there is held, and the token is its own.  One that would wait for
longer goes back to the broker, by its ladder of delays: what is held fills the window, and other
tasks of the queue are to run on.  When it should come back is the question of this file:

- Not all at the next token.  One would run and the others go round, again and again.
- Not each at a token of its own either.  That promise cannot be kept: the worker may go, and it
  cannot be taken back when the limit is lifted, or another worker has tokens to spare.

So they come back one by one, in the order in which they went, `_TRIES` for each token.  However
many there are, a token finds somebody, and who finds none goes to the end of the row: some journeys
in vain for each run, which no flood of messages can raise.  Why more than one for a token: two may
come to the same worker, or one a bit too early, and a token that nobody takes is lost.

Nobody stays away longer than `LONGEST`, though, and somebody looks in every `_SELDOM` seconds, so
that a new limit or a new worker is soon felt.  A row that reaches further is put on top of itself:
with n messages in it, about n / (0.75 * LONGEST) a second come in vain.
"""

#: Seconds for which a message goes away at most.
LONGEST = 600.0
#: How many messages come back in the time of one token.
_TRIES = 3
#: ... or, where tokens are rare, one in so many seconds.
_SELDOM = 15.0


class Bucket:
    """The tokens of one task, *rate* of them a second, of which one is kept."""

    def __init__(self, rate: float) -> None:
        self.rate = rate
        self._interval = 1 / rate
        self._step = min(self._interval / _TRIES, _SELDOM)
        #: When the next token is there.
        self._next = 0.0
        #: When the last of those that went away comes back.
        self._last = 0.0

    def take(self, start: float, latest: float) -> float | None:
        """Take a token that is there at *start* or later: when; None if not until *latest*."""
        if self._next > latest + self._interval:  # the clock was put back
            self._next = start
        at = max(start, self._next)
        if at > latest:
            return None
        self._next = at + self._interval
        return at

    def come_back(self, now: float) -> float:
        """When a message that finds no token at *now* should try again."""
        first = max(now, min(self._next, now + _SELDOM))
        self._last = max(self._last + self._step, first)
        if self._last > now + LONGEST:
            self._last = now + LONGEST / 2
        return self._last
