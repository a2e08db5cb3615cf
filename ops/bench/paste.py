#!/usr/bin/env python3
"""Puts the tables of a command's output into docs/measurements.md: `paste.py NAME OUTPUT`.

The lines of OUTPUT that are rows of tables replace what stands between `<!-- NAME -->` and `<!-- /NAME -->`; a head that
comes again is left out, and so is what stands before the first."""

import sys
from pathlib import Path

from table import replace_between

DOCUMENT = Path(__file__).resolve().parents[2] / "docs/measurements.md"


def tables(text: str) -> str:
    # A test's name may stand before its first line.
    rows = [line[line.index("|") :] for line in text.splitlines() if line.rstrip().endswith("|") and "|" in line]
    # Rows before the first head are those of a table that is printed again when it is whole.
    rows = rows[next((at for at, row in enumerate(rows[1:]) if row.startswith("|---")), 0) :]
    head = rows[:2]
    return "\n".join(head + [row for row in rows[2:] if row not in head])


if __name__ == "__main__":
    name, output = sys.argv[1:]
    text = Path(output).read_text()
    replace_between(name, tables(text), DOCUMENT)
