"""Row 15: how late beat sends what is due, and what that costs."""

import json
import statistics
import sys
import time
from datetime import UTC, datetime

from benchmarks.contenders import Setup, Taskq
from benchmarks.lab import Lab, Site
from benchmarks.processes import Program
from benchmarks.table import Figures, Row, Rule, Side, own

_ENTRIES = 10_000
_EVERY = 50.0
_MINUTE = 60.0
#: Seconds from the start of beat to the instant: time to read the schedule and to lead.
_LEAD = 15.0

LATE, CPU, INSTANT = "p99 ms late", "% of a core", "s for all"


def _drift(lab: Lab) -> Figures:
    setup = Setup(results="off")
    with lab.site(Taskq(), setup) as site:
        late, cpu = _spread(lab, site)
    with lab.site(Taskq(), setup) as site:
        return {LATE: late, CPU: cpu, INSTANT: _instant(lab, site)}


def _spread(lab: Lab, site: Site) -> tuple[float, float]:
    """200 of the entries are due each second, for a minute."""
    _plan(site, _ENTRIES, _EVERY)
    with _beat(site) as beat:
        beat.wait_for_line(" leads ")
        lab.pause(2.0)
        cpu, begun = beat.cpu(), time.time()
        lab.pause(_MINUTE)
        used = (beat.cpu() - cpu) / (time.time() - begun)
        beat.check()
    found = [late for due, late in _record(site) if due >= begun]
    return statistics.quantiles(found, n=100)[98] * 1000, used * 100


def _instant(lab: Lab, site: Site) -> float:
    """All are due at one instant; how long after it the last one was confirmed."""
    count = lab.count(_ENTRIES)
    moment = datetime.fromtimestamp(round(time.time() + _LEAD), UTC)
    _plan(site, count, {"clocked": moment.isoformat()})
    with _beat(site) as beat:
        beat.wait_for_line(" leads ")
        time.sleep(max(0.0, moment.timestamp() - time.time()) + 10.0)
        beat.check()
    found = [late for _, late in _record(site)]
    assert len(found) == count, f"{len(found)} of {count} were sent: {beat.log()}"
    return max(found)


def _plan(site: Site, entries: int, schedule: object) -> None:
    plan = json.dumps({"entries": entries, "schedule": schedule})
    site.record.with_name("plan").write_text(plan)


def _beat(site: Site) -> Program:
    return site.program(sys.executable, "-m", "taskq", "beat", "-A", "beat_app")


def _record(site: Site) -> list[tuple[float, float]]:
    """The due time of each task that was sent, and how late it was confirmed."""
    lines = [line.split() for line in site.record.read_text().splitlines()]
    return [(float(due), float(late)) for due, late in lines]


ROWS = (
    Row(
        "15",
        "beat",
        f"beat: {_ENTRIES:,} entries, 200 due a second for a minute; all due at one instant",
        [Side("taskq", _drift, Taskq(), Setup(results="off"))],
        [
            Rule("ms late at the 99th percentile", own(LATE), 50, True),
            Rule("% of a core meanwhile", own(CPU), 25, True),
            Rule("s until the last of 10,000 is confirmed", own(INSTANT), 2, True),
        ],
        "Late is from the due time to the broker's confirm. The log is on, one line for each task "
        "that is sent.",
    ),
)
