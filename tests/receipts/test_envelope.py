"""Envelopes are DSSE as published, statements are in-toto v1, and no bit of one can be changed."""

import base64
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from amnesiac.errors import DamagedReceipt, ReceiptError
from amnesiac.receipts import Envelope, Signature, pae, read_envelope, read_public_key, verify_file
from amnesiac.receipts.public_keys import public_key
from amnesiac.receipts.statement import read_receipt

# From secure-systems-lab/dsse: protocol.md ("Test Vectors"), and testvectors/vectors.json, whose keys are those of
# RFC 8032, 7.1
HELLO = {
    "payload": "aGVsbG8gd29ybGQ=",
    "payloadType": "http://example.com/HelloWorld",
    "signatures": [{"sig": "A3JqsQGtVsJ2O2xqrI5IcnXip5GToJ3F+FnZ+O88SjtR6rDAajabZKciJTfUiHqJPcIAriEGAHTVeCUjW2JIZA=="}],
}
P256 = (
    46950820868899156662930047687818585632848591499744589407958293238635476079160,
    5640078356564379163099075877009565129882514886557779369047442380624545832820,
)
RFC_8032 = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
SEED = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60"
STATEMENT = "eyJfdHlwZSI6Imh0dHBzOi8vaW4tdG90by5pby9TdGF0ZW1lbnQvdjEifQ=="
IN_TOTO = "application/vnd.in-toto+json"
VECTORS = {
    "single": (
        *(STATEMENT, IN_TOTO),
        "2WAfaHm5jluo0w+0rk8uVkluELJYWjSmU9x7EUzx+AyteDGJ4/nqyJXfmAUVFIAoQafWm7AxBZNw5M9ixNHiCA==",
    ),
    "url-safe": (
        *("-_-_Pj8=", IN_TOTO),
        "P-_KHICeR7tI6S_YyejJTRtrXhcQyQ2LYPaL8h90KjC9qN8HU_svOQ6TuDOT1HIrsGW886DbWNWcCmX5twLrAw==",
    ),
    "empty": (
        *("", IN_TOTO),
        "gSggCAaTLTYyRH6FIDBem6meyIynsYy8RTHVzwx9tnTb7Bg/1jMWnuVgI/gffqmbsC2VX5/jHfkkDqsj7CDbDg==",
    ),
    "not ascii": (
        *(STATEMENT, "application/vnd.exämple+json"),
        "xmSk/ug66ysT7ayhkCIjhAq42zgZXSsEWuzUaNL7w2eGAdF/NU6/fRXPtmfN+5DNSAs5/i2lUnHjbbjPsu0tAw==",
    ),
}


def dumped(payload, kind, sig):
    return json.dumps({"payload": payload, "payloadType": kind, "signatures": [{"sig": sig, "keyid": "A"}]}).encode()


def rfc_key():
    return public_key(Ed25519PublicKey.from_public_bytes(bytes.fromhex(RFC_8032)))


def test_the_encoding_is_that_of_the_specification():
    envelope = read_envelope(json.dumps(HELLO).encode())
    assert (envelope.payload, envelope.payload_type) == (b"hello world", HELLO["payloadType"])
    signed = pae(envelope.payload_type, envelope.payload)
    assert signed == b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    sig = envelope.signatures[0].sig
    r, s = int.from_bytes(sig[:32]), int.from_bytes(sig[32:])
    key = ec.EllipticCurvePublicNumbers(*P256, ec.SECP256R1()).public_key()
    key.verify(encode_dss_signature(r, s), signed, ec.ECDSA(hashes.SHA256()))
    assert pae("é", b"") == b"DSSEv1 2 \xc3\xa9 0 "


@pytest.mark.parametrize("name", VECTORS)
def test_published_ed25519_vectors_are_accepted_and_made_again(name):
    payload, kind, sig = VECTORS[name]
    envelope = read_envelope(dumped(payload, kind, sig))
    assert envelope.signer((rfc_key(),)) == rfc_key()
    private = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(SEED))
    assert private.sign(pae(envelope.payload_type, envelope.payload)) == envelope.signatures[0].sig


def test_a_signature_holds_for_its_payload_type_only():
    payload, _, sig = VECTORS["single"]
    assert read_envelope(dumped(payload, "application/vnd.example.other+json", sig)).signer((rfc_key(),)) is None


def test_any_of_several_signatures_will_do_whatever_the_key_ids_say(key):
    good = key.sign(b"{}")
    both = Envelope(good.payload, good.payload_type, (Signature(bytes(64), key.public.keyid), *good.signatures))
    assert both.signer((rfc_key(), key.public)) == key.public
    assert both.signer((rfc_key(),)) is None


def test_a_receipt_is_an_in_toto_statement_that_others_can_verify(make, chain, key):
    """Checked from the raw file with `cryptography` alone."""
    path = chain.append(make(), key).path
    raw = json.loads(path.read_bytes())
    payload = base64.b64decode(raw["payload"], validate=True)
    [signature] = raw["signatures"]
    pem = (chain.public / f"{signature['keyid']}.pem").read_bytes()
    signed = f"DSSEv1 {len(raw['payloadType'])} {raw['payloadType']} {len(payload)} ".encode() + payload
    load_pem_public_key(pem).verify(base64.b64decode(signature["sig"], validate=True), signed)
    statement = json.loads(payload)
    assert raw["payloadType"] == "application/vnd.in-toto+json"
    assert statement["_type"] == "https://in-toto.io/Statement/v1"
    assert statement["predicateType"] == "urn:amnesiac:deletion-receipt:v1"
    assert statement["subject"] == [{"name": "model", "digest": {"sha256": make().model.after}}]
    predicate = statement["predicate"]
    assert (predicate["sequence"], predicate["previous"]) == (1, None)
    assert predicate["deletion"]["rowsRemoved"] == 40
    assert predicate["deletion"]["purged"][1] == {
        "place": "dvc remote s3", "what": "objects", "count": 14, "bytes": None
    }  # fmt: skip
    assert "indirect influence" in predicate["deletion"]["algorithm"]["notClaimed"].lower()
    assert predicate["deletion"]["algorithm"]["claimed"].startswith("The direct contribution")


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl isn't installed")
def test_openssl_verifies_a_receipt_as_the_docs_say(make, chain, key, tmp_path):
    """The commands of docs/receipts.md, as they stand there."""
    docs = (Path(__file__).parents[2] / "docs" / "receipts.md").read_text()
    [unpack] = re.findall(r"```python\n(import base64.*?)```", docs, re.DOTALL)
    [commands] = re.findall(r"```sh\n(openssl .*?)```", docs, re.DOTALL)
    shutil.copy(chain.append(make(), key).path, tmp_path / "receipt.json")
    (tmp_path / "key.pem").write_bytes(key.public.to_pem())
    subprocess.run([sys.executable, "-W", "ignore", "-c", unpack], cwd=tmp_path, check=True)
    good = subprocess.run(["sh", "-e", "-c", commands], cwd=tmp_path, check=True, capture_output=True, text=True)
    assert "Signature Verified Successfully" in good.stdout
    assert key.public.keyid in good.stdout
    (tmp_path / "signed").write_bytes((tmp_path / "signed").read_bytes() + b" ")
    assert subprocess.run(["sh", "-e", "-c", commands], cwd=tmp_path, check=False, capture_output=True).returncode != 0


def test_every_single_bit_of_a_receipt_counts(make, chain, key):
    data = chain.append(make(purged=(), states={}, metrics={}), key).path.read_bytes()
    assert read_receipt(data, [key.public]).receipt.request.id == "r-1"
    reasons = "isn't a DSSE envelope|altered|another key|isn't byte for byte|no in-toto"
    for bit in range(8 * len(data)):
        altered = bytearray(data)
        altered[bit // 8] ^= 1 << bit % 8
        with pytest.raises(DamagedReceipt, match=reasons):
            read_receipt(bytes(altered), [key.public])


def test_a_receipt_written_down_differently_is_told_from_an_altered_one(make, chain, key):
    path = chain.append(make(), key).path
    path.write_bytes(json.dumps(json.loads(path.read_bytes())).encode())
    with pytest.raises(DamagedReceipt, match=r"good signature, but isn't byte for byte .*get the original file"):
        verify_file(path, key.public)


def test_a_receipt_of_another_key_says_which(make, chain, key, tmp_path):
    path = chain.append(make(), key).path
    ids = rf"{key.public.keyid[:16]}; given: {rfc_key().keyid[:16]}"
    with pytest.raises(DamagedReceipt, match=rf"signed by another key \({ids}\)"):
        verify_file(path, rfc_key())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "isn't a DSSE envelope"),
        (b"[]", "isn't a DSSE envelope"),
        (b"{}", "no 'signatures'"),
        (b'{"signatures": [], "payload": "aaaa"}', "no 'payloadType'"),
        (b'{"signatures": [], "payload": "a=b", "payloadType": "x"}', "bad base64"),
        (b'{"signatures": [], "payload": 7, "payloadType": "x"}', "int instead of a text"),
        (b'{"signatures": [], "payload": "", "payloadType": "x"}', "no signature"),
        (b"[" * 100_000, "isn't a DSSE envelope"),
        (b"\xff\xfe", "isn't a DSSE envelope"),
        (bytes((16 << 20) + 1), "at most 16777216 bytes"),
    ],
)
def test_other_files_are_refused_with_a_reason(content, message, tmp_path):
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(DamagedReceipt, match=rf"x\.json .*{message}"):
        verify_file(tmp_path / "x.json", rfc_key())


def test_something_else_that_is_signed_is_no_receipt(key, chain, make, tmp_path):
    chain.append(make(), key)
    other = tmp_path / "other.json"
    for payload, kind, message in [
        (b"{}", IN_TOTO, "not 'urn:amnesiac:deletion-receipt:v1'"),
        (b"{}", "text/plain", "no in-toto statement"),
        (b"[]", IN_TOTO, "isn't a statement"),
        (b"nonsense", IN_TOTO, "isn't a statement"),
    ]:
        other.write_bytes(key.sign(payload, kind).to_bytes())
        with pytest.raises(DamagedReceipt, match=message):
            verify_file(other, key.public)
    with pytest.raises(DamagedReceipt, match="is 'urn:amnesiac:deletion-receipt-chain-head:v1'"):
        verify_file(chain.folder / "head.json", key.public)


def test_signed_statements_with_other_facts_are_refused(key, make, tmp_path, chain):
    path = chain.append(make(), key).path
    statement = json.loads(read_envelope(path.read_bytes()).payload)
    changes = {
        "another model than its facts": lambda s: s["subject"][0]["digest"].update(sha256="f" * 64),
        "isn't a receipt that this version reads": lambda s: s["predicate"]["deletion"].update(more=1),
        "version reads .*'sequence'": lambda s: s["predicate"].pop("sequence"),
    }
    for message, change in changes.items():
        altered = json.loads(json.dumps(statement))
        change(altered)
        path.write_bytes(key.sign(json.dumps(altered).encode()).to_bytes())
        with pytest.raises(DamagedReceipt, match=message):
            verify_file(path, key.public)


def test_a_missing_file_or_key_is_the_callers_mistake(key, tmp_path, make, chain):
    path = chain.append(make(), key).path
    with pytest.raises(ReceiptError, match=r"none\.json can't be read \(No such file"):
        verify_file(tmp_path / "none.json", key.public)
    with pytest.raises(ReceiptError, match=r"none\.pem can't be read"):
        verify_file(path, tmp_path / "none.pem")
    with pytest.raises(ReceiptError, match="holds no public key in PEM"):
        verify_file(path, tmp_path / "signing" / "key.pem")
    rsa = tmp_path / "ec.pem"
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    other = ec.generate_private_key(ec.SECP256R1()).public_key()
    rsa.write_bytes(other.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    with pytest.raises(ReceiptError, match="another kind of key: receipts are signed with Ed25519"):
        read_public_key(rsa)
