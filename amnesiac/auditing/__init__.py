"""Auditing a training setup with ensembles: can models that forgot be told from models that never knew?

setup     what is audited and what decides a member's bits        strata    the forget sets, by memorisation
members   training one member; ensemble and pool keep and run it  reading   the files as ensembles
figures   every metric of a forget set; verdict on the method and on the audit itself; audit_plots draws them
"""

from amnesiac.auditing.audit_plots import curve_rows, draw_audit, klom_rows
from amnesiac.auditing.ensemble import damaged_members, has_member, keep_member, missing_members, read_member
from amnesiac.auditing.figures import set_figures
from amnesiac.auditing.pool import MemberPool, member_pool
from amnesiac.auditing.reading import Ensembles, read_ensembles, read_memorisation
from amnesiac.auditing.setup import ForgetSet, Member, Setup
from amnesiac.auditing.strata import STRATA, draw_sets, ensemble_members, left_out_members, memorisation, needs_scores
from amnesiac.auditing.verdict import AuditVerdict, judge_audit

__all__ = [
    "STRATA",
    "AuditVerdict",
    "Ensembles",
    "ForgetSet",
    "Member",
    "MemberPool",
    "Setup",
    "curve_rows",
    "damaged_members",
    "draw_audit",
    "draw_sets",
    "ensemble_members",
    "has_member",
    "judge_audit",
    "keep_member",
    "klom_rows",
    "left_out_members",
    "member_pool",
    "memorisation",
    "missing_members",
    "needs_scores",
    "read_ensembles",
    "read_member",
    "read_memorisation",
    "set_figures",
]
