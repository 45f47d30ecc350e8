"""One receipt a request, whatever is killed; and whatever is done to the files afterwards is noticed and named."""

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from amnesiac.durable import write_bytes
from amnesiac.errors import DamagedReceipt, ReceiptError
from amnesiac.receipts import Chain, ensure_signing_key, verify_chain
from amnesiac.receipts.statement import Head, head_payload, receipt_payload, sha256


def problems(chain, keys=None, witnesses=()):
    return list(verify_chain(chain.folder, keys, witnesses).problems)


def names(chain):
    return sorted(path.name for path in chain.folder.iterdir())


def test_receipts_hang_together(three, make):
    stored = three.receipts()
    assert [one.path.name for one in stored] == ["00000001.json", "00000002.json", "00000003.json"]
    assert [one.signed.receipt for one in stored] == [make("r-1"), make("r-2"), make("r-3")]
    assert [one.signed.previous for one in stored] == [None, *(sha256(one.path.read_bytes()) for one in stored[:2])]
    assert three.head() == Head(3, sha256(stored[2].path.read_bytes()))
    assert verify_chain(three.folder).receipts == 3
    assert problems(three) == []


def test_the_second_receipt_of_a_request_is_the_first(three, key, make):
    before = {path: path.read_bytes() for path in three.folder.glob("*.json")}
    again = Chain(three.folder).append(make("r-2", rows_left=7), key)
    assert again.signed.sequence == 2
    assert again.signed.receipt == make("r-2")
    assert {path: path.read_bytes() for path in three.folder.glob("*.json")} == before


def test_a_receipt_is_found_by_its_request(three, key, make):
    other = Chain(three.folder)
    assert other.find("r-3").path.name == "00000003.json"
    assert other.find("r-4") is None
    three.append(make("r-4"), key)
    assert other.find("r-4").signed.sequence == 4


def test_malformed_facts_leave_the_chain_as_it_was(three, key, make):
    with pytest.raises(ReceiptError, match="rowsLeft"):
        three.append(make("r-4", rows_left=-1), key)
    assert len(three.receipts()) == 3
    assert problems(three) == []


def test_an_empty_chain_is_whole(chain):
    assert problems(chain) == []
    assert chain.receipts() == ()
    assert chain.find("r-1") is None
    assert not chain.folder.exists()


KILLED = """
import os, signal, sys
from pathlib import Path
from amnesiac.receipts import Chain, ensure_signing_key
sys.path.insert(0, sys.argv[3])
from conftest import facts

folder, left = Path(sys.argv[1]), int(sys.argv[2])
chain = Chain(folder / "receipts")
key = ensure_signing_key(folder / "signing", chain.public)
def hook(event, arguments):
    global left
    writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
    if event in {"os.rename", "os.remove", "os.mkdir"} or writes:
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(hook)
for name in sys.argv[4:]:
    print(chain.append(facts(name), key).signed.sha256)
"""


def killed_append(folder, after, *requests):
    command = [sys.executable, "-c", KILLED, str(folder), str(after), str(Path(__file__).parent), *requests]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_an_append_killed_at_every_change_and_repeated_ends_with_one_receipt(tmp_path, make):
    begun = tmp_path / "begun"
    chain = Chain(begun / "receipts")
    chain.append(make("r-0"), ensure_signing_key(begun / "signing", chain.public))
    whole = None
    for k in range(40):
        folder = shutil.copytree(begun, tmp_path / str(k))
        chain = Chain(folder / "receipts")
        done = killed_append(folder, k, "r-1", "r-2")
        assert problems(chain) == [], "an interrupted chain is no altered one"
        key = ensure_signing_key(folder / "signing", chain.public)
        for name in ("r-1", "r-2"):
            chain.append(make(name), key)
        assert [one.signed.receipt.request.id for one in chain.receipts()] == ["r-0", "r-1", "r-2"]
        assert names(chain) == [".lock", "00000001.json", "00000002.json", "00000003.json", "head.json", "public"]
        assert problems(chain) == []
        contents = [one.signed.sha256 for one in chain.receipts()]
        assert whole in (None, contents), "the same bytes, however it came about"
        whole = contents
        if done.returncode == 0:
            break
        assert done.returncode == -signal.SIGKILL, done.stderr
    assert done.returncode == 0
    assert k >= 8


def test_a_kill_between_receipt_and_head_of_the_very_first(chain, key, make):
    chain.append(make("r-1"), key)
    (chain.folder / "head.json").unlink()
    assert problems(chain) == []
    assert chain.append(make("r-1"), key).signed.sequence == 1
    assert chain.head().count == 1


def test_several_processes_append_at_once(tmp_path, make):
    folder = tmp_path
    chain = Chain(folder / "receipts")
    ensure_signing_key(folder / "signing", chain.public)
    command = [sys.executable, "-c", KILLED, str(folder), "9999", str(Path(__file__).parent)]
    running = [subprocess.Popen([*command, *(f"r-{k}" for k in some)]) for some in ((1, 2, 3, 4), (3, 4, 5, 1))]
    assert [process.wait() for process in running] == [0, 0]
    assert sorted(one.signed.receipt.request.id for one in chain.receipts()) == [f"r-{k}" for k in (1, 2, 3, 4, 5)]
    assert problems(chain) == []


def test_a_full_disk_adds_nothing(three, key, make, monkeypatch):
    import os

    def fail(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space"):
        three.append(make("r-4"), key)
    monkeypatch.undo()
    assert problems(three) == []
    assert three.append(make("r-4"), key).signed.sequence == 4


# Tampering


def test_an_altered_payload_is_named_and_so_is_its_place_in_the_chain(three):
    path = three.path(2)
    raw = json.loads(path.read_bytes())
    at = 200
    raw["payload"] = raw["payload"][:at] + ("A" if raw["payload"][at] != "A" else "B") + raw["payload"][at + 1 :]
    path.write_bytes((json.dumps(raw, indent=1, sort_keys=True) + "\n").encode())
    first, second = problems(three)
    assert "00000002.json was altered: the signature isn't that of this payload" in first
    assert second.startswith("00000003.json doesn't follow 00000002.json")


def test_a_signature_by_another_key_is_named(three, make, tmp_path):
    stranger = ensure_signing_key(tmp_path / "stranger", tmp_path / "strange")
    payload = receipt_payload(make("r-3", rows_removed=0), 3, three.read(2).signed.sha256)
    three.path(3).write_bytes(stranger.sign(payload).to_bytes())
    first, second = problems(three)
    assert f"00000003.json is signed by another key ({stranger.public.keyid[:16]}" in first
    assert second == "00000003.json isn't the receipt that head.json names: one of them was replaced"
    shutil.copy(tmp_path / "strange" / f"{stranger.public.keyid}.pem", three.public)
    assert problems(three) == [second], "a key slipped into the folder would be believed"
    trusted = [key for key in three.public_keys() if key != stranger.public]
    assert problems(three, trusted) == [first, second], "a key that was given isn't replaced"


def test_a_missing_number_is_named(three):
    three.path(2).unlink()
    assert problems(three) == ["00000002.json is missing: receipt 2 was removed"]


def test_reordered_files_are_named(three):
    one, two = three.path(1).read_bytes(), three.path(2).read_bytes()
    three.path(1).write_bytes(two)
    three.path(2).write_bytes(one)
    found = problems(three)
    assert found[0] == "00000001.json holds receipt 2: files were renamed, reordered or copied"
    assert found[1] == "00000002.json holds receipt 1: files were renamed, reordered or copied"
    assert found[2].startswith("00000003.json doesn't follow")


def test_a_copied_file_is_named(three):
    shutil.copy(three.path(2), three.path(4))
    found = problems(three)
    assert found == [
        "00000004.json holds receipt 2: files were renamed, reordered or copied",
        "00000002.json and 00000004.json are both of request r-2: a request has one receipt",
    ]


def test_a_second_receipt_of_a_request_is_named_even_if_it_is_signed(three, key, make):
    data = key.sign(receipt_payload(make("r-1", rows_left=1), 4, three.head().last)).to_bytes()
    three.path(4).write_bytes(data)
    write_bytes(three.folder / "head.json", key.sign(head_payload(Head(4, sha256(data)))).to_bytes())
    assert problems(three) == ["00000001.json and 00000004.json are both of request r-1: a request has one receipt"]


@pytest.mark.parametrize("cut", [1, 2, 3])
def test_a_tail_that_was_cut_off_is_named(cut, three):
    for number in range(4 - cut, 4):
        three.path(number).unlink()
    assert problems(three) == [f"receipts {4 - cut} to 3 are missing: head.json counts 3, the tail was cut off"]


def test_a_head_that_is_gone_altered_or_old_is_named(three, key, make):
    head = three.folder / "head.json"
    old = head.read_bytes()
    head.unlink()
    [problem] = problems(three)
    assert "head.json is missing" in problem
    assert "whether the last receipts were removed can't be told" in problem
    head.write_bytes(old.replace(b'"sig": "', b'"sig": "A'))
    assert "head.json isn't a DSSE envelope" in problems(three)[0]
    for name in ("r-4", "r-5"):
        head.write_bytes(old) if not three.path(4).exists() else None
        three.append(make(name), key)
    head.write_bytes(old)
    assert problems(three) == ["head.json counts 3 of 5 receipts: an older head was put in its place"]
    head.write_bytes(three.path(1).read_bytes())
    assert "head.json is signed, but is 'urn:amnesiac:deletion-receipt:v1'" in problems(three)[0]


def test_a_folder_put_back_as_a_whole_is_seen_by_a_witness_only(three, key, make, tmp_path):
    backup = shutil.copytree(three.folder, tmp_path / "backup")
    kept = shutil.copy(three.append(make("r-4"), key).path, tmp_path / "kept.json")
    head = shutil.copy(three.folder / "head.json", tmp_path / "kept-head.json")
    assert problems(three, witnesses=[kept, head]) == []
    older = Chain(backup)
    assert problems(older) == []
    for witness in (kept, head):
        [problem] = problems(older, witnesses=[witness])
        assert (
            problem
            == f"receipt 4, which {witness} proves to have existed, is missing: the chain was put back or cut off"
        )
    older.append(make("r-9"), key)
    [problem] = problems(older, witnesses=[kept])
    assert problem.startswith("00000004.json isn't receipt 4, which")


def test_a_witness_must_be_signed_too(three, tmp_path):
    (tmp_path / "kept.json").write_text("{}")
    with pytest.raises(DamagedReceipt, match=r"kept\.json isn't a DSSE envelope"):
        problems(three, witnesses=[tmp_path / "kept.json"])
    with pytest.raises(ReceiptError, match=r"none\.json can't be read"):
        problems(three, witnesses=[tmp_path / "none.json"])


@pytest.mark.parametrize("spoil", ["tail", "last", "head", "old head"])
def test_a_chain_that_was_altered_is_not_gone_on_with(spoil, three, key, make):
    """A new head would make the loss look right."""
    old = (three.folder / "head.json").read_bytes()
    if spoil == "tail":
        three.path(3).unlink()
    elif spoil == "last":
        shutil.copy(three.path(2), three.path(3))
    elif spoil == "head":
        (three.folder / "head.json").unlink()
    else:
        for name in ("r-4", "r-5"):
            three.append(make(name), key)
        (three.folder / "head.json").write_bytes(old)
    before = names(three)
    with pytest.raises(DamagedReceipt, match="restore the folder from a backup"):
        Chain(three.folder).append(make("r-6"), key)
    assert names(three) == before


def test_a_receipt_without_the_head_it_should_follow_is_not_mended_into_the_chain(three, key, make):
    """What a killed append leaves follows the head; another one doesn't."""
    three.path(4).write_bytes(key.sign(receipt_payload(make("r-4"), 4, "0" * 64)).to_bytes())
    assert "00000004.json doesn't follow 00000003.json" in problems(three)[0]
    with pytest.raises(DamagedReceipt, match="doesn't follow the head of the chain"):
        Chain(three.folder).append(make("r-5"), key)
