"""Signed receipts of deletions, in a chain that shows when one is altered or missing; and who was told of them."""

from amnesiac.receipts.chain import Chain, Stored
from amnesiac.receipts.envelope import Envelope, Signature, pae, read_envelope
from amnesiac.receipts.facts import Algorithm, Model, Purged, Receipt, Request, Scan
from amnesiac.receipts.page import as_page, as_text
from amnesiac.receipts.public_keys import PublicKey, read_public_key, read_public_keys
from amnesiac.receipts.recipients import Recipient, Recipients
from amnesiac.receipts.signing_key import SigningKey, ensure_signing_key, open_signing_key, rotate_signing_key
from amnesiac.receipts.statement import SignedReceipt, verify_file
from amnesiac.receipts.verification import ChainVerification, verify_chain

__all__ = [
    "Algorithm",
    "Chain",
    "ChainVerification",
    "Envelope",
    "Model",
    "PublicKey",
    "Purged",
    "Receipt",
    "Recipient",
    "Recipients",
    "Request",
    "Scan",
    "Signature",
    "SignedReceipt",
    "SigningKey",
    "Stored",
    "as_page",
    "as_text",
    "ensure_signing_key",
    "open_signing_key",
    "pae",
    "read_envelope",
    "read_public_key",
    "read_public_keys",
    "rotate_signing_key",
    "verify_chain",
    "verify_file",
]
