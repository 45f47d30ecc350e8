"""The methods people would pick instead, one file each, behind one interface (decision 0006).

They start from trained weights and (most of them) from training data, not from the ledger, so they are compared, not
published.
"""

from collections.abc import Mapping

from amnesiac.unlearning.peers.bad_teacher import BAD_TEACHER
from amnesiac.unlearning.peers.curvature import FinalCurvature, final_curvature
from amnesiac.unlearning.peers.fine_tune import FINE_TUNE
from amnesiac.unlearning.peers.fisher import diagonal_fisher
from amnesiac.unlearning.peers.gradient_ascent import GRADIENT_ASCENT
from amnesiac.unlearning.peers.influence import INFLUENCE
from amnesiac.unlearning.peers.l1_sparse import L1_SPARSE
from amnesiac.unlearning.peers.neg_grad_plus import NEG_GRAD_PLUS
from amnesiac.unlearning.peers.peer import Peer, Start
from amnesiac.unlearning.peers.random_labels import RANDOM_LABELS
from amnesiac.unlearning.peers.retraining import RETRAINING
from amnesiac.unlearning.peers.rewind import REWIND
from amnesiac.unlearning.peers.salun import SALUN
from amnesiac.unlearning.peers.scrub import SCRUB
from amnesiac.unlearning.peers.synaptic_dampening import SYNAPTIC_DAMPENING

PEERS: Mapping[str, Peer] = {
    peer.name: peer
    for peer in (
        GRADIENT_ASCENT, SYNAPTIC_DAMPENING, INFLUENCE, FINE_TUNE, NEG_GRAD_PLUS, RANDOM_LABELS, SALUN, SCRUB,
        BAD_TEACHER, L1_SPARSE, REWIND, RETRAINING,
    )
}  # fmt: skip

__all__ = ["PEERS", "FinalCurvature", "Peer", "Start", "diagonal_fisher", "final_curvature"]
