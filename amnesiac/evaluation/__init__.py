"""How near an unlearned model is to a retrained one: metrics, figures, tables and a report."""

from amnesiac.evaluation.accuracy import accuracy, per_class_accuracy
from amnesiac.evaluation.audit_record import Attacked, AuditFacts, AuditSet, audit_from_json, audit_of
from amnesiac.evaluation.band import band_sentence, within
from amnesiac.evaluation.comparison import ROLES, SETS, Metrics, compare, roles_in
from amnesiac.evaluation.divergence import kl, margin, mean_abs_margin_difference, relative_verification_error
from amnesiac.evaluation.facts import Asked, BatchFacts, Drift, ReportFacts, facts_from_json, facts_to_json
from amnesiac.evaluation.logits import predict
from amnesiac.evaluation.membership import Membership, membership, membership_curves
from amnesiac.evaluation.plots import ForgottenExample, draw_figures, to_png, to_svg
from amnesiac.evaluation.report import headline, render_markdown, render_report
from amnesiac.evaluation.tables import accuracy_rows, fidelity_rows, per_class_rows
from amnesiac.evaluation.verdict import Verdict, judge

__all__ = [
    "ROLES",
    "SETS",
    "Asked",
    "Attacked",
    "AuditFacts",
    "AuditSet",
    "BatchFacts",
    "Drift",
    "ForgottenExample",
    "Membership",
    "Metrics",
    "ReportFacts",
    "Verdict",
    "accuracy",
    "accuracy_rows",
    "audit_from_json",
    "audit_of",
    "band_sentence",
    "compare",
    "draw_figures",
    "facts_from_json",
    "facts_to_json",
    "fidelity_rows",
    "headline",
    "judge",
    "kl",
    "margin",
    "mean_abs_margin_difference",
    "membership",
    "membership_curves",
    "per_class_accuracy",
    "per_class_rows",
    "predict",
    "relative_verification_error",
    "render_markdown",
    "render_report",
    "roles_in",
    "to_png",
    "to_svg",
    "within",
]
