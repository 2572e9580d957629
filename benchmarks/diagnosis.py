"""Which cause the diagnosis names for each case: `python benchmarks/diagnosis.py [--seeds 3]`.

Runs every faulty program of `tests/cases`, and every healthy one, and keeps a confusion table as
JSON and as a Markdown table. Results are written after every program, so that a run that is ended
early keeps what it has; `--resume` goes on from there.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import sys
import time
import warnings
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from measure import RESULTS, save

from ravine.diagnose import Diagnosis, diagnose

HERE = Path(__file__).parent
NAME = "diagnosis"
MARK = "<!-- measured: python benchmarks/diagnosis.py --docs docs/diagnosing.md -->"


def main() -> None:
    """Run what was asked for, print a line a program and the summary."""
    asked = _arguments()
    sys.path.insert(0, str(asked.cases))
    from cases import CASES, HEALTHY

    warnings.filterwarnings("ignore")
    table: dict[str, Any] = {"faulty": {}, "healthy": {}}
    kept = RESULTS / f"{asked.name}.json"
    if asked.resume and kept.exists():
        table = {part: json.loads(kept.read_text())[part] for part in table}
    programs = [("faulty", name, case.task, case) for name, case in CASES.items()]
    programs += [("healthy", name, control.task, control) for name, control in HEALTHY.items()]
    programs = [one for one in programs if asked.part in (None, one[0])]
    for seed in range(asked.first, asked.first + asked.seeds):
        for part, name, task, known in programs:
            done = table[part].setdefault(name, {"roots": list(getattr(known, "roots", ()))})
            if not re.search(asked.only, name) or str(seed) in done:
                continue
            done[str(seed)] = entry = outcome(task, seed, asked.budget)
            print(part, name, seed, *entry["found"][:3], f"{entry['seconds']:.0f} s", flush=True)
            result = {"budget": asked.budget, "summary": summary(table), **table}
            save(asked.name, result, f"benchmarks/diagnosis.py --budget {asked.budget:g}")
    if asked.speed:
        result = {**json.loads(kept.read_text()), "seconds on digits": speed()}
        save(asked.name, result, f"benchmarks/diagnosis.py --budget {asked.budget:g}")
    print(json.dumps(summary(table), indent=2))
    if asked.docs:
        publish(asked.docs, kept)


def speed(times: int = 3) -> dict[str, float]:
    """Time the diagnosis of the built-in digits, the findings without treatments and the whole."""
    ways = {"first findings": False, "whole": True}
    found: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(times):
        for way, treat in ways.items():
            start = time.perf_counter()
            diagnose("digits", treat=treat)
            found[way].append(time.perf_counter() - start)
    return {way: round(statistics.median(seconds), 2) for way, seconds in found.items()}


def publish(page: Path, result: Path) -> None:
    """Put the summary and the table into a page of the docs, between its marks."""
    text = page.read_text(encoding="utf-8")
    page.write_text(published(text, json.loads(result.read_text())), encoding="utf-8")


def published(text: str, result: dict[str, Any]) -> str:
    """Return a page with the figures of a result."""
    head, mark, rest = text.partition(MARK)
    _, end, tail = rest.partition("<!-- end -->")
    if not mark or not end:
        raise SystemExit(f"the page has no {MARK!r} and <!-- end -->")
    facts = result["environment"]
    lines = [f"Measured on {facts['date'][:10]}, torch {facts['torch']}, {result['command']}.", ""]
    for name, value in result["summary"].items():
        share = name.startswith(("root", "a treatment"))
        lines.append(f"* {name}: {value:.1%}" if share else f"* {name}: {value:g}")
    for way, seconds in result.get("seconds on digits", {}).items():
        lines.append(f"* seconds for the diagnosis of digits, {way}: {seconds:g}")
    return "\n".join([head + mark, "", *lines, "", markdown(result), "", end + tail])


def outcome(task: Any, seed: int, budget: float) -> dict[str, Any]:
    """Diagnose one program and return what is compared."""
    start, used = time.perf_counter(), time.process_time()
    try:
        found: Diagnosis = diagnose(task, seed=seed, budget=budget)
    except Exception as error:  # the table shows it, and the others go on
        return {"found": [], "error": f"{type(error).__name__}: {error}"[:300],
                "repaired": False, "seconds": time.perf_counter() - start}  # fmt: skip
    above = [f for f in found.findings if f.severity != "info"]
    return {
        "found": [f.name for f in above],
        "info": [f.name for f in found.findings if f.severity == "info"],
        "verdict": found.verdict,
        "repaired": any(t.helped for f in above[:1] for t in f.treatments),
        "seconds": time.perf_counter() - start,
        "processor_seconds": time.process_time() - used,
    }


def summary(table: dict[str, Any]) -> dict[str, Any]:
    """Return the shares over all programs and seeds that were run."""
    runs = [(set(row["roots"]), run) for row in table["faulty"].values() for run in seeds_of(row)]
    calm = [run for row in table["healthy"].values() for run in seeds_of(row)]

    everything = [run for _, run in runs] + calm

    def share(hits: list[bool]) -> float | None:
        return round(sum(hits) / len(hits), 4) if hits else None

    return {
        "faulty programs": sum(bool(seeds_of(row)) for row in table["faulty"].values()),
        "faulty runs": len(runs),
        "root first": share([bool(roots & set(run["found"][:1])) for roots, run in runs]),
        "root in first three": share([bool(roots & set(run["found"][:3])) for roots, run in runs]),
        "a treatment of the first repairs": share([run["repaired"] for _, run in runs]),
        "healthy programs": sum(bool(seeds_of(row)) for row in table["healthy"].values()),
        "healthy runs": len(calm),
        "healthy runs with a finding": sum(bool(run["found"]) for run in calm),
        "median seconds": round(statistics.median([run["seconds"] for run in everything]), 2),
        "most seconds": round(max(run["seconds"] for run in everything), 2),
    }


def seeds_of(row: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the runs of a row, one a seed."""
    return [run for key, run in row.items() if key != "roots"]


def markdown(table: dict[str, Any]) -> str:
    """Return the confusion table: each program, its cause, and what was named first."""
    lines = ["| program | cause | named first, by seed | repaired |", "| --- | --- | --- | --- |"]
    for part in ("faulty", "healthy"):
        for name, row in table[part].items():
            runs = seeds_of(row)
            if not runs:
                continue
            first = ", ".join((run["found"] or [run.get("error", "none")[:40]])[0] for run in runs)
            repaired = f"{sum(run['repaired'] for run in runs)} of {len(runs)}"
            cause = " or ".join(row["roots"]) or "(healthy)"
            lines.append(f"| {name} | {cause} | {first} | {repaired if row['roots'] else ''} |")
    return "\n".join(lines)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=Path, default=HERE.parent / "tests")
    parser.add_argument("--only", default="", help="a pattern of program names")
    parser.add_argument("--part", choices=("faulty", "healthy"), help="only these programs")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--budget", type=float, default=60.0, help="seconds a program")
    parser.add_argument("--name", default=NAME, help="of the result")
    parser.add_argument("--docs", type=Path, help="a page that gets the table, between its marks")
    parser.add_argument("--speed", action="store_true", help="time a diagnosis of digits as well")
    parser.add_argument("--resume", action="store_true", help="keep what the result holds")
    return parser.parse_args()


if __name__ == "__main__":
    main()
