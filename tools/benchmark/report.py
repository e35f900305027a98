# SPDX-License-Identifier: Apache-2.0
"""The benchmark's figures for people: what is wanted and met, ratios, stages, and only then times."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

Result = dict[str, Any]


class Criterion(NamedTuple):
    """A figure that is wanted: what it is, what it was, and if that is enough."""

    text: str
    value: str
    met: bool


FRAMES_A_SECOND = {"dimp_lite": 500, "dimp18": 500, "dimp50": 300}
"""What is wanted of each model on a GPU."""


def acceptance_criteria(result: Result) -> list[Criterion]:
    """Return what is wanted at 640x480, as far as it was measured, in every precision that was."""
    found: list[Criterion] = []

    def add(row: Result, text: str, value: float | None, unit: str, met: Callable[[float], bool]) -> None:
        if value is not None:
            found.append(Criterion(f"{row['name']} on {row['device']}: {text}", f"{value:.2f}{unit}", met(value)))

    rows = [row for row in result["rows"] if row["size"] == "640x480" and row.get("model") in FRAMES_A_SECOND]
    for row in rows:
        if row["device"] != "cpu":
            _gpu_criteria(row, rows, add)
        elif row["model"] == "dimp_lite" and row["targets"] == 1:
            add(row, "baseline takes at least 3 times as long", row["baseline_ratio"]["value"], "", lambda v: v >= 3)
            csrt = row.get("times_csrt", {}).get("value")
            add(row, "not slower than CSRT", csrt, " of its time", lambda v: v <= 1)
            add(row, "a frame below 16 ms", row["median_ms"], " ms", lambda v: v < 16)
            add(row, "learned within 0.5 s", row["init_ms"] / 1e3, " s", lambda v: v < 0.5)
        elif row["model"] == "dimp_lite" and row["targets"] == 2:
            add(row, "the second costs at most 60 % of the first", row["further_target"], "", lambda v: v <= 0.6)
    for row in result["rows"]:
        larger = row.get("times_first_size", {}).get("value") if "model" in row and row["targets"] == 1 else None
        add(row, f"at {row['size']} at most 10 % longer", larger, " of the time", lambda v: v <= 1.1)
    for one in result["consistency"]:
        if one["device"] == "cpu":
            continue  # there half precision is judged by what the tracker makes of it, see docs/performance.md
        text = f"{one['model']} on {one['device']}: scores within 2 % of the peak, boxes within 0.5 px of the CPU's"
        found.append(Criterion(text, f"{one['scores']:.2%}, {one['boxes']:.2f} px", one["good"]))
    return found


def _gpu_criteria(row: Result, rows: Sequence[Result], add: Callable[..., None]) -> None:
    """Add what is wanted of a model on a GPU."""
    if row["targets"] == 1:
        wanted = FRAMES_A_SECOND[row["model"]]
        add(row, f"at least {wanted} frames a second", 1e3 / row["median_ms"], "", lambda v: v >= wanted)
        add(row, "p99 below twice the median", row["p99_ms"] / row["median_ms"], " of it", lambda v: v < 2)
        add(row, "baseline takes at least 5 times as long", row["baseline_ratio"]["value"], "", lambda v: v >= 5)
    elif row["targets"] == 8:
        same = ("model", "device", "precision")
        one = next((o for o in rows if o["targets"] == 1 and all(o[key] == row[key] for key in same)), None)
        if one is not None:
            add(row, "8 targets below 3 times one", row["median_ms"] / one["median_ms"], "", lambda v: v < 3)


def text(result: Result) -> str:
    """Write the result as Markdown."""
    machine, plan = result["machine"], result["plan"]
    where = f"{machine['cpu']}, {machine['threads']} threads" + (f"; {machine['gpu']}" if machine["gpu"] else "")
    parts = [
        f"{where}; Python {machine['python']}, torch {machine['torch']}, OpenCV {machine['opencv']}. "
        f"{plan['repeats']} repeats of {plan['frames']} frames, by turns of {plan['block']}."
    ]
    wanted = acceptance_criteria(result)
    if wanted:
        lines = ([goal.text, goal.value, "yes" if goal.met else "NO"] for goal in wanted)
        parts.append("Wanted\n\n" + table(("what", "is", "met"), lines))
    parts.append("Ratios; in brackets the least and the most of the repeats\n\n" + _ratios(result["rows"]))
    parts.append("The same by CPU time, of all threads together\n\n" + _ratios(result["rows"], "_cpu"))
    if result["consistency"]:
        lines = ([o["model"], o["device"], f"{o['scores']:.2%}", f"{o['boxes']:.2f}"] for o in result["consistency"])
        head = ("model", "device", "scores, share of the peak", "boxes, px")
        parts.append("Largest difference to float32 on the CPU, with nothing random\n\n" + table(head, lines))
    clock = "by CPU time" if result["cpu_time"] else "by the clock"
    stages = _stages(result["rows"], "cpu_ms" if result["cpu_time"] else "median_ms")
    parts.append(f"Stages of one target, {clock}; the floor is what the roofline below allows\n\n{stages}")
    parts.append("Roofline\n\n" + _roofline(result["roofline"]))
    parts.append("Times\n\n" + _times(result["rows"]))
    return "\n\n".join(parts) + "\n"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _ratio(value: Result | None, digits: int = 2) -> str:
    if value is None:
        return ""
    return f"{value['value']:.{digits}f} ({value['least']:.{digits}f} to {value['most']:.{digits}f})"


def _ratios(rows: Sequence[Result], clock: str = "") -> str:
    head = ["frames", "who", "baseline's time / its", "its time / CSRT's", "a further target / the first"]
    head.append("its time / that at the first size")
    further = f"further_target{clock}"
    lines = [
        [
            row["size"],
            _who(row),
            _ratio(row.get(f"baseline_ratio{clock}")),
            _ratio(row.get(f"times_csrt{clock}")),
            f"{row[further]:.2f}" if further in row else "",
            _ratio(row.get(f"times_first_size{clock}")),
        ]
        for row in rows
    ]
    if not clock:
        head.append("baseline's init / its")
        for line, row in zip(lines, rows, strict=True):
            line.append(f"{row['baseline_init_ratio']:.2f}" if "baseline_init_ratio" in row else "")
    return table(head, lines)


def _stages(rows: Sequence[Result], whole: str) -> str:
    head = ("frames", "who", "stage", "time / floor", "share of the frame", "GFLOP", "MB", "median, ms", "p99, ms")
    lines = []
    for row in rows:
        for stage, one in row.get("stages", {}).items() if row["targets"] == 1 else ():
            known = "floor_ms" in one
            lines.append(
                [
                    row["size"],
                    _who(row),
                    stage,
                    f"{one['times_floor']:.1f}" if known else "",
                    f"{one['median_ms'] / row[whole]:.0%}",
                    f"{one['gflop']:.3f}" if known else "",
                    f"{one['mbyte']:.1f}" if known else "",
                    f"{one['median_ms']:.2f}",
                    f"{one['p99_ms']:.2f}",
                ]
            )
    return table(head, lines)


def _roofline(roofline: Sequence[Result]) -> str:
    lines = (
        [
            one["device"],
            one["precision"],
            f"{one['flops'] / 1e9:.0f}",
            f"{one['bandwidth'] / 1e9:.0f}",
            f"{one['upload'] / 1e9:.1f}" if one["upload"] else "",
        ]
        for one in roofline
    )
    return table(("device", "numbers", "matrix product, GFLOP/s", "copy, GB/s read and written", "upload, GB/s"), lines)


def _times(rows: Sequence[Result]) -> str:
    head = ("frames", "who", "median, ms", "repeats, ms", "p99, ms", "of the CPU, ms", "init, ms", "in sight")
    return table(
        head,
        (
            [
                row["size"],
                _who(row),
                f"{row['median_ms']:.1f}",
                f"{min(row['repeats_ms']):.1f} to {max(row['repeats_ms']):.1f}",
                f"{row['p99_ms']:.1f}",
                f"{row['cpu_ms']:.1f}",
                f"{row['init_ms']:.0f}",
                f"{row['followed']:.0%}",
            ]
            for row in rows
        ),
    )


def _who(row: Result) -> str:
    """Name a candidate, with its device where that is not the CPU and with a word where its weights mean nothing."""
    device = row.get("device", "cpu")
    return row["name"] + ("" if device == "cpu" else f" on {device}") + (" (random)" if row.get("random") else "")
