"""The agenda: each due time once, whatever happens to entries, clocks and beats meanwhile."""

import random
from collections import Counter
from dataclasses import replace
from itertools import pairwise, takewhile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskq import states
from taskq.beat.agenda import LONGEST_SLEEP, Agenda
from taskq.beat.base import Row, Run, merged
from taskq.beat.policy import may_start, to_send
from taskq.schedules import Occurrence, Schedule, read_entry

#: 2024-05-05 12:00 UTC.
NOON = 1_714_910_400.0
HOUR = 3600.0
GRACE = 60.0


def entry(name="report", schedule="* * * * *", **given):
    return read_entry(name, {"task": "reports.make", "schedule": schedule, **given})


class Clock:
    """A wall clock that can be set, beside one that cannot."""

    def __init__(self, wall=NOON):
        self.wall = wall
        self.monotonic = 1000.0

    def pass_by(self, seconds):
        self.wall += seconds
        self.monotonic += seconds


def beat(agenda, clock, seconds, *, late=lambda: 0.0):
    """Do what beat does for *seconds*: what is sent, and when by the clock that nobody sets."""
    end = clock.monotonic + seconds
    sent = []
    while True:
        for occurrence in agenda.turn(clock.wall):
            sent.append((clock.monotonic, occurrence))
            agenda.settle(occurrence)
        if clock.monotonic >= end:
            return sent
        patience = agenda.patience(clock.wall)
        assert 0 <= patience <= LONGEST_SLEEP
        clock.pass_by(max(1e-6, min(patience + late(), end - clock.monotonic)))


def ids(sent):
    return [occurrence.id for _, occurrence in sent]


def due_times(entries, after, until):
    """The ids that a schedule has, read one entry after the other."""
    return {
        occurrence.id
        for each in entries
        for occurrence in takewhile(lambda each: each.at <= until, each.upcoming(after))
    }


def many(count, seed=1):
    """Entries of all kinds."""
    chance = random.Random(seed)
    minutes = "*/5", "*", "7,31", "*/20", "59"
    zones = "Europe/Berlin", "Asia/Kathmandu", "UTC"
    found = []
    for number in range(count):
        kind = chance.choice(["interval", "crontab", "relative", "clocked"])
        schedule = {
            "interval": {"every": chance.choice([0.7, 5, 30, 61.5, 300, 7200])},
            "crontab": {
                "crontab": f"{chance.choice(minutes)} {chance.choice(['*', '12-13'])} * * *",
                "timezone": chance.choice(zones),
            },
            "relative": {"every": chance.choice([60, 600, 3600]), "relative": True},
            "clocked": {"clocked": f"2024-05-05T12:{chance.randint(0, 59):02}:07Z"},
        }[kind]
        found.append(entry(f"{kind} {number}", schedule, jitter=chance.choice([0, 0, 3, 90])))
    return found


# -- an hour --------------------------------------------------------------------------------------


def test_an_hour_of_schedule_sends_each_due_time_once():
    entries = many(150)
    clock, chance = Clock(), random.Random(2)
    agenda = Agenda(entries, now=clock.wall)

    sent = beat(agenda, clock, HOUR, late=lambda: chance.choice([0, 0, 0.01, 2]))

    assert Counter(ids(sent)) == Counter(due_times(entries, NOON, clock.wall))
    assert len(sent) > 10_000


def test_nothing_is_sent_before_its_time():
    entries = many(50)
    agenda = Agenda(entries, now=NOON)

    now = NOON
    while now < NOON + HOUR:
        now = agenda.next_at
        assert all(each.at == now for each in agenda.turn(now))


def test_ten_thousand_entries_come_200_a_second():
    entries = [entry(f"entry {number}", 50) for number in range(10_000)]
    agenda = Agenda(entries, now=NOON)

    sent = beat(agenda, Clock(), 100.0)

    assert Counter(ids(sent)) == Counter(due_times(entries, NOON, NOON + 100))
    each_second = Counter(int(moment) for moment, _ in sent)
    assert max(each_second.values()) < 400


def test_ten_thousand_due_at_one_instant_are_handed_out_together():
    agenda = Agenda([entry(f"entry {n}", "0 13 * * *") for n in range(10_000)], now=NOON)

    assert agenda.turn(NOON + HOUR - 0.001) == []
    assert len({each.id for each in agenda.turn(NOON + HOUR)}) == 10_000
    assert agenda.turn(NOON + HOUR) == []


# -- a successor ----------------------------------------------------------------------------------


def test_a_successor_goes_on_where_the_last_one_was():
    """Each leader dies with some of its last turn unsent: nothing is lost, an id stays an id."""
    entries = many(100)
    chance, now, through = random.Random(3), NOON, NOON
    confirmed = Counter()
    while now < NOON + HOUR:
        agenda = Agenda(entries, now=now, through=through)
        turns = chance.randint(1, 40)
        for number in range(turns):
            now += chance.choice([0.01, 0.5, 3])
            handed_out = agenda.turn(now)
            dies = number == turns - 1
            for occurrence in chance.sample(handed_out, len(handed_out) // (1 + dies)):
                confirmed[occurrence.id] += 1
                agenda.settle(occurrence)
            through = agenda.through
        now += chance.choice([0, 5, 20])
    confirmed.update(each.id for each in Agenda(entries, now=now, through=through).turn(now))

    assert due_times(entries, NOON, now) == set(confirmed)
    assert max(confirmed.values()) > 1


def test_how_far_it_has_come_waits_for_what_is_not_confirmed():
    agenda = Agenda([entry("a"), entry("b")], now=NOON)
    assert agenda.through == NOON

    first, second = agenda.turn(NOON + 60)
    assert NOON < agenda.through < NOON + 60

    agenda.settle(first)
    assert agenda.through < NOON + 60

    agenda.settle(second)
    assert agenda.through == NOON + 60
    assert agenda.turn(NOON + 61) == []
    assert agenda.through == NOON + 61


def test_a_schedule_without_a_past_begins_now():
    agenda = Agenda([entry()], now=NOON)

    assert agenda.turn(NOON) == []
    assert agenda.next_of("report").id == "report@2024-05-05T12:01:00Z"


# -- entries that change --------------------------------------------------------------------------


def test_entries_come_and_go_while_it_runs():
    agenda, clock = Agenda([entry("old", 10)], now=NOON), Clock()
    assert {each.split("@")[0] for each in ids(beat(agenda, clock, 20))} == {"old"}

    agenda.put(entry("new", 10))
    assert len(ids(beat(agenda, clock, 20))) == 4

    agenda.remove("old")
    agenda.remove("unknown")
    assert {each.split("@")[0] for each in ids(beat(agenda, clock, 20))} == {"new"}
    assert [each.name for each in agenda] == ["new"]


def test_a_changed_entry_is_due_by_its_new_schedule_from_now_on():
    agenda, clock = Agenda([entry(schedule="0 13 * * *")], now=NOON), Clock()
    beat(agenda, clock, 90)

    agenda.put(entry(schedule="*/1 * * * *"))

    assert ids(beat(agenda, clock, 60)) == ["report@2024-05-05T12:02:00Z"]
    assert len(agenda) == 1


def test_a_disabled_entry_is_not_due_until_it_is_enabled():
    agenda, clock = Agenda([entry(enabled=False)], now=NOON), Clock()
    assert ids(beat(agenda, clock, 600)) == []
    assert agenda.next_of("report") is None
    assert agenda["report"].enabled is False

    agenda.put(entry())
    assert ids(beat(agenda, clock, 60)) == ["report@2024-05-05T12:11:00Z"]


def test_what_was_due_before_an_entry_was_there_does_not_count():
    added = replace(entry(), since=NOON + 90)

    agenda = Agenda([entry("old"), added], now=NOON + 300, through=NOON)

    assert [each.id for each in agenda.turn(NOON + 300) if each.entry is added] == [
        "report@2024-05-05T12:05:00Z"
    ]


def test_replacing_all_entries_touches_only_those_that_differ():
    a, b, c = entry("a", 10), entry("b", 10), entry("c", 10)
    agenda = Agenda([a, b], now=NOON)
    plan = agenda.next_of("a")

    assert not agenda.replace({"a": entry("a", 10), "b": b})
    assert agenda.replace({"a": a, "c": c})
    assert {each.name for each in agenda} == {"a", "c"}
    assert agenda.next_of("a") is plan
    assert agenda.replace({"a": a, "c": entry("c", 20)})
    assert agenda["c"].schedule.seconds == 20


def test_entries_that_change_all_the_time_leave_nothing_behind():
    agenda = Agenda([entry("yearly", "@yearly")], now=NOON)
    for number in range(10_000):
        agenda.put(entry("yearly", "@yearly", args=[number]))
        agenda.put(entry(f"passing {number}", "@yearly"))
        agenda.remove(f"passing {number}")

    assert len(agenda._heap) < 100
    assert agenda.turn(agenda.next_at)[0].entry.args == (9999,)


@given(st.lists(st.tuples(st.integers(0, 4), st.sampled_from(["put", "remove", "turn"]))))
def test_however_entries_change_what_is_handed_out_is_due_and_there(steps):
    agenda, now, there = Agenda(now=NOON), NOON, {}
    handed_out = []
    for number, step in steps:
        if step == "put":
            there[f"{number}"] = entry(f"{number}", 7 + number)
            agenda.put(there[f"{number}"])
        elif step == "remove":
            there.pop(f"{number}", None)
            agenda.remove(f"{number}")
        else:
            before, now = now, now + number * 3
            found = agenda.turn(now)
            assert all(before < each.at <= now and there[each.entry.name] for each in found)
            handed_out += found
    assert len(handed_out) == len({each.id for each in handed_out})


# -- clocks that are set --------------------------------------------------------------------------


def test_a_clock_put_forward_by_an_hour_is_an_hour_that_was_missed():
    entries = [
        *(entry("skip", missed="skip"), entry("once"), entry("all", missed="all")),
        *(entry("some", missed="all", missed_limit=5), entry("later", "30 14 * * *")),
    ]
    agenda, clock = Agenda(entries, now=NOON), Clock()
    before = beat(agenda, clock, 90)

    clock.wall += HOUR
    after = beat(agenda, clock, 90)

    assert Counter(each.entry.name for _, each in before) == dict.fromkeys(
        ["skip", "once", "all", "some"], 1
    )
    # 12:02 to 13:01 were missed (the last by less than a minute), 13:02 and 13:03 come in time.
    assert Counter(each.entry.name for _, each in after) == {
        "skip": 3,
        "once": 3,
        "all": 62,
        "some": 7,
    }
    assert len(set(ids(before + after))) == len(before + after)


def test_a_clock_put_back_by_an_hour_repeats_no_due_time_of_a_crontab():
    entries = [entry("crontab", "*/10 * * * *"), entry("relative", 600, relative=True)]
    agenda, clock = Agenda(entries, now=NOON), Clock()
    sent = beat(agenda, clock, HOUR + 30)

    clock.wall -= HOUR
    again = beat(agenda, clock, 2 * HOUR)

    assert Counter(ids(sent + again)) == Counter(due_times(entries, NOON, clock.wall))
    assert all(moment >= 1000 + 2 * HOUR for moment, _ in again)


def test_a_clock_put_back_by_an_hour_holds_up_no_interval():
    agenda, clock = Agenda([entry(schedule=30)], now=NOON), Clock()
    sent = beat(agenda, clock, 600)

    clock.wall -= HOUR
    sent += beat(agenda, clock, 600)

    moments = [moment for moment, _ in sent]
    assert max(b - a for a, b in pairwise(moments)) <= 30 + 1e-3
    assert len(sent) == 40


def test_a_clock_put_back_by_a_little_repeats_nothing():
    entries = [entry("crontab"), entry("interval", 5)]
    agenda, clock = Agenda(entries, now=NOON), Clock()
    sent = beat(agenda, clock, 600)

    clock.wall -= GRACE
    sent += beat(agenda, clock, 600)

    assert Counter(ids(sent)) == Counter(due_times(entries, NOON, clock.wall))


def test_a_successor_whose_clock_is_an_hour_behind_holds_up_no_interval():
    entries = [entry("interval", 30), entry("crontab")]
    agenda = Agenda(entries, now=NOON, through=NOON + HOUR)

    names = {each.entry.name for _, each in beat(agenda, Clock(), 600)}

    assert names == {"interval"}
    assert agenda.through == NOON + HOUR
    assert agenda.next_of("crontab").due == NOON + HOUR + 60


def test_an_entry_that_is_added_while_the_clock_is_behind_is_due_all_the_same():
    agenda, clock = Agenda(now=NOON, through=NOON + HOUR), Clock()

    agenda.put(entry(schedule=30))

    assert len(beat(agenda, clock, 60)) == 2


# -- sleeping -------------------------------------------------------------------------------------


def test_it_sleeps_until_something_is_due_but_not_for_long():
    agenda = Agenda(now=NOON)
    assert agenda.patience(NOON) == LONGEST_SLEEP
    assert agenda.next_at is None

    agenda.put(entry())
    assert agenda.patience(NOON) == LONGEST_SLEEP
    assert agenda.patience(NOON + 58) == 2.0
    assert agenda.patience(NOON + 61) == 0.0


def test_it_does_not_wake_for_an_entry_that_is_gone():
    agenda = Agenda([entry("soon"), entry("later", "@yearly")], now=NOON)

    agenda.remove("soon")

    assert agenda.next_at == agenda.next_of("later").at


# -- what was missed ------------------------------------------------------------------------------


def late_by(found, seconds):
    """What is sent of an entry whose first due time was *seconds* ago."""
    first = found.following(NOON)
    return [int(each.due - first.due) for each in to_send(found, first, first.at + seconds, GRACE)]


@pytest.mark.parametrize("missed", ["skip", "once", "all"])
def test_what_is_late_but_not_missed_is_all_sent(missed):
    """So no due time is lost while one leader replaces another."""
    assert late_by(entry(schedule=20, missed=missed), 60) == [0, 20, 40, 60]


@pytest.mark.parametrize(
    ("missed", "sent"), [("skip", []), ("once", [240]), ("all", [0, 60, 120, 180, 240])]
)
def test_of_what_was_missed_the_policy_says_how_much_is_sent(missed, sent):
    found = entry(schedule="0-4 13 * * *", missed=missed)

    assert late_by(found, 4000) == sent


def test_the_newest_of_what_was_missed_is_late_only():
    assert late_by(entry(missed="skip"), 330) == [300]


def test_all_that_was_missed_has_a_bound():
    assert late_by(entry(missed="all", missed_limit=3), 600) == [480, 540, 600]


def test_what_has_expired_is_not_sent_at_all():
    assert late_by(entry(missed="all", expires=150), 600) == [480, 540, 600]
    assert late_by(entry(schedule="0 13 * * *", expires=600), 600) == []


def test_a_year_that_was_missed_is_found_from_its_end():
    asked = 0

    class Counting(Schedule):
        def following(self, after, anchor=0.0):
            nonlocal asked
            asked += 1
            return after // 1 + 1

    found = entry(schedule=Counting(), missed="all", missed_limit=10)

    assert len(late_by(found, 365 * 24 * HOUR)) == 10
    assert asked < 1000


# -- overlap --------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", [None, states.STARTED, states.RETRY, states.PENDING])
def test_an_entry_waits_for_its_last_run_if_it_is_to(state):
    assert may_start(entry(), state=state, age=5, patience=HOUR)
    assert not may_start(entry(overlap="skip"), state=state, age=5, patience=HOUR)


def test_a_run_that_is_over_or_lost_holds_up_nothing():
    careful = entry(overlap="skip")

    assert may_start(careful, state=states.SUCCESS, age=5, patience=HOUR)
    assert may_start(careful, state=states.FAILURE, age=5, patience=HOUR)
    assert may_start(careful, state=None, age=HOUR + 1, patience=HOUR)


# -- what a store says ----------------------------------------------------------------------------


def test_the_word_of_a_store_wins_over_the_app():
    own = {"a": entry("a", 10), "b": entry("b", 10), "c": entry("c", 10, enabled=False)}
    last = Run("c@now", NOON, NOON)

    found = merged(
        own,
        [
            Row("a", enabled=False, since=NOON),
            Row("b", entry("b", 99), since=NOON),
            Row("c", last=last),
            Row("d", entry("d", 5)),
            Row("gone", enabled=True),
        ],
    )

    assert list(found) == ["a", "b", "c", "d"]
    assert found["a"] == replace(own["a"], enabled=False, since=NOON)
    assert found["b"] == entry("b", 99, since=NOON)
    assert found["c"] == own["c"]
    assert found["d"] == entry("d", 5)


def test_occurrences_are_values():
    assert entry().following(NOON) == Occurrence(entry(), NOON + 60, NOON + 60)
