"""Several runs of `amnesiac bench forgetting` in one result file, as the full profile's configs are run one by one.

    python -m benchmarks.forgetting_merge INTO RESULT [RESULT ...]

Rows of the same data set, model, optimiser and seed are replaced, all cases together; targets are judged anew over all
rows. What each run cost, and where it ran, stays apart: `runs`.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from amnesiac.durable import write_json
from benchmarks.forgetting_targets import evaluate

Result = Mapping[str, Any]
Run = tuple[str, str, str, int]


def merged(into: Result, found: Result) -> dict[str, Any]:
    """`into` with the rows of `found` added or put in the place of the same run's; both as `benchmark` returns them."""
    new = run_names(found["rows"])
    kept = [row for row in into["rows"] if run_of(row) not in new]
    every = [*into["rows"], *found["rows"]]
    rows = sorted([*kept, *found["rows"]], key=lambda row: (order(row, every), row["seed"]))
    own = ran(found)
    known = into["runs"] if "runs" in into else [ran(into)]
    earlier = [old for old in known if not {*old["runs"]} <= {*own["runs"]}]
    return {"rows": rows, "targets": evaluate(rows), "profile": found["profile"], "runs": [*earlier, own]}


def ran(result: Result) -> dict[str, Any]:
    """What one call of the benchmark ran, where, and at what cost."""
    runs = [" ".join(map(str, run)) for run in run_names(result["rows"])]
    return {"runs": runs, "environment": result["environment"], "cost": result["cost"]}


def run_of(row: Mapping[str, Any]) -> Run:
    """Data set, model, optimiser and seed of a row: the training run that it was judged on."""
    return row["dataset"], row["model"], row["optimizer"], row["seed"]


def run_names(rows: Sequence[Mapping[str, Any]]) -> list[Run]:
    """The training runs of some rows, in their order."""
    return list(dict.fromkeys(map(run_of, rows)))


def order(row: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> int:
    """Where a row's config comes first among `rows`, so that the seeds of a config stand together."""
    return next(k for k, other in enumerate(rows) if run_of(other)[:3] == run_of(row)[:3])


def main(arguments: Sequence[str]) -> None:
    """Merge the result files named after the first one into it."""
    into, *others = map(Path, arguments)
    result = json.loads(into.read_text())
    for path in others:
        result = merged(result, json.loads(path.read_text()))
    write_json(into, result)


if __name__ == "__main__":
    main(sys.argv[1:])
