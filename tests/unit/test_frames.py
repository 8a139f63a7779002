"""Frames across a real socketpair, both ways."""

import socket
import threading

from taskq.loop import Loop
from taskq.worker import frames
from taskq.worker.frames import ChildLine, Frame, ParentLine


class Pair:
    """A parent's line on a loop, a child's line, and what the parent heard."""

    def __init__(self) -> None:
        self.loop = Loop()
        ours, theirs = socket.socketpair()
        self.heard: list[Frame] = []
        self.ended = False
        self.parent = ParentLine(self.loop, ours, on_frame=self.heard.append, on_end=self._end)
        self.child_socket = theirs
        self.child = ChildLine(theirs)

    def _end(self) -> None:
        self.ended = True

    def close(self) -> None:
        self.parent.close()
        self.child_socket.close()
        self.loop.close()


def test_frames_arrive_in_order_and_whole() -> None:
    pair = Pair()
    sent = [[frames.DONE, n, "success", 0.5, {"k": b"\0" * n}] for n in range(200)]

    for frame in sent:
        pair.child.send(frame)
    while len(pair.heard) < len(sent):
        pair.loop.turn(1.0)

    assert sent == pair.heard
    pair.close()


def test_a_frame_larger_than_every_buffer_crosses_both_ways() -> None:
    pair = Pair()
    large = b"x" * 5_000_000
    received: list[Frame] = []
    reader = threading.Thread(target=lambda: received.extend(pair.child.frames()))
    reader.start()

    pair.parent.send([frames.RUN, 1, "before", large])
    pair.parent.send([frames.RUN, 2, b"small"])
    pair.parent.send([frames.STOP])
    while reader.is_alive():
        pair.loop.turn(0.1)
    writer = threading.Thread(target=pair.child.send, args=([frames.DONE, 1, large],))
    writer.start()
    while not pair.heard:
        pair.loop.turn(1.0)
    writer.join()

    assert [[frames.RUN, 1, "before", large], [frames.RUN, 2, b"small"]] == received
    assert [[frames.DONE, 1, large]] == pair.heard
    pair.close()


def test_answers_reach_the_thread_that_asked_and_jobs_wait_their_turn() -> None:
    pair = Pair()
    answers: dict[int, str | None] = {}

    def ask() -> None:
        ticket = pair.child.ticket()
        pair.child.send([frames.FLUSH, 1, ticket])
        answers[ticket] = pair.child.answer(ticket)

    askers = [threading.Thread(target=ask) for _ in range(8)]
    for asker in askers:
        asker.start()
    while len(pair.heard) < 8:
        pair.loop.turn(1.0)
    pair.parent.send([frames.RUN, 2])
    for _word, _job, ticket in reversed(pair.heard):
        pair.parent.send([frames.ANSWER, ticket, f"no {ticket}"])
    pair.parent.send([frames.STOP])
    pair.loop.turn(0.0)
    for asker in askers:
        asker.join(10)

    assert {n: f"no {n}" for n in range(1, 9)} == answers
    assert list(pair.child.frames()) == [[frames.RUN, 2]]
    pair.close()


def test_what_is_done_is_said_before_the_child_waits_for_more() -> None:
    """The last order may be none to run a job, and what was done was kept for the next one."""
    pair = Pair()
    pair.parent.send([frames.RUN, 1])
    pair.parent.send([frames.EVENTS, True])
    pair.loop.turn(0.0)

    def stop_when_heard() -> None:
        for _ in range(100):
            pair.loop.turn(0.1)
            if pair.heard:
                break
        pair.parent.send([frames.STOP])
        pair.loop.turn(0.0)

    parent = threading.Thread(target=stop_when_heard)
    orders = pair.child.frames()
    assert next(orders) == [frames.RUN, 1]
    parent.start()
    pair.child.done(1, 0.25)
    assert [*orders] == [[frames.EVENTS, True]]
    parent.join()

    assert [[frames.DONE, [1, 0.25], []]] == pair.heard
    pair.close()


def test_a_paused_line_leaves_the_childs_words_in_the_socket() -> None:
    pair = Pair()
    pair.parent.pause(True)
    pair.child.send([frames.READY, 1])

    pair.loop.turn(0.0)
    heard_while_paused = list(pair.heard)
    pair.parent.pause(False)
    while not pair.heard:
        pair.loop.turn(1.0)

    assert heard_while_paused == []
    assert pair.heard == [[frames.READY, 1]]
    pair.close()


def test_what_a_dead_child_said_last_is_still_heard() -> None:
    pair = Pair()
    pair.child.send([frames.DONE, 1])
    pair.child_socket.close()

    pair.parent.drain()

    assert pair.heard == [[frames.DONE, 1]]
    pair.close()
