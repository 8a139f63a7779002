"""What was found, for people: the table of a session, and docs/benchmarks.md with its plot.

Of docs/benchmarks.md only the part between two marks is written here; the rest is by hand.
"""

import os
import platform
import re
import subprocess
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from benchmarks import peers
from benchmarks.contenders import Place
from benchmarks.figures import Kept
from benchmarks.table import Row, Verdict, shown

_ROOT = Path(__file__).parents[1]
PAGE = _ROOT / "docs/benchmarks.md"

_BEGIN, _END = "<!-- measured -->", "<!-- end of what was measured -->"

_INTRODUCTION = """# Benchmarks

taskq beside its peers, each row on the same private servers, in turn (A B A B, medians of the
rounds). [benchmarks/README.md](../benchmarks/README.md) says how to run them, and how a run is
made fair.
"""


def table(rows: Sequence[Row], kept: Kept) -> str:
    """Each row with the medians of its sides, and each of its rules with what came of it."""
    return "".join(f"{line}\n" for row in rows for line in _block(row, kept))


def _block(row: Row, kept: Kept) -> Iterator[str]:
    medians = kept.medians(row)
    yield f"\n{row.name:>3}  {row.workload}"
    for figure, found in _by_figure(row, kept).items():
        yield f"     {figure}: " + ", ".join(f"{side} {value}" for side, value in found.items())
    for rule in row.rules:
        verdict = rule.judge(medians)
        value = shown(verdict.value) if verdict else "?"
        yield f"     {value:>7} {rule.words:<46} asked {rule.asked:<9} {_word(verdict)}"


def _by_figure(row: Row, kept: Kept) -> dict[str, dict[str, str]]:
    """The medians of *row* by figure and side."""
    found: dict[str, dict[str, str]] = defaultdict(dict)
    for side, figures in kept.medians(row).items():
        for figure, value in figures.items():
            found[figure][side] = shown(value)
    return found


def _word(verdict: Verdict | None) -> str:
    if verdict is None:
        return "not measured"
    return "met" if verdict.met else "NOT MET"


# -- docs/benchmarks.md ----------------------------------------------------------------------------


def write(rows: Sequence[Row], kept: Kept, servers: Mapping[str, str], file: Path) -> None:
    """Write the page *file* and the plot beside it; what stands outside the marks stays.

    *servers* are the versions of the servers.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    plot = file.with_suffix(".png")
    _plot(rows, kept, plot)
    text = file.read_text() if file.exists() else f"{_INTRODUCTION}\n{_BEGIN}\n{_END}\n"
    before, rest = text.split(_BEGIN, 1)
    after = rest.split(_END, 1)[1]
    measured = "\n".join(page(rows, kept, servers, plot.name))
    file.write_text(f"{before}{_BEGIN}\n{measured}\n{_END}{after}")


def page(rows: Sequence[Row], kept: Kept, servers: Mapping[str, str], plot: str) -> Iterator[str]:
    """The lines of the part of docs/benchmarks.md that is measured."""
    yield ""
    yield f"![each promise of the table, over what was asked]({plot})"
    yield ""
    yield from _results(rows, kept)
    yield from ["", "## Machine and versions", ""]
    yield f"{_machine()}."
    versions = {"taskq": _commit(), **servers, **peers.versions()}
    yield ", ".join(f"{name} {version}" for name, version in versions.items()) + "."
    yield from ["", "## What each row is", ""]
    yield from (f"- **{row.name}**: {row.workload}. {row.notes}".rstrip() for row in rows)
    yield from ["", "## Settings", ""]
    yield from _settings(rows)
    yield from ["", "## Every run", ""]
    yield from _runs(rows, kept)
    yield ""


def _results(rows: Sequence[Row], kept: Kept) -> Iterator[str]:
    yield "| | workload | taskq | others | | asked | |"
    yield "|---|---|---|---|---|---|---|"
    for row in rows:
        medians, figures = kept.medians(row), _by_figure(row, kept)
        ours = [f"{found['taskq']} {name}" for name, found in figures.items() if "taskq" in found]
        others = [
            f"{side} {value} {name}"
            for name, found in figures.items()
            for side, value in found.items()
            if side != "taskq"
        ]
        first = [row.name, row.workload, "<br>".join(ours), "<br>".join(others)]
        for rule in row.rules:
            verdict = rule.judge(medians)
            value = f"{shown(verdict.value)} {rule.words}" if verdict else rule.words
            word = _word(verdict) if verdict and verdict.met else f"**{_word(verdict).lower()}**"
            yield f"| {' | '.join([*first, value, rule.asked, word])} |"
            first = [""] * len(first)


def _machine() -> str:
    cpu = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), re.M)
    memory = re.search(r"^MemTotal:\s+(\d+) kB", Path("/proc/meminfo").read_text(), re.M)
    return ", ".join(
        [
            f"{len(os.sched_getaffinity(0))} cores of {cpu[1] if cpu else platform.machine()}",
            f"{int(memory[1]) / 1024**2:.0f} GiB" if memory else "memory unknown",
            f"Linux {platform.release()}",
            f"Python {platform.python_version()}",
        ]
    )


def _commit() -> str:
    """The commit that is measured, and whether files differ from it."""
    command = ["git", "-C", str(_ROOT), "describe", "--always", "--dirty=, changed", "--exclude=*"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "of no commit"


def _settings(rows: Sequence[Row]) -> Iterator[str]:
    place = Place("amqp://...", "redis://...", Path("..."))
    used: dict[tuple[str, str], list[str]] = defaultdict(list)
    for row in rows:
        for side in row.sides:
            if side.contender is not None and side.setup is not None:
                recipe = side.contender.recipe(side.setup, place)
                named = {**recipe.settings, **recipe.env}
                settings = "<br>".join(f"`{name} = {value!r}`" for name, value in named.items())
                used[side.name, f"{settings} | `{' '.join(recipe.worker)}`"].append(row.name)
    yield "| | rows | settings | worker |"
    yield "|---|---|---|---|"
    for (name, recipe_text), names in sorted(used.items()):
        yield f"| {name} | {', '.join(names)} | {recipe_text} |"


def _runs(rows: Sequence[Row], kept: Kept) -> Iterator[str]:
    yield "| row | side | figure | rounds | measured |"
    yield "|---|---|---|---|---|"
    for row in rows:
        for side, measured in kept.get(row).items():
            for figure in measured.runs[0]:
                values = ", ".join(shown(run[figure]) for run in measured.runs)
                day = f"{measured.when:%Y-%m-%d %H:%M}"
                yield f"| {row.name} | {side} | {figure} | {values} | {day} |"


def _plot(rows: Sequence[Row], kept: Kept, file: Path) -> None:
    """One bar for each rule: how many times better than asked, with the rule in words."""
    # Only the report needs it, and rows are to be measured without.
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    judged = [
        (row, verdict)
        for row in rows
        for rule in row.rules
        if (verdict := rule.judge(kept.medians(row))) is not None
    ]
    labels = [f"{row.name}  {row.title}: {verdict.rule.words}" for row, verdict in judged]
    margins = [min(max(verdict.margin, 0.05), 50) for _, verdict in judged]
    colours = ["#2a7f62" if verdict.met else "#b23a48" for _, verdict in judged]
    figure, axes = pyplot.subplots(figsize=(10, 0.32 * len(judged) + 1.5), layout="constrained")
    bars = axes.barh(range(len(judged)), [margin - 1 for margin in margins], left=1, color=colours)
    values = [f"{shown(verdict.value)}  ({verdict.rule.asked})" for _, verdict in judged]
    for bar, margin, text in zip(bars, margins, values, strict=True):
        axes.annotate(
            text,
            (max(margin, 1), bar.get_y() + bar.get_height() / 2),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
        )
    axes.axvline(1, color="black", linewidth=1)
    axes.set_xscale("log")
    axes.set_xlim(min(0.5, *margins) / 1.2, max(2, *margins) * 3)
    axes.set_ylim(-1, len(judged))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_yticks(range(len(judged)), labels, fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel("times better than asked (behind each bar: what was found, and what was asked)")
    axes.set_title("taskq: what was asked, row by row, and what was found")
    for edge in ("top", "right", "left"):
        axes.spines[edge].set_visible(False)
    figure.savefig(file, dpi=120)
    pyplot.close(figure)
