"""What a run shows in the dashboard: tables, figures and links as Prefect artifacts."""

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from prefect import task
from prefect.artifacts import (
    create_image_artifact,
    create_link_artifact,
    create_markdown_artifact,
    create_table_artifact,
)
from prefect.cache_policies import NO_CACHE

from amnesiac.evaluation import SETS, headline, roles_in


@task(name="show the numbers", cache_policy=NO_CACHE, persist_result=False)
def show_summary(key: str, title: str, summary: Mapping[str, Any]) -> None:
    """A summary as a two-column table."""
    rows = [{"what": name, "value": str(value)} for name, value in summary.items()]
    create_table_artifact(rows, key=key, description=title)


@task(name="show the comparison", cache_policy=NO_CACHE, persist_result=False)
def show_comparison(metrics: Mapping[str, Any], report: Path) -> None:
    """Result table, verdict, figures and a link to the report."""
    create_table_artifact(result_table(metrics), key="result", description="Accuracy in %, divergence from retraining")
    create_markdown_artifact(_verdict(metrics, report), key="verdict", description="Verdict")
    create_link_artifact(report.as_uri(), link_text="report.html", key="report", description="Self-contained report")
    for figure in sorted(report.parent.glob("*.png")):
        if figure.stem == "examples":  # pictures of samples that will be erased stay out of Prefect's database
            continue
        create_image_artifact(image_uri(figure), key=figure.stem.replace("_", "-"))


def image_uri(path: Path) -> str:
    """A PNG file as a data URI."""
    return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"


@task(name="show the batch", cache_policy=NO_CACHE, persist_result=False)
def show_batch(summary: Mapping[str, Any], reports: Mapping[str, Path], receipts: Sequence[Mapping[str, Any]]) -> None:
    """A batch's states as a table, a link to its archived report, and the table of its requests with their receipts."""
    rows = [{"what": name, "value": str(value)} for name, value in summary.items()]
    create_table_artifact(rows, key="deletion-batch", description="Deletion batch: states, times and counts")
    for title, path in reports.items():
        create_link_artifact(path.as_uri(), link_text=title, key="archived-report", description="Kept with the batch")
    if receipts:
        create_table_artifact([*map(dict, receipts)], key="requests", description="Requests, deadlines and receipts")


def result_table(metrics: Mapping[str, Any]) -> list[dict[str, str]]:
    """One line a model, as text: what the dashboard and the terminal show."""
    return [
        {"model": role}
        | {f"{name} %": _shown(metrics[role][f"{name}_accuracy"], 100.0, "{:.1f}") for name in SETS}
        | {f"KL {name}": _shown(metrics[role][f"kl_{name}"], 1.0, "{:.4f}") for name in ("forget", "test")}
        | {"rel. error": _shown(metrics[role]["relative_verification_error"], 1.0, "{:.3f}")}
        for role in roles_in(metrics)
    ]


def _verdict(metrics: Mapping[str, Any], report: Path) -> str:
    """Every result's verdict with its place beside the seed-to-seed band."""
    said = [f"**{role}**: {headline(metrics, role).sentence}" for role in ("unlearned", "repaired") if role in metrics]
    return "\n\n".join([*said, f"Report: `{report}`"])


def _shown(value: float | None, factor: float, form: str) -> str:
    return "–" if value is None else form.format(factor * value)
