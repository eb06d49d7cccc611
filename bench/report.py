"""From what was measured to a Markdown table, JSON, a picture, and the section of docs/explanation/performance.md."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median

from bench.goals import flatness, goal_lines
from bench.measures import percentile
from bench.peers import CONTENDERS
from bench.runner import Outcome, Report
from bench.servers import ROOT

RESULTS = ROOT / "bench" / "results"
DOCUMENT = ROOT / "docs" / "explanation" / "performance.md"
PICTURE = ROOT / "docs" / "explanation" / "performance.png"
# Where the tables of a run stand in the document.
MARKERS = {
    "bench": ("<!-- measured: begin (written by `make bench`) -->", "<!-- measured: end -->"),
    "cloud": (
        "<!-- measured with latency: begin (written by `make bench-cloud`) -->",
        "<!-- measured with latency: end -->",
    ),
}
# What others are compared with.
REFERENCE = "stack"

_LINES: tuple[tuple[str, str, str], ...] = (
    ("bare_updates_1", "bare single-row update and commit, 1 connection", "{:,.0f}/s"),
    ("bare_updates_8", "the same, 8 connections", "{:,.0f}/s"),
    ("single_completions_8", "completion of one task per call, 8 connections, one stage", "{:,.0f}/s"),
    ("single_messages_8", "CoreMachine, one message per task, 8 at a time, one stage", "{:,.0f} tasks/s"),
    ("bare_batches_1", "bare update of 100 rows and commit, 1 connection", "{:,.0f} rows/s"),
    ("completions_1", "completion path, 100 tasks a call, 1 connection", "{:,.0f} tasks/s"),
    ("bare_batches_8", "bare update of 100 rows and commit, 8 connections", "{:,.0f} rows/s"),
    ("completions_8", "completion path, 100 tasks a call, 8 connections, one stage", "{:,.0f} tasks/s"),
    ("plan_seconds", "plan and announce the largest stage", "{:.2f} s"),
    ("plan_megabytes", "peak memory that it adds", "{:.0f} MB"),
    ("connections_per_worker", "database connections a worker process, at the peak", "{:.1f}"),
    (
        "many_from_producer",
        "200 three-stage jobs at once, submitted by a process of the app, whole stack",
        "{:,.0f} jobs/s",
    ),
    ("prune_seconds", "retention deletes 1,000,000 task rows", "{:.0f} s"),
    ("chain_pruning_ms", "a three-stage job over HTTP meanwhile, p50", "{:.1f} ms"),
    ("chain_pruning_p95_ms", "the same, p95", "{:.1f} ms"),
    ("chain_from_producer_p50_ms", "one such job, submitted so, p50", "{:.1f} ms"),
    ("chain_from_producer_p95_ms", "the same, p95", "{:.1f} ms"),
    ("end_lag_p50_ms", "from a job's end until a waiting HTTP client has the answer, p50", "{:.1f} ms"),
    ("end_lag_p95_ms", "the same, p95", "{:.1f} ms"),
    ("submissions", "submissions over HTTP while the workers run the jobs, 8 clients", "{:,.0f}/s"),
    ("submit_p50_ms", "one of them, p50", "{:.1f} ms"),
    ("submit_p95_ms", "one of them, p95", "{:.1f} ms"),
    ("read_list_p50_ms", "GET /api/jobs, a million tasks in the tables, p50", "{:.1f} ms"),
    ("read_list_p95_ms", "the same, p95", "{:.1f} ms"),
    ("read_small_detail_p50_ms", "GET /api/jobs/{id} of a job of 3 tasks, p50", "{:.1f} ms"),
    ("read_small_detail_p95_ms", "the same, p95", "{:.1f} ms"),
    ("read_large_detail_p50_ms", "GET /api/jobs/{id} of a job of 100,000 tasks, p50", "{:.1f} ms"),
    ("read_large_detail_p95_ms", "the same, p95", "{:.1f} ms"),
    ("read_tasks_p50_ms", "GET /api/jobs/{id}/tasks, 100 of 100,000, p50", "{:.1f} ms"),
    ("read_tasks_p95_ms", "the same, p95", "{:.1f} ms"),
    (
        "bulk_jobs",
        "10,000 jobs of one task at once, by `submit:batch`, until all have ended",
        "{:,.0f} jobs/s",
    ),
    ("bulk_displaced_p95", "how many places they end before or after their turn, p95", "{:,.0f}"),
    ("bulk_displaced_most", "the same, most", "{:,.0f}"),
    ("look_small_ms", "GET /api/jobs/{id} of a running job of 1,000 tasks, p50", "{:.1f} ms"),
    ("look_large_ms", "the same, of 100,000 tasks", "{:.1f} ms"),
    ("look_large_first_ms", "the first look at it", "{:.1f} ms"),
    ("look_small_cancelled_ms", "GET /api/jobs/{id} of a cancelled job of 1,000 tasks, p50", "{:.1f} ms"),
    ("look_large_cancelled_ms", "the same, of 100,000 tasks", "{:.1f} ms"),
    ("prune_jobs_seconds", "retention deletes 100,000 jobs of one task", "{:.0f} s"),
    ("chain_pruning_jobs_ms", "a three-stage job over HTTP meanwhile, p50", "{:.1f} ms"),
    ("chain_before_pruning_jobs_ms", "the same before that", "{:.1f} ms"),
    ("idle_share", "processor time of an idle stack: two workers, broker and PostgreSQL", "{:.1%} of a core"),
    ("heavy_plan_megabytes", "peak memory that planning 1,000 tasks with parameters of 100 KB adds", "{:.0f} MB"),
    ("verify_few_ms", "`coremachine db verify`, per job of one task, of 1,000", "{:.2f} ms"),
    ("verify_many_ms", "the same, of 10,000", "{:.2f} ms"),
    ("table_bytes", "table, per task with a result of 100 bytes", "{:,.0f} bytes"),
    ("index_bytes", "indexes, per such task", "{:,.0f} bytes"),
    ("log_bytes", "write-ahead log, per such task, with the whole pages after a checkpoint", "{:,.0f} bytes"),
)
_RATIOS: tuple[tuple[str, str, str], ...] = (
    ("single_completions_8", "bare_updates_8", "completion of one task per call against bare updates, 8 connections"),
    ("single_messages_8", "bare_updates_8", "single-task messages against bare updates, 8 side by side"),
    ("completions_1", "bare_batches_1", "completion path against bare updates of 100, 1 connection"),
    ("completions_8", "bare_batches_8", "the same, 8 connections, one stage"),
    ("failing_seconds", "plain_seconds", "time with 5 % failing tasks against none"),
    ("eight_jobs_seconds", "plain_seconds", "time of 8 jobs at once against one job with as many tasks"),
    ("chain_million_ms", "chain_empty_ms", "whole stack, three-stage job: a million task rows present against none"),
    ("fan_million_seconds", "fan_empty_seconds", "whole stack, stage of 10,000: the same"),
    ("import_worker", "import_azure_functions", "import of function_app, worker app, against bare azure.functions"),
    ("import_platform", "import_azure_functions", "the same, platform app"),
    ("import_first_message", "import_azure_functions", "the same, with what the first message imports"),
    ("import_first_request", "import_azure_functions", "the same, with what the first request imports"),
)


def write(report: Report, name: str, *, is_full: bool) -> str:
    """JSON always; document and picture for a full run. Returns the Markdown."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(asdict(report), indent=1) + "\n", encoding="utf-8")
    text = "\n".join(markdown(report))
    if is_full:
        if not report.plan.is_cloud:
            draw(report, PICTURE)
        splice(DOCUMENT, text, *MARKERS[name])
    return text


def splice(document: Path, text: str, begin: str, end: str) -> None:
    """Put the text between these markers of the document.

    Raises:
        ValueError: It has none.
    """
    old = document.read_text(encoding="utf-8")
    before, begins, rest = old.partition(begin)
    _, ends, after = rest.partition(end)
    if not (begins and ends):
        raise ValueError(f"expected {document} to have the markers {begin} and {end}")
    document.write_text(f"{before}{begin}\n{text}\n{end}{after}", encoding="utf-8")


def markdown(report: Report) -> Iterator[str]:
    yield from _head(report)
    yield ""
    yield from _for_users(report)
    yield from _table(report)
    yield ""
    yield from _notes(report)
    if report.measures:
        yield ""
        yield from goal_lines(report)
        if not report.plan.is_cloud:
            yield ""
            yield from _own(report)
    yield ""
    yield from _versions(report)


def _head(report: Report) -> Iterator[str]:
    machine, server = report.machine, report.postgres
    settings = ", ".join(f"{name} {server[name]}" for name in ("fsync", "synchronous_commit", "shared_buffers"))
    yield (
        f"{machine['at'][:10]}, {machine['cores']} cores, Python {machine['python']}, PostgreSQL {server['version']} "
        f"({settings}), loopback and Unix sockets. Medians of {report.repetitions} interleaved repetitions. "
        f"Load of the machine while it ran (1 minute): median {median(report.loads):.1f}, "
        f"from {min(report.loads):.1f} to {max(report.loads):.1f}."
    )


def _for_users(report: Report) -> Iterator[str]:
    """The five figures that a user asks for first, each with what it is measured against."""
    found = {name: median(values) for name, values in report.measures.items()}
    if "small_behind_ms" not in found:
        return
    rows = [
        (f"tasks/s, {label}, n = {n:,}", f"{n / median(report.outcomes[name].fan[n]):,.0f}")
        for name, label, n in (("stack1", "one per message", 10_000), ("stack", "100 per message", 10_000))
        if name in report.outcomes and n in report.outcomes[name].fan
    ]
    if (stack := report.outcomes.get("stack")) and stack.chain:
        p95 = percentile(stack.chain, 0.95)
        rows.append(
            ("a job of three stages of one task, p50 / p95", f"{median(stack.chain) * 1e3:.0f} / {p95 * 1e3:.0f} ms")
        )
    rows += [
        (
            "1,000 tasks of 100 ms, and 200 of 1 s: share of the slots that is used",
            f"{found['share_100_ms']:.0%}, {found['share_1_s']:.0%}",
        ),
        (
            "a job of 3 tasks behind 1,200 of 100 ms (alone)",
            f"{found['small_behind_ms']:,.0f} ms ({found['small_alone_ms']:,.0f} ms)",
        ),
    ]
    yield "| Whole stack on this machine, over HTTP | |"
    yield "|---|---|"
    for label, value in rows:
        yield f"| {label} | {value} |"
    yield ""


def _table(report: Report) -> Iterator[str]:
    sizes = report.plan.sizes
    compared = _size_for_ratio(report)
    reference = report.outcomes.get(REFERENCE)
    yield (
        "| contender | "
        + " | ".join(f"n = {n:,}" for n in sizes)
        + f" | time against the whole stack, n = {compared:,} | chain of 3, p50 / p95 | many chains at once "
        "| after a crash |"
    )
    yield "|---|" + "---|" * (len(sizes) + 4)
    for name, outcome in report.outcomes.items():
        if name in report.missing or not outcome.fan:
            continue
        cells = [_fan_cell(outcome.fan.get(n), n, report.repetitions) for n in sizes]
        ratio = ""
        if reference and compared in reference.fan and compared in outcome.fan:
            ratio = f"{median(outcome.fan[compared]) / median(reference.fan[compared]):.2g} x"
        yield (
            f"| {CONTENDERS[name].label} | "
            + " | ".join([*cells, ratio, *_chain_cells(report, outcome), CONTENDERS[name].after_crash])
            + " |"
        )


def _size_for_ratio(report: Report) -> int:
    """The largest size that everyone ran, or the largest of the reference."""
    common = [n for n in report.plan.sizes if all(n in o.fan for o in report.outcomes.values() if o.fan)]
    return max(common, default=report.plan.sizes[0])


def _fan_cell(runs: Sequence[float] | None, n: int, repeats: int) -> str:
    if not runs:
        return "-"
    mark = "" if len(runs) == repeats else f" ({len(runs)} run{'s' if len(runs) > 1 else ''})"
    return f"{n / median(runs):,.0f}/s{mark}"


def _chain_cells(report: Report, outcome: Outcome) -> list[str]:
    if not outcome.chain:
        return ["-", "-"]
    latency = f"{median(outcome.chain) * 1e3:.0f} / {percentile(outcome.chain, 0.95) * 1e3:.0f} ms"
    if len(outcome.chain) < report.plan.chains:
        latency += f" (of {len(outcome.chain)})"
    many = "; ".join(f"{count / median(runs):,.1f} jobs/s ({count})" for count, runs in outcome.many.items())
    return [latency, many or "-"]


def _notes(report: Report) -> Iterator[str]:
    yield "n columns: tasks of the middle stage a second over the whole job's time, from submission to its known end."
    for name, need in report.missing.items():
        yield f"\nLeft out: {CONTENDERS[name].label}, since `{need}` is not installed."
    for name, outcome in report.outcomes.items():
        if outcome.problem:
            yield f"\n{CONTENDERS[name].label} failed: {outcome.problem}"
    for name, problem in report.failed_measures.items():
        yield f"\nNot measured: {name} ({problem})"


def _own(report: Report) -> Iterator[str]:
    found = {name: median(values) for name, values in report.measures.items()}
    yield "| CoreMachine's own figures, and the limits in the same run | median |"
    yield "|---|---|"
    for name, label, form in _LINES:
        if name in found:
            yield f"| {label} | {form.format(found[name])} |"
    yield ""
    yield "| ratio | median |"
    yield "|---|---|"
    for above, below, label in _RATIOS:
        if above in found and below in found:
            ratios = [a / b for a, b in zip(report.measures[above], report.measures[below], strict=True)]
            yield f"| {label} | {median(ratios):.2f} |"
    yield from _flatness(report)


def _flatness(report: Report) -> Iterator[str]:
    for name in ("floor", "engine2", "stack"):
        ratio = flatness(report, name)
        if ratio is not None:
            label = f"{CONTENDERS[name].label}: one more task between n = 10,000 and 100,000, against 100 and 1,000"
            yield f"| {label} | {ratio:.2f} |"


def _versions(report: Report) -> Iterator[str]:
    versions = {name: version for outcome in report.outcomes.values() for name, version in outcome.versions.items()}
    yield "Versions: " + ", ".join(f"{name} {version}" for name, version in sorted(versions.items())) + "."


def draw(report: Report, path: Path) -> None:
    """Cost of a task against n, both axes logarithmic."""
    import matplotlib as mpl  # noqa: PLC0415 - in the bench's own environment alone

    mpl.use("Agg")
    import matplotlib.pyplot as plt  # noqa: PLC0415

    figure, axes = plt.subplots(figsize=(9, 6), layout="constrained")
    for name, outcome in report.outcomes.items():
        if not outcome.fan:
            continue
        is_ours = CONTENDERS[name].is_ours
        sizes = sorted(outcome.fan)
        axes.plot(
            sizes,
            [median(outcome.fan[n]) / n * 1e6 for n in sizes],
            marker="o",
            linewidth=2.2 if is_ours else 1.2,
            linestyle="-" if is_ours else "--",
            label=CONTENDERS[name].label,
        )
    axes.set(xscale="log", yscale="log", xlabel="n, tasks of the fan-out stage", ylabel="cost of a task, microseconds")
    axes.grid(visible=True, which="both", alpha=0.25)
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    figure.savefig(path, dpi=110)
