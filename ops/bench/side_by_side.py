"""Runs one case: medevo's engine and its peer as two processes, one step here, one there, so that whatever else
the machine does falls on both."""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

import material
from cases import Case

HERE = Path(__file__).resolve().parent
PEERS = {"step": "trl_side.py", "rollout": "transformers_side.py"}


class Side:
    """A process that takes orders."""

    def __init__(self, name: str, command: list, threads: int, log: Path):
        self.name, self.log = name, log
        environment = os.environ | {
            "OMP_NUM_THREADS": str(threads),
            # Waiting threads that spin take the cores away from whatever else runs, the other side included.
            "OMP_WAIT_POLICY": "passive",
            "TOKENIZERS_PARALLELISM": "false",
            "HF_HUB_OFFLINE": "1",
            "HF_DATASETS_OFFLINE": "1",
        }
        self.process = subprocess.Popen(
            [str(part) for part in command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log.open("w"),
            text=True,
            env=environment,
        )
        self.loaded = self.answer()

    def answer(self) -> dict:
        line = self.process.stdout.readline()
        if not line:
            code = self.process.wait()
            tail = "".join(self.log.read_text().splitlines(keepends=True)[-15:])
            sys.exit(f"bench: {self.name} ended with code {code}; the end of {self.log}:\n{tail}")
        return json.loads(line)

    def order(self, what: str, number: int) -> dict:
        self.process.stdin.write(f"{what} {number}\n")
        self.process.stdin.flush()
        return self.answer()

    def close(self) -> None:
        self.process.stdin.close()
        try:
            self.process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def run(case: Case, work: Path, binaries: Path, threads: int, sides: tuple[str, ...]) -> dict:
    """Medians of a case for each of `sides`, out of "medevo" and "peer"."""
    work.mkdir(parents=True, exist_ok=True)
    model = material.model(case.model, work, binaries / "medevo-worker")
    steps = material.questions(case, case.repeats + 1, work / "pictures")
    with tempfile.TemporaryDirectory(dir=work) as folder:
        spec = Path(folder) / "spec.json"
        told = {
            "model": str(model),
            "endless": str(material.endless(case.model, work)),
            "work": folder,
            "threads": threads,
            "n": case.n,
            "answer_tokens": case.answer_tokens,
            "tokens_per_batch": case.tokens_per_batch,
            "steps": steps,
        }
        spec.write_text(json.dumps(told))
        commands = {
            "medevo": [binaries / "examples/bench", spec],
            "peer": [sys.executable, HERE / PEERS[case.order], spec],
        }
        running = [Side(name, commands[name], threads, work / f"{case.name}-{name}.log") for name in sides]
        timings = {side.name: [] for side in running}
        for number in range(case.repeats + 1):
            for side in running:
                timing = side.order(case.order, number)
                expected = case.questions * case.n * case.answer_tokens
                if timing["answer_tokens"] != expected:
                    sys.exit(f"bench: {side.name} drew {timing['answer_tokens']} tokens, not {expected}")
                timings[side.name].append(timing)
                seconds = timing["rollout_s"] + timing["update_s"]
                print(f"  {case.order} {number}: {side.name} {seconds:.1f} s", file=sys.stderr, flush=True)
        for side in running:
            side.close()
    prompts = {name: [timing["prompt_tokens"] for timing in many] for name, many in timings.items()}
    if len(set(map(tuple, prompts.values()))) > 1:
        sys.exit(f"bench: the sides had different prompts: {prompts} tokens")
    summaries = {side.name: summary(case, timings[side.name], side.loaded) for side in running}
    return {"case": asdict(case), "threads": threads, "sides": summaries}


def summary(case: Case, timings: list[dict], loaded: dict) -> dict:
    """Medians over all steps but the first; peaks over all."""
    measured = timings[1:]
    middle = lambda key: statistics.median(timing[key] for timing in measured)
    rollout, update = middle("rollout_s"), middle("update_s")
    return {
        "rollout_s": rollout,
        "update_s": update,
        "step_s": statistics.median(timing["rollout_s"] + timing["update_s"] for timing in measured),
        "step_cpu_s": statistics.median(timing["rollout_cpu_s"] + timing["update_cpu_s"] for timing in measured),
        "prompt_tokens": measured[0]["prompt_tokens"],
        "answer_tokens": measured[0]["answer_tokens"],
        "peak_mib": timings[-1]["peak_kib"] / 1024,
        "grown_mib": (timings[-1]["peak_kib"] - loaded["rss_kib"]) / 1024,
        "steps": timings,
    }
