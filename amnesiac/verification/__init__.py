"""A second opinion on the published weights: base + corrections - sum of surviving rows, in NumPy, without the code
that wrote them. Shares only `rowstore` (which checks each row's tag), `keys` (which decrypts) and the errors with the
rest.
"""

from amnesiac.verification.identity import Verification, Version, verify

__all__ = ["Verification", "Version", "verify"]
