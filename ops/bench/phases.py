#!/usr/bin/env python3
"""Where the engine's time goes: `perf record` on one thread, samples put down to the phases of a step.

phases.py [--case NAME] [--binaries DIR] [--into docs/measurements.md]

The kernels of the matrix library keep no frame that perf could follow. On one thread samples come in the order of
time, so such a sample belongs to the phase of the last one that could be followed."""

import argparse
import collections
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

sys.dont_write_bytecode = True

import material
from cases import CASES
from table import replace_between

# The first line all of whose patterns are matched by frames of the stack names the phase.
PHASES = [
    ("rollout: vision", r"FeatureCache::of"),
    ("rollout: prefill", r"decode::run_text", r"decode::draw_answers"),
    ("rollout: decode, attention", r"attention::Decode as"),
    ("rollout: sampling", r"sampling::(draw|entropy)"),
    ("rollout: decode, all else", r"decode::draw_answers"),
    ("update: digests", r"blake3|digest::"),
    ("update: backward", r"torch::autograd::(generated|Engine|Node)|AccumulateGrad"),
    ("update: vision forward", r"features::with_gradient"),
    ("update: text forward", r"decode::run_text|score::hidden_states|TextModel::forward"),
    ("update: logits and loss", r"score::"),
    ("update: AdamW", r"State::step|adamw::"),
    ("update: gradient's buffers", r"gradient::|take_gradients"),
    ("images and tokens", r"prompts::|ImageProcessor"),
    ("update: all else", r"engine::update|grpo::"),
    ("loading", r"weights::load|_dl_|restore"),
]
MATRIX = re.compile(r"gemm|mkl_blas|brgemm|dnnl")


def record(case, binaries: Path, work: Path) -> Path:
    """Three steps under perf."""
    steps = material.questions(case, 3, work / "pictures")
    spec = work / "profile.json"
    told = {
        "model": str(material.model(case.model, work, binaries / "medevo-worker")),
        "endless": str(material.endless(case.model, work)),
        "threads": 1,
        "n": case.n,
        "answer_tokens": case.answer_tokens,
        "tokens_per_batch": case.tokens_per_batch,
        "steps": steps,
    }
    spec.write_text(json.dumps(told))
    data = work / "perf.data"
    orders = "".join(f"step {number}\n" for number in range(3))
    command = ["perf", "record", "-e", "cpu-clock", "-F", "499", "--call-graph", "dwarf,12288", "-o", data]
    subprocess.run(
        [*command, binaries / "examples/bench", spec], input=orders, text=True, check=True, stdout=subprocess.DEVNULL
    )
    return data


def stacks(data: Path) -> list[list[str]]:
    """Functions of each sample, the innermost first."""
    script = ["perf", "script", "--no-inline", "-F", "ip,sym", "-i", data]
    text = subprocess.run(script, capture_output=True, text=True, check=True).stdout
    return [
        [line.strip().split(" ", 1)[-1] for line in block.splitlines() if line.strip()] for block in text.split("\n\n")
    ]


def phase(stack: list[str]) -> str | None:
    for name, *patterns in PHASES:
        if all(any(re.search(pattern, frame) for frame in stack) for pattern in patterns):
            return name
    return None


def shares(all_stacks: list[list[str]]) -> str:
    """A Markdown table of the phases, of all time but loading."""
    total, matrix, now = collections.Counter(), collections.Counter(), "loading"
    for stack in filter(None, all_stacks):
        now = phase(stack) or now
        total[now] += 1
        matrix[now] += bool(MATRIX.search(stack[0]))
    del total["loading"], matrix["loading"]
    whole = total.total()
    rows = ["| phase | % of a step | of it matrix products |", "|---|---:|---:|"]
    for name, count in total.most_common():
        if count / whole >= 0.001:
            rows.append(f"| {name} | {100 * count / whole:.1f} | {100 * matrix[name] / count:.0f} % |")
    rows.append(f"| together | 100 | {100 * matrix.total() / whole:.0f} % |")
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", default="image-n8", choices=[case.name for case in CASES])
    parser.add_argument("--binaries", type=Path, default=material.ROOT / "target/debug")
    parser.add_argument("--work", type=Path, default=material.ROOT / "runs/bench")
    parser.add_argument("--into", type=Path, help="a page with the markers <!-- profile --> and <!-- /profile -->")
    arguments = parser.parse_args()
    if shutil.which("perf") is None:
        parser.error("perf is not installed (Debian: apt-get install linux-perf)")
    work = arguments.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    case = next(case for case in CASES if case.name == arguments.case)
    text = f"`{case.name}`, one thread:\n\n" + shares(stacks(record(case, arguments.binaries, work)))
    print(text)
    if arguments.into:
        replace_between("profile", text, arguments.into)


if __name__ == "__main__":
    main()
