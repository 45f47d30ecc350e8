"""The errors of the core, grouped by what the caller should do about them.

`InputError`      mend what was passed in (settings, data, requests, model): the message names it and the remedy
`StoreError`      don't trust what is on disk: restore or re-run the stage that wrote it
Both are `AmnesiacError`, so a command line can turn every one of them into one clear line.
"""

from typing import ClassVar


class AmnesiacError(Exception):
    """Anything this package raises on purpose.

    names_samples: the message may hold ids of samples or people, and belongs on a command line only
    """

    names_samples: ClassVar[bool] = False


class InputError(AmnesiacError):
    """Something passed in is wrong; the message says what, where and how to mend it."""


class SettingsError(InputError):
    """A value of params.yaml is missing, misspelt or out of range."""


class DataError(InputError):
    """A data source is malformed: names the file, the row and the remedy."""

    names_samples = True


class UnsupportedModel(InputError):
    """A layer can't be captured; raised before training starts."""


class UnsupportedOptimizer(InputError):
    """The optimiser's updates can't be attributed to samples."""


class RequestError(InputError):
    """A deletion request is malformed or contradictory."""

    names_samples = True


class UnknownSample(RequestError):
    """Ids, subjects or classes that the data set doesn't hold; the message lists them."""


class ReceiptError(InputError):
    """The facts of a receipt, or an entry of the recipients' register, are malformed."""


class PurgeRefused(InputError):
    """What was to be removed lies outside of the places given, or other projects need it; nothing was removed."""


class StoreError(AmnesiacError):
    """A store on disk can't be used."""


class ResidueFound(StoreError):
    """Something of the erased is still lying somewhere; the message names the files, never the erased."""


class UnsealedStore(StoreError):
    """The store was never sealed: its run is unfinished or was killed."""


class IncompleteStore(StoreError):
    """Contributions that should exist are missing."""

    names_samples = True


class SpecMismatch(StoreError):
    """Store, model and data belong to different runs."""


class DamagedStore(StoreError):
    """Metadata or files of the store are missing or altered."""


class DamagedReceipt(DamagedStore):
    """A receipt, or the chain it belongs to, was altered, or isn't signed by the key given."""


class SigningKeyError(StoreError):
    """The key that signs receipts is missing, open to others or altered."""


class DamagedRow(DamagedStore):
    """A row fails its checksum: altered, missing, swapped or from another run."""

    names_samples = True


class BatchConflict(StoreError):
    """A deletion batch can't be opened, or can't take this step: another is unfinished, or it isn't there yet."""


class StaleWriter(StoreError):
    """Another writer has taken over meanwhile: its fence is newer, or HEAD has moved. Nothing was changed."""


class ProcessDied(StoreError):
    """One of several processes that train together ended without a word: killed, or out of memory."""


class PeerLost(ProcessDied):
    """Another of the processes that train together has ended: a consequence, whose cause is that process's error."""


class KeyStoreMissing(StoreError):
    """What is to be read is encrypted, and its key store isn't there: restore it, or say where it lies."""


class KeyDestroyed(StoreError):
    """The key was destroyed on purpose: what it encrypted is erased, in every copy, and doesn't come back."""
