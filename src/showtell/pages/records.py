"""What a training run logged, read with care: a killed run's last line is cut off, a diverged run's loss is NaN."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from showtell.metrics.table import METRICS, RANKED_BY, RANKING

Record = dict[str, Any]


def read_records(path: Path) -> tuple[list[Record], str]:
    """A file's JSON objects, one a line, and a sentence about what can't be read (empty if all can)."""
    try:
        lines = [line for line in path.read_text("utf-8", errors="replace").split("\n") if line.strip()]
    except OSError:
        return [], f"There is no {path.name} in the run folder."
    records = [record for line in lines if (record := _record(line)) is not None]
    unread = len(lines) - len(records)
    return records, f"Lines of {path.name} that can’t be read: {unread} of {len(lines)}." if unread else ""


def best_of(log: Sequence[Record]) -> Record | None:
    """The best validation, by the scores that rank epochs."""
    scored = [record for record in log if score(record, RANKED_BY) is not None]
    return max(scored, key=lambda record: [score(record, name) or 0.0 for name in RANKING], default=None)


def column(log: Sequence[Record], name: str) -> list[float]:
    """The numbers of that name, from the records that have one."""
    return [found for record in log if (found := number(record.get(name))) is not None]


def items(record: Record, name: str) -> list[Any]:
    """The list of that name, or an empty one."""
    value = record.get(name)
    return value if isinstance(value, list) else []


def scores(record: Record) -> dict[str, float]:
    """The record's scores by name, on the scale that people see: 0.2345 is 23.45.

    With several data sets, they are the first one's, and `CIDEr, NAME` for each of the others.
    """
    logged = record.get("scores")
    found = {name: number(value) for name, value in (logged if isinstance(logged, dict) else {}).items()}
    of_all = record.get("scores_of")
    for name, of_other in list((of_all if isinstance(of_all, dict) else {}).items())[1:]:
        found[f"{RANKED_BY}, {name}"] = number((of_other if isinstance(of_other, dict) else {}).get(RANKED_BY))
    scales = {name: metric.scale for metric in METRICS.values() for name in metric.names}
    return {name: scales.get(name, 100.0) * value for name, value in found.items() if value is not None}


def score(record: Record, metric: str) -> float | None:
    """One of the record's scores, on the same scale."""
    return scores(record).get(metric)


def number(value: object) -> float | None:
    """A finite number, or None for anything else that a log may hold."""
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    return None


def _record(line: str) -> Record | None:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None
