#!/usr/bin/env python3
"""The results of a bench as a table: for the terminal, and between the markers of docs/measurements.md.

`table.py RESULTS.json` prints; `table.py RESULTS.json --into docs/measurements.md` replaces what stands between
`<!-- bench -->` and `<!-- /bench -->`."""

import argparse
import json
import re
from pathlib import Path

PEERS = {"step": "TRL", "rollout": "transformers"}
HEAD = ["case", "side", "rollout s", "update s", "step s", "step CPU s", "tokens/s", "peak MiB", "over loaded MiB"]


def row(name: str, side: str, figures: dict) -> list[str]:
    # Prompt tokens count once for each candidate, whether they are computed so often or not.
    rate = (figures["prompt_tokens"] + figures["answer_tokens"]) / figures["step_s"]
    update = f"{figures['update_s']:.2f}" if figures["update_s"] > 0.005 else "–"
    seconds = [f"{figures['rollout_s']:.2f}", update, f"{figures['step_s']:.2f}"]
    seconds.append(f"{figures['step_cpu_s']:.1f}")
    return [name, side, *seconds, f"{rate:.0f}", f"{figures['peak_mib']:.0f}", f"{figures['grown_mib']:.0f}"]


def ratios(ours: dict, theirs: dict) -> list[str]:
    def times(key: str) -> str:
        return f"{theirs[key] / ours[key]:.1f}×" if ours[key] > 0.005 else "–"

    speeds = [times("rollout_s"), times("update_s"), f"**{times('step_s')}**", times("step_cpu_s"), times("step_s")]
    memory = [f"{ours[key] / theirs[key]:.2f}×" for key in ("peak_mib", "grown_mib")]
    return ["", "ratio", *speeds, *memory]


def table(results: dict) -> str:
    """Markdown with padded columns, so that it reads well on a terminal too."""
    rows = [HEAD]
    for result in results["cases"]:
        case, sides = result["case"], result["sides"]
        if "medevo" in sides:
            rows.append(row(case["name"], "medevo", sides["medevo"]))
        if "peer" in sides:
            rows.append(row(case["name"] if len(sides) == 1 else "", PEERS[case["order"]], sides["peer"]))
        if len(sides) == 2:
            rows.append(ratios(sides["medevo"], sides["peer"]))
    widths = [max(len(cells[i]) for cells in rows) for i in range(len(HEAD))]
    align = lambda cells: [
        cell.ljust(width) if i < 2 else cell.rjust(width) for i, (cell, width) in enumerate(zip(cells, widths))
    ]
    rule = ["-" * width if i < 2 else "-" * (width - 1) + ":" for i, width in enumerate(widths)]
    lines = ["| " + " | ".join(align(cells)) + " |" for cells in rows]
    lines.insert(1, "| " + " | ".join(rule) + " |")
    return "\n".join([heading(results), "", *lines, "", *legend(results)])


def heading(results: dict) -> str:
    versions = ", ".join(f"{name} {number}" for name, number in results["versions"].items())
    return f"{results['date']}, commit {results['commit']}, {results['machine']}; {versions}; f32."


def legend(results: dict) -> list[str]:
    lines = []
    for result in results["cases"]:
        case = result["case"]
        lines.append(
            f"- `{case['name']}`: {case['says']}; {case['questions']} questions a {case['order']}, "
            f"N = {case['n']}, {result['threads']} threads, median of {case['repeats']} after one that warms up."
        )
    return lines


def replace_between(mark: str, text: str, page: Path) -> None:
    """Puts `text` between `<!-- mark -->` and `<!-- /mark -->` of a page."""
    old = page.read_text()
    pattern = re.compile(rf"(<!-- {mark} -->\n).*?(<!-- /{mark} -->)", re.DOTALL)
    if len(pattern.findall(old)) != 1:
        raise SystemExit(f"{page} has no one place between <!-- {mark} --> and <!-- /{mark} -->")
    page.write_text(pattern.sub(lambda found: f"{found[1]}{text}\n{found[2]}", old))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path)
    parser.add_argument("--into", type=Path)
    arguments = parser.parse_args()
    text = table(json.loads(arguments.results.read_text()))
    if arguments.into is None:
        print(text)
        return
    replace_between("bench", text, arguments.into)


if __name__ == "__main__":
    main()
