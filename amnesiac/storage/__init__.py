"""An object store by URL: objects with conditional puts (obstore), and the older versions that a bucket keeps."""

from amnesiac.storage.address import Access, Address, access, is_remote, parse_address, refuse_secrets
from amnesiac.storage.copies import claim, copy_folder
from amnesiac.storage.objects import Storage, Stored, fetch_folder, open_storage, write_folder
from amnesiac.storage.purge import ObjectPurge, PurgedObjects
from amnesiac.storage.settings import StorageSettings
from amnesiac.storage.versions import ObjectVersion, abort_uploads, delete_versions, object_versions, version_content

__all__ = [
    "Access",
    "Address",
    "ObjectPurge",
    "ObjectVersion",
    "PurgedObjects",
    "Storage",
    "StorageSettings",
    "Stored",
    "abort_uploads",
    "access",
    "claim",
    "copy_folder",
    "delete_versions",
    "fetch_folder",
    "is_remote",
    "object_versions",
    "open_storage",
    "parse_address",
    "refuse_secrets",
    "version_content",
    "write_folder",
]
