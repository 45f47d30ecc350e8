"""The errors of the core, grouped by what the caller should do about them.

`InputError`      mend what was passed in (settings, data, requests, model): the message names it and the remedy
`StoreError`      don't trust what is on disk: restore or re-run the stage that wrote it
Both are `AmnesiacError`, so a command line can turn every one of them into one clear line.
"""


class AmnesiacError(Exception):
    """Anything this package raises on purpose."""


class InputError(AmnesiacError):
    """Something passed in is wrong; the message says what, where and how to mend it."""


class SettingsError(InputError):
    """A value of params.yaml is missing, misspelt or out of range."""


class DataError(InputError):
    """A data source is malformed: names the file, the row and the remedy."""


class UnsupportedModel(InputError):
    """A layer can't be captured; raised before training starts."""


class UnsupportedOptimizer(InputError):
    """The optimiser's updates can't be attributed to samples."""


class RequestError(InputError):
    """A deletion request is malformed or contradictory."""


class UnknownSample(RequestError):
    """Ids, subjects or classes that the data set doesn't hold; the message lists them."""


class ReceiptError(InputError):
    """The facts of a receipt, or an entry of the recipients' register, are malformed."""


class PurgeRefused(InputError):
    """What was to be removed lies outside of the places given, or other projects need it; nothing was removed."""


class StoreError(AmnesiacError):
    """A store on disk can't be used."""


class UnsealedStore(StoreError):
    """The store was never sealed: its run is unfinished or was killed."""


class IncompleteStore(StoreError):
    """Contributions that should exist are missing."""


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
