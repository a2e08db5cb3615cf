#!/usr/bin/env python3
"""The cost of a step over questions and over candidates: `make bench-cost`.

measure [--binaries DIR] [--threads N] [--out FILE]  times the engine alone, an update included, as `make bench` does
draw RESULTS.json FILE.svg                            draws what was measured
"""

import argparse
import json
import os
import sys
from dataclasses import replace
from pathlib import Path

sys.dont_write_bytecode = True

from cases import IMAGE

QUESTIONS = [2, 4, 8, 16]  # at N = 8
CANDIDATES = [2, 4, 8, 16, 32, 64]  # at 4 questions


def measure(arguments: argparse.Namespace) -> None:
    from material import ROOT
    from side_by_side import run

    work = (ROOT / "runs/bench-cost").resolve()
    points = [("questions", count, replace(IMAGE, questions=count)) for count in QUESTIONS]
    points += [("n", count, replace(IMAGE, n=count)) for count in CANDIDATES]
    results, measured = [], {}
    for axis, count, case in points:
        case = replace(case, name=f"cost-{axis}-{count}", repeats=arguments.repeats)
        # One point lies on both axes.
        key = (case.questions, case.n)
        if key not in measured:
            measured[key] = run(case, work, arguments.binaries, arguments.threads, ("medevo",))["sides"]["medevo"]
        ours = measured[key]
        keys = ("step_s", "step_cpu_s", "answer_tokens", "peak_mib")
        results.append({"axis": axis, "count": count} | {key: ours[key] for key in keys})
        print(f"{axis} {count}: {ours['step_s']:.2f} s ({ours['step_cpu_s']:.2f} s of processor time)", flush=True)
    arguments.out.write_text(json.dumps({"answer_tokens": IMAGE.answer_tokens, "points": results}, indent=1) + "\n")


def draw(arguments: argparse.Namespace) -> None:
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "medevo"  # the same picture from the same numbers
    matplotlib.rcParams["font.size"] = 9
    from matplotlib import pyplot

    points = json.loads(arguments.results.read_text())["points"]
    figure, axes = pyplot.subplots(1, 2, figsize=(8.4, 3.1), constrained_layout=True)
    panels = [("questions", "questions a step, N = 8"), ("n", "candidates a question (N), 4 questions")]
    for axis, (key, label) in zip(axes, panels):
        mine = [point for point in points if point["axis"] == key]
        counts = [point["count"] for point in mine]
        total = [point[arguments.figure] for point in mine]
        axis.plot(counts, total, "o-", color="#1f6f8b", label="a step")
        proportional = [total[0] * count / counts[0] for count in counts]
        axis.plot(counts, proportional, "--", color="#999999", linewidth=1, label="in proportion to the first point")
        axis.set_xlabel(label)
        axis.set_ylim(0, 1.15 * max(total))
        axis.set_xlim(0, 1.03 * counts[-1])
        axis.set_xticks(counts if key == "questions" else [2, 8, 16, 32, 64])
        axis.grid(color="#e6e6e6", linewidth=0.7)
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(frameon=False, loc="upper left")
    axes[0].set_ylabel("seconds of processor time" if arguments.figure == "step_cpu_s" else "seconds")
    arguments.picture.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(arguments.picture, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    root = Path(__file__).resolve().parents[2]
    command = commands.add_parser("measure")
    command.add_argument("--binaries", type=Path, default=root / "target/debug")
    command.add_argument("--threads", type=int, default=os.cpu_count())
    command.add_argument("--repeats", type=int, default=3)
    command.add_argument("--out", type=Path, default=root / "runs/bench/cost.json")
    command.set_defaults(run=measure)
    command = commands.add_parser("draw")
    command.add_argument("results", type=Path)
    command.add_argument("picture", type=Path)
    command.add_argument("--figure", choices=["step_s", "step_cpu_s"], default="step_cpu_s")
    command.set_defaults(run=draw)
    arguments = parser.parse_args()
    arguments.run(arguments)


if __name__ == "__main__":
    main()
