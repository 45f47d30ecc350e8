"""What a bucket keeps beside its objects: older versions, markers of deletion, uploads that never ended.

In a versioned bucket a delete only hides an object: its content stays under a version id until that is deleted too.
The only module with botocore (obstore can't list versions).
"""

import functools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from amnesiac.errors import StoreError
from amnesiac.storage.address import Address, access
from amnesiac.storage.package import optional

_AT_ONCE = 1000  # keys that one request may delete


@dataclass(frozen=True)
class ObjectVersion:
    """One version of an object, or a marker of its deletion (`bytes` 0).

    name:    below the address it was listed for;  id: `null` where the bucket has no versions
    current: what a reader gets without naming a version
    """

    name: str
    id: str
    bytes: int
    current: bool
    marker: bool


def object_versions(address: Address) -> tuple[ObjectVersion, ...]:
    """Every version and marker below an address, by name; raises StoreError."""
    prefix, found = f"{address.prefix}/" if address.prefix else "", list[ObjectVersion]()
    with _client(address) as client:
        for page in client.get_paginator("list_object_versions").paginate(Bucket=address.bucket, Prefix=prefix):
            for kind in ("Versions", "DeleteMarkers"):
                found += [_version(one, prefix, kind == "DeleteMarkers") for one in page.get(kind, ())]
    return tuple(sorted(found, key=lambda one: (one.name, one.id)))


def delete_versions(address: Address, versions: Sequence[tuple[str, str]]) -> None:
    """Delete versions (name, id) for good; one that is gone already is passed over.

    Raises StoreError naming the first that the server refuses to delete: retention (object lock), or rights.
    """
    with _client(address) as client:
        for start in range(0, len(versions), _AT_ONCE):
            objects = [{"Key": address.key(name), "VersionId": id} for name, id in versions[start : start + _AT_ONCE]]
            done = client.delete_objects(Bucket=address.bucket, Delete={"Objects": objects, "Quiet": True})
            for error in done.get("Errors", ()):
                raise StoreError(
                    f"s3://{address.bucket}/{error['Key']} (version {error.get('VersionId')}) can't be deleted: "
                    f"{error.get('Code')} {error.get('Message')}. Grant s3:DeleteObjectVersion, end the bucket's "
                    "retention for this prefix, and run the purge again"
                )


def abort_uploads(address: Address) -> int:
    """End uploads in parts that nobody finished: their parts are kept, and listed nowhere else; how many there were."""
    prefix, ended = f"{address.prefix}/" if address.prefix else "", 0
    with _client(address) as client:
        for page in client.get_paginator("list_multipart_uploads").paginate(Bucket=address.bucket, Prefix=prefix):
            for one in page.get("Uploads", ()):
                client.abort_multipart_upload(Bucket=address.bucket, Key=one["Key"], UploadId=one["UploadId"])
                ended += 1
    return ended


def version_content(address: Address, version: ObjectVersion) -> bytes:
    """The content of one version; raises StoreError."""
    with _client(address) as client:
        id = {} if version.id == "null" else {"VersionId": version.id}
        return bytes(client.get_object(Bucket=address.bucket, Key=address.key(version.name), **id)["Body"].read())


def _version(one: dict[str, Any], prefix: str, marker: bool) -> ObjectVersion:
    size = 0 if marker else int(one["Size"])
    return ObjectVersion(one["Key"][len(prefix) :], str(one["VersionId"]), size, bool(one["IsLatest"]), marker)


@contextmanager
def _client(address: Address) -> Iterator[Any]:
    how, errors = access(), optional("botocore.exceptions")
    config = optional("botocore.config").Config(
        retries={"mode": "standard", "max_attempts": 10}, signature_version="s3v4",
        s3={"addressing_style": "path" if how.endpoint else "auto"},
    )  # fmt: skip
    client = _session().create_client("s3", region_name=how.region, endpoint_url=how.endpoint, config=config)
    try:
        yield client
    except (errors.BotoCoreError, errors.ClientError) as error:
        raise StoreError(
            f"{address.url}: its versions can't be listed or deleted: {error}. The purge needs s3:ListBucketVersions, "
            "s3:DeleteObjectVersion and s3:ListBucketMultipartUploads; then run it again"
        ) from error
    finally:
        client.close()


@functools.cache
def _session() -> Any:
    """One a process: it keeps the descriptions of the service, which take a second to read."""
    return optional("botocore.session").get_session()
