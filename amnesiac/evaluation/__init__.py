"""How near an unlearned model is to a retrained one: metrics, figures, tables and a report."""

from amnesiac.evaluation.accuracy import accuracy, per_class_accuracy
from amnesiac.evaluation.comparison import ROLES, SETS, Metrics, compare, roles_in
from amnesiac.evaluation.divergence import kl, margin, mean_abs_margin_difference, relative_verification_error
from amnesiac.evaluation.logits import predict
from amnesiac.evaluation.plots import ForgottenExample, draw_figures, to_png, to_svg
from amnesiac.evaluation.report import ReportFacts, render_report
from amnesiac.evaluation.tables import accuracy_rows, per_class_rows
from amnesiac.evaluation.verdict import Verdict, judge

__all__ = [
    "ROLES",
    "SETS",
    "ForgottenExample",
    "Metrics",
    "ReportFacts",
    "Verdict",
    "accuracy",
    "accuracy_rows",
    "compare",
    "draw_figures",
    "judge",
    "kl",
    "margin",
    "mean_abs_margin_difference",
    "per_class_accuracy",
    "per_class_rows",
    "predict",
    "relative_verification_error",
    "render_report",
    "roles_in",
    "to_png",
    "to_svg",
]
