"""`amnesiac receipt` and `amnesiac recipient`, as they are run: with a file and a key alone, and in a project."""

import json
import shutil

import pytest
from typer.testing import CliRunner

from amnesiac.receipts import Chain, ensure_signing_key
from flows.cli import app


@pytest.fixture
def project(tmp_path, monkeypatch, make):
    """A project's folder with a chain of three."""
    root = tmp_path / "project"
    root.mkdir()
    (root / "params.yaml").write_text("seed: 0\n")
    monkeypatch.setenv("AMNESIAC_PROJECT", str(root))
    chain = Chain(root / "pipeline_data" / "receipts")
    key = ensure_signing_key(root / "pipeline_data" / "signing", chain.public)
    for k in (1, 2, 3):
        chain.append(make(f"r-{k}"), key)
    return chain


@pytest.fixture
def alone(project, tmp_path, monkeypatch):
    """A receipt and a public key, with no project anywhere near: all that a person who was deleted has."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    shutil.copy(project.path(2), folder / "receipt.json")
    [pem] = project.public.iterdir()
    shutil.copy(pem, folder / "key.pem")
    monkeypatch.delenv("AMNESIAC_PROJECT")
    monkeypatch.chdir(folder)
    return folder


def run(*arguments, code=0):
    done = CliRunner().invoke(app, [str(word) for word in arguments])
    assert done.exit_code == code, done.output
    return done


def test_a_file_and_a_key_are_enough(alone):
    done = run("receipt", "verify", "receipt.json", "--public-key", "key.pem")
    assert "receipt 2 of request r-2 is signed by key" in done.stdout
    assert done.stderr == ""
    found = json.loads(run("receipt", "verify", "receipt.json", "--public-key", "key.pem", "--json").stdout)
    assert (found["verified"], found["key_given"], found["sequence"], found["request"]) == (True, True, 2, "r-2")


def test_an_altered_receipt_is_refused_with_code_1(alone):
    data = (alone / "receipt.json").read_bytes()
    (alone / "receipt.json").write_bytes(data.replace(b'"sig": "', b'"sig": "A', 1)[:-1])
    for words in (("verify",), ("show",), ("page", "--out", "x.html")):
        done = run("receipt", words[0], "receipt.json", "--public-key", "key.pem", *words[1:], code=1)
        assert "error: receipt.json isn't a DSSE envelope" in done.stderr
        assert done.stdout == ""
    assert not (alone / "x.html").exists()


def test_what_the_caller_got_wrong_is_code_2(alone):
    assert "none.json can't be read" in run("receipt", "verify", "none.json", "--public-key", "key.pem", code=2).stderr
    assert "holds no public key: name one" in run("receipt", "verify", "receipt.json", code=2).stderr
    assert (
        "holds no public key in PEM"
        in run("receipt", "show", "receipt.json", "--public-key", "receipt.json", code=2).stderr
    )
    assert "holds no params.yaml" in run("receipt", "list", code=2).stderr
    assert "holds no params.yaml" in run("receipt", "verify", code=2).stderr
    given = ("receipt", "verify", "receipt.json", "--public-key", "key.pem", "--witness", "receipt.json")
    assert "--witness is for a chain" in run(*given, code=2).stderr


def test_a_key_that_lay_beside_the_receipt_is_said_to_prove_less(project):
    done = run("receipt", "verify", project.path(1))
    assert "is signed by key" in done.stdout
    assert "lay beside the receipt" in done.stderr
    found = json.loads(run("receipt", "verify", project.path(1), "--json").stdout)
    assert not found["key_given"]


def test_list_and_show(project):
    assert "r-3" in run("receipt", "list").stdout
    listed = json.loads(run("receipt", "list", "--json").stdout)["receipts"]
    assert [one["request"] for one in listed] == ["r-1", "r-2", "r-3"]
    assert listed[1]["file"] == str(project.path(2))
    assert run("receipt", "show", project.path(2)).stdout.startswith("Deletion receipt 2, request r-2")
    shown = json.loads(run("receipt", "show", project.path(2), "--json").stdout)
    assert shown["deletion"]["rowsRemoved"] == 40
    assert shown["previous"] == listed[0]["sha256"]


def test_the_page_is_written(project, tmp_path):
    out = tmp_path / "out" / "receipt.html"
    assert f"wrote {out}" in run("receipt", "page", project.path(1), "--out", out).stdout
    assert out.read_text().startswith("<!doctype html>")
    assert json.loads(run("receipt", "page", project.path(1), "--out", out, "--json").stdout)["page"] == str(out)


def test_the_chain_is_verified_in_the_project_and_as_a_folder_elsewhere(project, tmp_path, monkeypatch):
    kept = shutil.copy(project.path(3), tmp_path / "kept.json")
    assert "3 receipts, every receipt is signed and in its place" in run("receipt", "verify", "--witness", kept).stdout
    project.path(3).unlink()
    done = run("receipt", "verify", "--witness", kept, code=1)
    assert "- receipts 3 to 3 are missing" in done.stdout
    assert f"- receipt 3, which {kept} proves" in done.stdout
    [pem] = project.public.iterdir()
    key = shutil.copy(pem, tmp_path / "key.pem")
    moved = shutil.move(project.folder, tmp_path / "moved")
    monkeypatch.delenv("AMNESIAC_PROJECT")
    monkeypatch.chdir(tmp_path)
    found = json.loads(run("receipt", "verify", moved, "--public-key", key, "--json", code=1).stdout)
    assert (found["receipts"], len(found["problems"])) == (2, 1)


def test_recipients_are_noted_and_listed(project):
    early = ("--at", "2026-11-01T00:00:00Z")
    assert "noted Clinic" in run("recipient", "add", "Clinic", "--version", "v1", *early).stdout
    assert "noted before" in run("recipient", "add", "Clinic", "--version", "v1").stdout
    late = run("recipient", "add", "Bureau [x]", "--version", "v2", "--note", "by mail", "--json")
    assert json.loads(late.stdout) == {"recipient": "Bureau [x]", "noted": True}
    assert "Bureau [x]" in run("recipient", "list").stdout
    listed = json.loads(run("recipient", "list", "--request", "r-1", "--json").stdout)["recipients"]
    assert [one["name"] for one in listed] == ["Clinic"], "the Bureau received it after r-1 was published"
    run("recipient", "notified", "Clinic", "--request", "r-1")
    assert json.loads(run("recipient", "list", "--request", "r-1", "--json").stdout)["recipients"] == []
    assert "nobody called" in run("recipient", "notified", "Stranger", "--request", "r-1", code=2).stderr
