"""Keys a subject: what belongs to somebody is encrypted with their key, and erased by destroying it."""

from amnesiac.keys.encryption import Encrypted, seal_texts, unseal_texts
from amnesiac.keys.ids import ERASED_ID, erased_mask, seal_ids, unseal_ids
from amnesiac.keys.local import LocalKeyStore
from amnesiac.keys.store import Destruction, KeyStore, check_store, sample_name, step_name

__all__ = [
    "ERASED_ID",
    "Destruction",
    "Encrypted",
    "KeyStore",
    "LocalKeyStore",
    "check_store",
    "erased_mask",
    "seal_ids",
    "seal_texts",
    "sample_name",
    "step_name",
    "unseal_ids",
    "unseal_texts",
]
