"""URLs without secrets, credentials from the environment, conditional puts, what a versioned bucket keeps, copies."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from amnesiac.errors import DamagedStore, SettingsError, StaleWriter, StoreError
from amnesiac.settings import Params, load_params
from amnesiac.storage import (
    Address,
    ObjectPurge,
    Storage,
    access,
    claim,
    copy_folder,
    object_versions,
    open_storage,
    parse_address,
    version_content,
)
from tests.storage.faults import FaultyServer, every

SECRET = "wJalrXUtnFEMI"


@pytest.mark.parametrize(
    ("url", "holds"),
    [
        (f"s3://AKIAIOSFODNN7EXAMPLE:{SECRET}@bucket/a", "a user name or password"),
        (f"s3://bucket/a?aws_secret_access_key={SECRET}", "a query"),
        (f"s3://bucket/AKIAIOSFODNN7EXAMPLE/{SECRET}", "an access key"),
    ],
)
def test_a_url_with_a_secret_is_refused_and_not_repeated(url: str, holds: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=f"{holds}.*AWS_ACCESS_KEY_ID.*withdraw it") as caught:
        parse_address(url)
    (tmp_path / "params.yaml").write_text(f"storage: {{url: '{url}'}}\n")
    with pytest.raises(SettingsError, match=f"storage.url: .*{holds}") as in_file:
        load_params(tmp_path / "params.yaml")
    for error in (caught.value, in_file.value, in_file.value.__cause__):
        assert SECRET not in str(error) and "AKIA" not in str(error)


@pytest.mark.parametrize("name", ["access_key_id", "aws_secret_access_key", "token", "password"])
def test_credentials_in_params_yaml_are_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text(f"storage: {{url: s3://bucket/a, {name}: {SECRET}}}\n")
    with pytest.raises(SettingsError, match="credentials don't belong into params.yaml.*environment") as caught:
        load_params(tmp_path / "params.yaml")
    assert SECRET not in str(caught.value) + str(caught.value.__cause__)


@pytest.mark.parametrize("url", ["/data/store", "gs://bucket/a", "s3://B/a", "s3://bucket/a b", "s3://bucket/../a"])
def test_other_urls_are_refused(url: str) -> None:
    with pytest.raises(SettingsError, match="s3://BUCKET/PREFIX|use letters"):
        parse_address(url)


def test_a_url_is_kept_in_its_shortest_form() -> None:
    assert Params.model_validate({"storage": {"url": "s3://bucket//a/b/"}}).storage.url == "s3://bucket/a/b"
    assert parse_address("s3://bucket").below("a", "b") == Address("bucket", "a/b")


def test_a_data_url_stands_for_a_path(tmp_path: Path) -> None:
    for text in ("{source: npz, url: s3://bucket/a.npz, path: a.npz}", "{source: mnist, url: s3://bucket/a}"):
        (tmp_path / "params.yaml").write_text(f"data: {text}\n")
        with pytest.raises(SettingsError, match="data.url stands for data.path, in an object store"):
            load_params(tmp_path / "params.yaml")


def test_credentials_come_from_the_environment_alone() -> None:
    with pytest.raises(StoreError, match="lacks AWS_SECRET_ACCESS_KEY"):
        access({"AWS_ACCESS_KEY_ID": "a"})
    assert access({"AWS_WEB_IDENTITY_TOKEN_FILE": "/var/token"}).fixed is False
    found = access({"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_ENDPOINT_URL": "http://h:1"})
    assert (found.endpoint, found.region, found.fixed) == ("http://h:1", "us-east-1", True)


@pytest.mark.parametrize("call", ["open_storage(url).read('a')", "object_versions(parse_address(url))"])
def test_a_missing_package_is_named(call: str) -> None:
    code = f"""
import sys
sys.modules.update(dict.fromkeys(("obstore", "obstore.exceptions", "botocore.config", "botocore.session")))
from amnesiac.storage import *
from amnesiac.errors import SettingsError
url = "s3://bucket/a"
try:
    {call}
except SettingsError as error:
    print(error)
"""
    environment = os.environ | {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert "isn't installed: `pip install 'amnesiac[s3]'`" in found.stdout, found.stderr


@pytest.mark.parametrize("fault", ["kill", "lose the answer", "cut", "slow down"])
def test_objects_survive_broken_requests(server: FaultyServer, storage: Storage, fault: str, tmp_path: Path) -> None:
    server.begin(every(2, fault))
    for k in range(3):
        storage.write(f"a/{k}", os.urandom(1000))
    storage.fetch("a/1", tmp_path / "one")
    assert (tmp_path / "one").read_bytes() == storage.read("a/1")
    assert [(one.name, one.bytes) for one in storage.listed()] == [(f"a/{k}", 1000) for k in range(3)]
    content, tag = storage.tagged("a/0")
    storage.swap("a/0", b"new", tag)
    storage.swap("b", b"first", None)
    assert (storage.read("a/0"), storage.read("b")) == (b"new", b"first")
    assert server.faults().count(fault) >= 5


def test_answers_that_say_no_may_break_off_as_well(server: FaultyServer, storage: Storage) -> None:
    """The text of a 404 or 412 that is cut is no reason to give up: what it says counts."""
    server.begin(every(2, "cut"))
    for _ in range(2):
        with pytest.raises(FileNotFoundError):
            storage.read("nothing")
    storage.swap("HEAD", b"1", None)
    for _ in range(2):
        with pytest.raises(StaleWriter):
            storage.swap("HEAD", b"2", None)
    assert server.faults().count("cut") >= 3 and storage.read("HEAD") == b"1"


def test_a_swap_whose_condition_fails_changes_nothing(storage: Storage) -> None:
    storage.swap("HEAD", b"1", None)
    _, tag = storage.tagged("HEAD")
    storage.swap("HEAD", b"2", tag)
    for expected in (None, tag):
        with pytest.raises(StaleWriter, match="HEAD was replaced by another writer"):
            storage.swap("HEAD", b"3", expected)
    assert storage.read("HEAD") == b"2"
    with pytest.raises(FileNotFoundError):
        storage.read("nothing")


def test_a_purge_reaches_older_versions_and_only_below_its_url(versioned: Storage, tmp_path: Path) -> None:
    beside = Storage(Address(versioned.address.bucket, versioned.address.prefix + "-other"))
    for content in (b"one", b"two"):
        beside.write("x", content)
        versioned.write("HEAD", content)
        versioned.write("old/model", content * 10)
    versioned.delete("old/model")
    versioned.write("gone", b"x")
    versioned.delete("gone")
    kept = len(object_versions(beside.address))
    older = next(one for one in object_versions(versioned.address) if one.name == "HEAD" and not one.current)
    assert version_content(versioned.address, older) == b"one", "a delete hides it, and no more"

    plan = ObjectPurge(tmp_path / "plan.json")
    plan.add(versioned.address, lambda name: "models" if name.startswith("old/") else None)
    first = plan.run()
    plan.add(versioned.address, lambda name: None)  # killed, and called again: the counts stay
    assert plan.run() == first
    assert {(one.what, one.objects, one.bytes) for one in first} == {
        ("models", 3, 60),
        ("older versions of objects", 3, 4),
    }
    plan.close()
    assert not plan.plan.exists()
    assert [(one.name, one.current) for one in object_versions(versioned.address)] == [("HEAD", True)]
    assert versioned.read("HEAD") == b"two" and len(object_versions(beside.address)) == kept == 2


def test_a_purge_of_a_bucket_without_versions(storage: Storage, tmp_path: Path) -> None:
    storage.write("old/model", b"x" * 7)
    storage.write("HEAD", b"1")
    plan = ObjectPurge(tmp_path / "plan.json")
    plan.add(storage.address, lambda name: "models" if name.startswith("old/") else None)
    [gone] = plan.run()
    assert (gone.objects, gone.bytes) == (1, 7)
    assert [one.name for one in storage.listed()] == ["HEAD"]
    plan.plan.write_text("[{}]")
    with pytest.raises(DamagedStore, match="remove the file and purge again"):
        plan.run()


def test_uploads_that_nobody_finished_end_even_where_nothing_else_goes(storage: Storage, tmp_path: Path) -> None:
    store, bucket = boto_client(), storage.address.bucket
    for name in (f"{storage.address.prefix}/rows", "elsewhere/rows"):
        started = store.create_multipart_upload(Bucket=bucket, Key=name)
        part = {"Bucket": bucket, "Key": name, "UploadId": started["UploadId"], "PartNumber": 1}
        store.upload_part(**part, Body=b"somebody's")
    plan = ObjectPurge(tmp_path / "plan.json")
    plan.add(storage.address, lambda name: None)
    assert plan.run() == ()
    left = store.list_multipart_uploads(Bucket=bucket)["Uploads"]
    assert [one["Key"] for one in left] == ["elsewhere/rows"], "what isn't below the project's URL stays"
    store.abort_multipart_upload(Bucket=bucket, Key="elsewhere/rows", UploadId=left[0]["UploadId"])


def boto_client() -> Any:
    """A client of its own for the server that the environment names."""
    import botocore.session

    return botocore.session.Session().create_client("s3", endpoint_url=os.environ["AWS_ENDPOINT_URL"])


def test_a_refused_purge_is_told_of(server: FaultyServer, versioned: Storage, tmp_path: Path) -> None:
    versioned.write("old", b"1")
    plan = ObjectPurge(tmp_path / "plan.json")
    plan.add(versioned.address, lambda name: "models")
    server.begin(lambda n, method, path: "refuse" if method == "POST" else "none")
    with pytest.raises(StoreError, match="s3:DeleteObjectVersion"):
        plan.run()
    server.begin()
    assert [one.objects for one in plan.run()] == [1], "the list is still there"
    assert not object_versions(versioned.address)


def test_of_a_copied_folder_only_changes_are_sent(server: FaultyServer, storage: Storage, tmp_path: Path) -> None:
    (tmp_path / "batch").mkdir()
    (tmp_path / "batch/report.json").write_text("1")
    (tmp_path / "key.pub").write_text("k")
    assert copy_folder(tmp_path, storage) == 2
    server.begin()
    assert copy_folder(tmp_path, storage) == 0
    assert {method for method, *_ in server.seen} == {"GET"}
    (tmp_path / "batch/report.json").write_text("2")
    (tmp_path / "key.pub").unlink()
    assert copy_folder(tmp_path, storage) == 1
    assert [one.name for one in storage.listed()] == ["batch/report.json", "index.json"]
    assert storage.read("batch/report.json") == b"2"


def test_a_url_belongs_to_one_project(storage: Storage) -> None:
    claim(storage, "ours")
    claim(storage, "ours")
    with pytest.raises(SettingsError, match="belongs to another project.*its own prefix"):
        claim(open_storage(storage.url), "theirs")
