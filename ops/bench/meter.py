"""Seconds and memory of the process that asks: the same readings as worker/engine/examples/bench.rs takes."""

import json
import resource
import sys
import time


def say(message: dict) -> None:
    """One line to whoever started this process."""
    print(json.dumps(message), file=sys.__stdout__, flush=True)


def memory() -> dict:
    """Resident memory now and at its highest, KiB."""
    fields = dict(line.split(":", 1) for line in open("/proc/self/status"))
    return {"rss_kib": int(fields["VmRSS"].split()[0]), "peak_kib": int(fields["VmHWM"].split()[0])}


def clock() -> tuple[float, float]:
    """Wall clock, and user and system time of all threads, seconds."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return time.perf_counter(), used.ru_utime + used.ru_stime
