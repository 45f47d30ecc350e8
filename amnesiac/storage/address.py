"""Where an object store lies: a URL without secrets, and what the environment says of endpoint, region and credentials.

AWS_ENDPOINT_URL_S3 or AWS_ENDPOINT_URL   of a store that isn't Amazon's
AWS_REGION or AWS_DEFAULT_REGION          us-east-1 unless set
AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY  and AWS_SESSION_TOKEN; or what a container or a cluster gives its processes
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from amnesiac.errors import SettingsError, StoreError

_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_PART = re.compile(r"[A-Za-z0-9_.=-]+")
_KEY_ID = re.compile(r"(?<![A-Z0-9])(AKIA|ASIA)[A-Z0-9]{12,}")
_ROLES = (
    "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI",
)  # fmt: skip
_FROM_ENVIRONMENT = "credentials come from the environment only (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY)"


@dataclass(frozen=True)
class Address:
    """A bucket and a prefix in it (`a/b`; "" for the whole bucket)."""

    bucket: str
    prefix: str

    @property
    def url(self) -> str:
        """As `s3://bucket/prefix`."""
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/")

    def below(self, *parts: str) -> "Address":
        """A place below this one."""
        return Address(self.bucket, "/".join([*filter(None, [self.prefix]), *parts]))

    def key(self, name: str) -> str:
        """The key in the bucket of what is called `name` below this prefix."""
        return f"{self.prefix}/{name}" if self.prefix else name


def is_remote(url: object) -> bool:
    """Whether something that may be a path is a URL."""
    return "://" in str(url)


def parse_address(url: str) -> Address:
    """Take `s3://bucket/prefix` apart.

    Raises SettingsError for another scheme, a malformed name, and for anything that holds or might hold a secret: the
    message doesn't repeat the URL then.
    """
    refuse_secrets(url)
    parts = urlsplit(url)
    if parts.scheme != "s3":
        raise SettingsError(f"{url!r} isn't a URL of an object store: write s3://BUCKET/PREFIX, or leave it out")
    prefix = parts.path.strip("/")
    if not _BUCKET.fullmatch(parts.netloc):
        raise SettingsError(f"{url!r}: {parts.netloc!r} can't be a bucket's name: write s3://BUCKET/PREFIX")
    if bad := [part for part in filter(None, [*prefix.split("/")]) if not _PART.fullmatch(part) or not part.strip(".")]:
        raise SettingsError(
            f"{url!r}: {bad[0]!r} can't be part of a prefix: use letters, digits, `_`, `.`, `=` and `-`"
        )
    return Address(parts.netloc, "/".join(filter(None, prefix.split("/"))))


def refuse_secrets(url: str) -> None:
    """Raise SettingsError, which doesn't repeat it, where a URL holds what only the environment may hold."""
    parts = urlsplit(url)
    what = (
        "a user name or password" if "@" in parts.netloc
        else "a query, where keys and signatures stand" if parts.query or parts.fragment
        else "an access key" if _KEY_ID.search(url)
        else None
    )  # fmt: skip
    if what:
        raise SettingsError(
            f"the URL of an object store ({parts.scheme}://…) holds {what}: write s3://BUCKET/PREFIX; "
            f"{_FROM_ENVIRONMENT}. If a secret was written there, it may be in git: withdraw it"
        )


@dataclass(frozen=True)
class Access:
    """endpoint: None for Amazon's own;  fixed: whether a key pair is set, else a role gives changing ones."""

    endpoint: str | None
    region: str
    fixed: bool


def access(environment: Mapping[str, str] = os.environ) -> Access:
    """How the object store is reached; raises StoreError naming what is missing in the environment.

    An instance's role is asked for only where AWS_EC2_METADATA_DISABLED is `false`: on a machine that has none it
    would take minutes to find out.
    """
    given = [name for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY") if environment.get(name)]
    role = any(environment.get(name) for name in _ROLES) or environment.get("AWS_EC2_METADATA_DISABLED") == "false"
    if len(given) < 2 and not role:
        missing = {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"} - set(given)
        raise StoreError(
            f"an object store is configured, and the environment lacks {' and '.join(sorted(missing))}: set them "
            "(they are read from nowhere else), or run where a role gives them (docs/storage.md)"
        )
    endpoint = environment.get("AWS_ENDPOINT_URL_S3") or environment.get("AWS_ENDPOINT_URL") or None
    if endpoint:
        refuse_secrets(endpoint)
    region = environment.get("AWS_REGION") or environment.get("AWS_DEFAULT_REGION") or "us-east-1"
    return Access(endpoint, region, len(given) == 2)
