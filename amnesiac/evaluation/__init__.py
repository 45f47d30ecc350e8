"""How near an unlearned model is to a retrained one: metrics of pairs and ensembles, figures, tables and a report."""

from amnesiac.evaluation.accuracy import accuracy, per_class_accuracy
from amnesiac.evaluation.audit_record import Attacked, AuditFacts, AuditSet, audit_from_json, audit_of
from amnesiac.evaluation.band import band_sentence, within
from amnesiac.evaluation.comparison import ROLES, SETS, Metrics, compare, roles_in
from amnesiac.evaluation.confusion import confusion
from amnesiac.evaluation.divergence import kl, margin, mean_abs_margin_difference, relative_verification_error
from amnesiac.evaluation.epsilon import competition_score, forgetting_epsilon, forgetting_score
from amnesiac.evaluation.facts import Asked, BatchFacts, Drift, ReportFacts, facts_from_json, facts_to_json
from amnesiac.evaluation.fidelity import activation_distance, agreement
from amnesiac.evaluation.klom import NullBand, klom, klom_quantiles, null_band
from amnesiac.evaluation.logits import predict
from amnesiac.evaluation.membership import Membership, membership, membership_curves
from amnesiac.evaluation.plots import ForgottenExample, draw_figures, examples_figure, to_png, to_svg
from amnesiac.evaluation.population import PopulationAttack, population_attack
from amnesiac.evaluation.report import headline, render_markdown, render_report
from amnesiac.evaluation.roc import auc, tpr_at_fpr
from amnesiac.evaluation.tables import accuracy_rows, fidelity_rows, per_class_rows
from amnesiac.evaluation.tow import Triplet, tow
from amnesiac.evaluation.trials import trial_row, trials_figure, trials_table
from amnesiac.evaluation.ulira import ULira, ulira
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
    "NullBand",
    "PopulationAttack",
    "ReportFacts",
    "Triplet",
    "ULira",
    "Verdict",
    "accuracy",
    "accuracy_rows",
    "audit_from_json",
    "audit_of",
    "band_sentence",
    "activation_distance",
    "agreement",
    "auc",
    "compare",
    "competition_score",
    "confusion",
    "draw_figures",
    "examples_figure",
    "facts_from_json",
    "facts_to_json",
    "fidelity_rows",
    "headline",
    "forgetting_epsilon",
    "forgetting_score",
    "judge",
    "kl",
    "klom",
    "klom_quantiles",
    "margin",
    "mean_abs_margin_difference",
    "membership",
    "membership_curves",
    "null_band",
    "per_class_accuracy",
    "per_class_rows",
    "population_attack",
    "predict",
    "relative_verification_error",
    "render_markdown",
    "render_report",
    "roles_in",
    "to_png",
    "to_svg",
    "within",
    "tow",
    "tpr_at_fpr",
    "ulira",
    "trial_row",
    "trials_figure",
    "trials_table",
]
