#!/usr/bin/env python3
"""What the machinery around the engine costs a step: `make machinery`.

machinery.py [--model DIR] [--data DIR] [--steps N] [--binaries DIR]

Runs the demo's TTRL stage (questions, candidates, lengths and loss are those of its Med-Evo stage) with one worker,
from the demo's warm start, and splits the wall clock of its steps.
With one worker nobody waits for a peer, so whatever is not spent inside the engine is machinery: orders and reports over
RPC, ballots, the commit in the store, the event stream, heartbeats. The worker's log, at debug level, says when the
engine begins and ends each order and how long the digests inside take. Scoring is the method's own work and is told
apart. Checkpoints come as often as in the demo, and their whole time counts, for the run stands still meanwhile.
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import tempfile
from datetime import datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SETTLED = 5  # steps at first that nothing is told from: pictures are read and encoded for the first time
LINE = re.compile(r"^(\S+Z)\s+DEBUG\s+\S+: (.*)$")


def seconds(text: str) -> float:
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


def run(arguments: argparse.Namespace, place: Path) -> tuple[list[dict], list[tuple[float, str]]]:
    """The run's events, and the worker's debug lines with their times."""
    settings = {
        "model.path": arguments.model,
        "run.seed": 0,
        "data.target.path": arguments.data / "target",
        "data.heldout.path": arguments.data / "heldout",
        "stage.ttrl.steps": arguments.steps,
        "checkpoint.every_steps": 50,
        "checkpoint.keep": 2,
        "cluster.workers": 1,
        "engine.threads": 1,
    }
    command = [arguments.binaries / "medevo-coord", "launch", ROOT / "ops/demo/ttrl.toml", "--run-dir", place]
    for key, value in settings.items():
        command += ["--set", f"{key}={value}"]
    environment = os.environ | {"RUST_LOG": "info,tarpc=error,medevo_worker=debug,medevo_engine=debug"}
    subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)
    events = [json.loads(line) for line in (place / "events.jsonl").read_text().splitlines()]
    log = (place / "logs/worker-w0.log").read_text().splitlines()
    return events, [(seconds(match[1]), match[2]) for match in map(LINE.match, log) if match]


def split(events: list[dict], log: list[tuple[float, str]]) -> dict[str, float]:
    """Seconds of a step by what they went into."""
    commits = [event for event in events if event["event"] == "step_committed"]
    start, end = (seconds(commits[place]["time"]) for place in (SETTLED, -1))
    counted = commits[SETTLED + 1 :]
    inside = {"engine": 0.0, "digests": 0.0, "saving": 0.0}
    begun = None
    for at, text in log:
        if not start <= at <= end:
            continue
        if match := re.match(r"begun directive=\"(\w+)\"", text):
            begun = (at, match[1])
        elif text.startswith("done") and begun:
            inside["saving" if begun[1] == "checkpoint" else "engine"] += at - begun[0]
            begun = None
        elif match := re.match(r"digest of .* us=(\d+)", text):
            inside["digests"] += int(match[1]) / 1e6
    scoring = sum(event["millis"].get("scoring", 0) for event in counted) / 1000
    saved = sum(event["millis"].get("checkpointing", 0) for event in counted) / 1000
    wall = end - start
    parts = {
        "engine, without digests": inside["engine"] - inside["digests"],
        "scoring": scoring,
        "digests of gradient, weights and moments": inside["digests"],
        "checkpoints": saved,
        "orders, reports, ballots, commits, events, heartbeats": wall - inside["engine"] - scoring - saved,
    }
    return {"step": wall / len(counted)} | {name: value / len(counted) for name, value in parts.items()}


def main() -> None:
    demo = ROOT / "runs/demo"
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="warm start [default: that of the demo]")
    parser.add_argument("--data", type=Path, default=demo / "data-s0")
    parser.add_argument("--steps", type=int, default=105)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--binaries", type=Path, default=ROOT / "target/debug")
    arguments = parser.parse_args()
    if arguments.model is None:
        warm = sorted((demo / "med-evo-s0/checkpoints").glob("step-001400*/manifest.json"))
        if not warm:
            parser.error(f"{demo} holds no warm start: run `make demo` first, or give --model and --data")
        arguments.model = warm[-1].parent
    arguments.model, arguments.data = arguments.model.resolve(), arguments.data.resolve()
    results = []
    for repeat in range(arguments.repeats):
        with tempfile.TemporaryDirectory() as folder:
            results.append(split(*run(arguments, Path(folder) / "run")))
            print(f"run {repeat + 1}: {1000 * results[-1]['step']:.1f} ms a step", flush=True)
    step = statistics.median(result["step"] for result in results)
    print(f"\n{arguments.steps} steps, {arguments.repeats} runs, medians\n")
    print("| part of a step | ms | % |\n|---|---|---|")
    for name in results[0]:
        part = statistics.median(result[name] for result in results)
        print(f"| {name} | {1000 * part:.2f} | {100 * part / step:.1f} |")
    machinery = [sum(list(result.values())[3:]) / result["step"] for result in results]
    print(f"\nmachinery: {100 * statistics.median(machinery):.1f} % of a step (runs: "
          + ", ".join(f"{100 * share:.1f}" for share in machinery) + ")")


if __name__ == "__main__":
    main()
