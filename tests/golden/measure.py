"""Rows for the golden table: python -m tests.golden.measure MODEL... [--sizes 64x64,75x44].

Prints what is found. Whether that is right is for who adds the row: compare it with the paper, and
let a test say why each count is what it is.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

import flatfold


def measured(name: str, sizes: list[list[int]]) -> dict[str, Any]:
    small = flatfold.optimize(name, input_shape=(3, *sizes[0]), dynamic_batch=True, verify="off")
    own = flatfold.optimize(name, verify="off")
    return {
        "sizes": sizes,
        "before": small.before.operators,
        "after": small.after.operators,
        "parameters": [small.before.parameters, small.after.parameters],
        "gmac": [round((count.macs or 0) / 1e9, 3) for count in (own.before, own.after)],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--sizes", default="64x64,75x44", help="two sizes, height x width")
    given = parser.parse_args()
    sizes = [[int(side) for side in size.split("x")] for size in given.sizes.split(",")]
    rows = [f'  "{name}": {json.dumps(measured(name, sizes))}' for name in given.models]
    print("{\n" + ",\n".join(rows) + "\n}")


if __name__ == "__main__":
    main()
