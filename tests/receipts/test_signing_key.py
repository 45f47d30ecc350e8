"""The private key is made once, stays private, and whatever is wrong with it is named with a remedy."""

import os
import shutil
import signal
import subprocess
import sys

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from amnesiac.errors import SigningKeyError
from amnesiac.receipts import Chain, ensure_signing_key, open_signing_key, rotate_signing_key, verify_chain, verify_file


@pytest.fixture
def folders(tmp_path):
    return tmp_path / "signing", tmp_path / "receipts" / "public"


def modes(*paths):
    return [path.stat().st_mode & 0o777 for path in paths]


def test_the_key_is_made_once_and_is_private(folders):
    private, public = folders
    key = ensure_signing_key(*folders)
    assert modes(private, private / "key.pem") == [0o700, 0o600]
    assert [path.name for path in public.iterdir()] == [f"{key.public.keyid}.pem"]
    content = (private / "key.pem").read_bytes()
    assert ensure_signing_key(*folders).public == key.public == open_signing_key(*folders).public
    assert (private / "key.pem").read_bytes() == content
    assert key.public.keyid in repr(key)
    assert "private" not in repr(key)


def test_many_that_start_at_once_agree_on_one_key(folders):
    program = (
        "import sys; from pathlib import Path; from amnesiac.receipts import ensure_signing_key\n"
        "print(ensure_signing_key(*map(Path, sys.argv[1:])).public.keyid)"
    )
    command = [sys.executable, "-c", program, *map(str, folders)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    said = {process.communicate()[0].strip() for process in running}
    assert said == {path.stem for path in folders[1].iterdir()}
    assert len(said) == 1


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda private, public: (private / "key.pem").unlink(), "key that signs receipts is missing: restore it"),
        (lambda private, public: (private / "key.pem").chmod(0o640), r"mode 0640.*run `chmod 600 .*key\.pem`"),
        (lambda private, public: private.chmod(0o750), "mode 0750.*run `chmod 700 .*signing`"),
        (lambda private, public: (private / "key.pem").write_text("x"), "holds no private key in PEM, .* altered"),
        (lambda private, public: (private / "key.pem").write_bytes(EC), "another kind of key than Ed25519"),
        (lambda private, public: shutil.rmtree(public), "public half isn't in .* restore both from a backup"),
        (lambda private, public: [p.write_text("x") for p in public.iterdir()], "one of the two was replaced"),
        (lambda private, public: link(private / "key.pem"), "must be a plain file, no link"),
    ],
)
def test_what_is_wrong_with_a_key_is_named_and_never_papered_over(spoil, message, folders):
    ensure_signing_key(*folders)
    spoil(*folders)
    before = sorted(path.name for path in folders[1].glob("*"))
    for act in (open_signing_key, ensure_signing_key):
        with pytest.raises(SigningKeyError, match=message):
            act(*folders)
    assert sorted(path.name for path in folders[1].glob("*")) == before, "no second key was made"


EC = ec.generate_private_key(ec.SECP256R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def link(path):
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


def test_a_key_of_another_user_is_refused(folders, monkeypatch):
    ensure_signing_key(*folders)
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    with pytest.raises(SigningKeyError, match="belongs to user"):
        open_signing_key(*folders)


def test_after_rotation_older_receipts_are_still_verified_by_their_own_key(tmp_path, make):
    chain = Chain(tmp_path / "receipts")
    folders = tmp_path / "signing", chain.public
    old = ensure_signing_key(*folders)
    first = chain.append(make("r-1"), old)
    new = rotate_signing_key(*folders)
    assert new.public != old.public
    second = chain.append(make("r-2"), new)
    assert modes(tmp_path / "signing" / "key.pem") == [0o600]
    assert verify_file(first.path, chain.public / f"{old.public.keyid}.pem").keyid == old.public.keyid
    assert verify_file(second.path, chain.public / f"{new.public.keyid}.pem").sequence == 2
    assert {key.keyid for key in chain.public_keys()} == {old.public.keyid, new.public.keyid}
    assert verify_chain(chain.folder).problems == ()
    assert len(verify_chain(chain.folder, [new.public]).problems) == 1, "who doesn't trust the old key is told"


def test_a_lost_key_is_replaced_by_rotation_only(folders):
    old = ensure_signing_key(*folders)
    (folders[0] / "key.pem").unlink()
    new = rotate_signing_key(*folders)
    assert sorted(path.stem for path in folders[1].iterdir()) == sorted([old.public.keyid, new.public.keyid])


KILLED = """
import os, signal, sys
from pathlib import Path
import amnesiac.receipts as receipts

left = int(sys.argv[4])
def hook(event, arguments):
    global left
    writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
    if event in {"os.rename", "os.remove", "os.mkdir"} or writes:
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(hook)
getattr(receipts, sys.argv[1])(Path(sys.argv[2]), Path(sys.argv[3]))
"""


@pytest.mark.parametrize("act", ["ensure_signing_key", "rotate_signing_key"])
def test_killed_anywhere_there_is_one_key_in_use_afterwards(act, tmp_path):
    for k in range(20):
        folders = tmp_path / str(k) / "signing", tmp_path / str(k) / "public"
        if act == "rotate_signing_key":
            ensure_signing_key(*folders)
        done = subprocess.run([sys.executable, "-c", KILLED, act, *map(str, folders), str(k)], check=False)
        key = ensure_signing_key(*folders)
        assert (folders[1] / f"{key.public.keyid}.pem").is_file()
        if act == "ensure_signing_key":
            assert len(list(folders[1].glob("*.pem"))) == 1
        else:
            assert rotate_signing_key(*folders).public != key.public
        assert not list(folders[0].glob("*.partial")) or done.returncode != 0
        if done.returncode == 0:
            break
        assert done.returncode == -signal.SIGKILL
    assert k >= 4
