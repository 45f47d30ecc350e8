"""A residue is found wherever and however it lies, a clean place is called clean, and what can't be read is a gap."""

import base64
import bz2
import gzip
import lzma
import os
import random
import socket
import sqlite3
import zipfile
from contextlib import closing
from pathlib import Path
from unittest import mock

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amnesiac.erasure import Needle, byte_needles, id_needles, scan, too_short
from amnesiac.erasure.search import Search

ERASED = ["writer-0041", "writer-0042"]
NOISE = random.Random(0).randbytes(3_000_000)


@pytest.fixture
def place(tmp_path):
    folder = tmp_path / "place"
    folder.mkdir()
    return folder


def found(place, needles=None, *others):
    report = scan(id_needles(ERASED) if needles is None else needles, [place, *others])
    assert not report.gaps, report.gaps
    return {(Path(hit.file).name, hit.part, hit.needle, hit.form) for hit in report.hits}


def naive(needles, data):
    """Every start of every needle that no longer text explains: the slow twin."""
    hits = []
    for k, needle in enumerate(needles):
        at = data.find(needle.data)
        while at >= 0:
            if not any(data[at - j : at - j + len(t)] == t for t, j in needle.within if at >= j):
                hits.append((at, k))
            at = data.find(needle.data, at + 1)
    return sorted(hits)


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_the_fast_search_finds_what_the_slow_one_does_however_the_stream_is_cut(data):
    letters = st.sampled_from([b"a", b"b", b"\0"])
    text = lambda low, high: st.lists(letters, min_size=low, max_size=high).map(b"".join)  # noqa: E731
    words = data.draw(st.lists(text(4, 12), min_size=1, max_size=5, unique=True))
    needles = [
        Needle(k, "x", word, tuple((b"a" * n + word + b"b", n) for n in data.draw(st.sets(st.integers(0, 2)))))
        for k, word in enumerate(words)
    ]
    stream = data.draw(text(0, 150)) + data.draw(st.sampled_from(words)) + data.draw(text(0, 30))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=6)))
    blocks = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    search = Search(needles)
    expected = naive(needles, stream)
    assert sorted(search.find(blocks)) == expected
    with mock.patch("amnesiac.erasure.search._BLOCK", 1):  # small blocks aren't joined then
        assert sorted(search.find(blocks)) == expected


def test_many_needles_at_known_places_in_noise_are_all_found():
    rng = random.Random(1)
    values = [rng.randbytes(rng.choice([6, 7, 8, 30, 784])) for _ in range(500)]
    needles = byte_needles(values)
    noise, expected, at = bytearray(NOISE), [], 0
    for k in rng.sample(range(500), 300):
        at += rng.randint(800, 9000)
        noise[at : at + len(values[k])] = values[k]
        expected.append((at, k))
    assert sorted(Search(needles).find([bytes(noise[:at]), bytes(noise[at:])])) == expected


FORMS = {
    "utf-8": lambda name: f'{{"sample_id": "{name}"}}'.encode(),
    "utf-16": lambda name: f"x{name}y".encode("utf-16"),
    "utf-32": lambda name: f"x{name}y".encode("utf-32"),
    "utf-16 big": lambda name: f"x{name}y".encode("utf-16-be"),
    "hex": lambda name: b"0x" + name.encode().hex().encode(),
    "HEX": lambda name: name.encode().hex().upper().encode(),
    "url": lambda name: f"https://host/{name.replace(':', '%3A')}/".encode(),
} | {f"base64 {n}": lambda name, n=n: base64.b64encode(b"?" * n + name.encode() + b'"}') for n in range(4)}


WRITTEN = {
    "utf-8": str.encode,
    "utf-16": lambda text: text.encode("utf-16"),
    "utf-32": lambda text: text.encode("utf-32-be"),
    "hex": lambda text: text.encode().hex().encode(),
    "base64": lambda text: base64.urlsafe_b64encode(text.encode()),
}


@pytest.mark.parametrize("form", FORMS)
def test_an_id_is_found_in_every_form_with_its_offset(form, place):
    name = "person:0042"
    text = FORMS[form](name)
    (place / "log").write_bytes(NOISE + text + NOISE[:1000])
    report = scan(id_needles([name]), [place])
    assert {hit.form for hit in report.hits} == {form.split()[0].lower()}
    assert all(len(NOISE) <= hit.offset < len(NOISE) + len(text) for hit in report.hits)
    for other in ("person:0043", "Person:0042", "person:004"):
        (place / "log").write_bytes(FORMS[form](other))
        assert scan(id_needles([name]), [place]).clean


def test_no_field_of_a_report_holds_the_id_even_where_a_file_is_named_by_it(place):
    (place / "scratch-writer-0042").mkdir()
    (place / "scratch-writer-0042" / "writer-0041.png").write_bytes(b"nothing" + b"writer-0042")
    report = scan(id_needles(ERASED), [place])
    assert {(hit.part, hit.needle) for hit in report.hits} == {("file name", 0), ("file name", 1), ("", 1)}
    assert not any(name in repr(report) for name in ERASED)
    assert report.hits[0].file.endswith("/scratch-[needle 1]/[needle 0].png")


def test_a_longer_id_that_survives_is_no_hit_and_the_erased_one_beside_it_is(place):
    surviving = ["writer-00421", "the-writer-0042", "writer-0043"]
    needles, text = id_needles(ERASED, surviving), " ".join(surviving)
    for form, write in WRITTEN.items():
        (place / "index").write_bytes(write(text))
        assert found(place, needles) == set(), form
        assert found(place), "without the survivors it looks like one"
        for more in (" writer-0042", " writer-0042-", ",writer-0042?"):
            (place / "index").write_bytes(write(text + more))
            assert found(place, needles) == {("index", "", 1, form)}


def test_an_id_can_not_be_erased_and_surviving():
    with pytest.raises(ValueError, match="both erased and surviving"):
        id_needles(["writer-1"], ["writer-1"])


def test_packed_files_are_unpacked_by_their_content_not_their_name(place):
    text = b"." * 100_000 + b"writer-0042" + b"." * 1000
    (place / "a").write_bytes(gzip.compress(text))
    (place / "b").write_bytes(bz2.compress(text))
    (place / "c").write_bytes(lzma.compress(text))
    (place / "d").write_bytes(pa.compress(text, "zstd", asbytes=True))
    with zipfile.ZipFile(place / "e", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("inner.txt", text)
    np.savez_compressed(place / "f.npz", ids=np.array(["writer-0041"]))
    parts = {name: part for name, part, _, _ in found(place) if part}
    assert parts == {"a": "gzip", "b": "bzip2", "c": "xz", "d": "zstd", "e": "inner.txt", "f.npz": "ids.npy"}


@pytest.mark.parametrize("compression", ["snappy", "zstd", "none"])
def test_parquet_columns_are_read_nested_and_dictionary_ones_too(compression, place):
    plain = pa.array(["other", "writer-0042", None])
    table = pa.table(
        {
            "plain": plain,
            "dictionary": plain.dictionary_encode(),
            "binary": plain.cast(pa.binary()),
            "large": plain.cast(pa.large_string()),
            "struct": pa.array([{"a": {"path": "writer-0042"}}, None, None]),
            "list": pa.array([["x", "writer-0042"], None, []]),
            "map": pa.array([[("k", "writer-0042")], None, []], pa.map_(pa.string(), pa.string())),
            "number": pa.array([1, 2, 3]),
        }
    )
    pq.write_table(table, place / "x", compression=compression, write_statistics=False)
    parts = {part for _, part, needle, _ in found(place) if needle == 1}
    assert parts - {""} == set(table.column_names) - {"number"}


def make_database(path, journal_mode):
    database = sqlite3.connect(path)
    database.execute(f"PRAGMA journal_mode={journal_mode}")
    database.execute("PRAGMA secure_delete=OFF")
    database.execute("CREATE TABLE runs (id INTEGER, parameters TEXT, payload BLOB)")
    return database


def test_a_deleted_row_of_a_database_is_still_found_in_its_pages(place):
    with closing(make_database(place / "x.db", "DELETE")) as database, database:
        database.execute("INSERT INTO runs VALUES (1, 'subject writer-0042', NULL)")
    assert ("x.db", "runs", 1, "utf-8") in found(place)
    with closing(sqlite3.connect(place / "x.db")) as database, database:
        database.execute("PRAGMA secure_delete=OFF")
        database.execute("DELETE FROM runs")
    assert found(place) == {("x.db", "", 1, "utf-8")}
    with closing(sqlite3.connect(place / "x.db")) as database:
        database.execute("VACUUM")
    assert found(place) == set()


def test_what_only_the_write_ahead_log_holds_is_found_and_nothing_is_changed(place):
    with closing(make_database(place / "x.db", "WAL")) as database:
        database.execute("PRAGMA wal_autocheckpoint=0")
        database.execute("INSERT INTO runs VALUES (1, 'writer-0041', NULL)")
        database.commit()
        before = {path.name: path.read_bytes() for path in place.iterdir() if not path.name.endswith("-shm")}
        expected = {("x.db-wal", "", 0, "utf-8"), ("x.db", "runs", 0, "utf-8")}
        assert found(place) == expected
        assert found(place / "x.db") == expected, "a database brings its log along"
        assert {path.name: path.read_bytes() for path in place.iterdir() if path.name in before} == before


def test_an_id_that_a_page_cuts_in_two_is_found_by_reading_the_rows(place):
    """A row larger than a page goes on in another one, wherever that cuts it."""
    with closing(make_database(place / "x.db", "DELETE")) as database, database:
        for k in range(700, 1000):
            database.execute("INSERT INTO runs VALUES (?, ?, NULL)", (k, "." * k + f"writer-{k:04}" + "." * (5000 - k)))
    whole = (place / "x.db").read_bytes()
    cut = [name for k in range(700, 1000) if (name := f"writer-{k:04}").encode() not in whole]
    assert cut
    assert found(place, id_needles(cut)) == {("x.db", "runs", k, "utf-8") for k in range(len(cut))}


def test_numbers_in_a_database_are_searched_as_text(place):
    with closing(make_database(place / "x.db", "DELETE")) as database, database:
        database.execute("INSERT INTO runs VALUES (1002003, 'x', ?)", (b"\1\2secret\3",))
    assert found(place, id_needles(["1002003"])) == {("x.db", "runs", 0, "utf-8")}
    assert ("x.db", "runs", 0, "bytes") in found(place, byte_needles([b"\2secret\3"]))


def test_rows_and_keys_are_found_and_pieces_of_rows(place):
    rows = [random.Random(k).randbytes(784) for k in range(1, 4)]
    key = random.Random(9).randbytes(32)
    (place / "store").write_bytes(NOISE + rows[2] + b"tail")
    assert found(place, byte_needles(rows)) == {("store", "", 2, "bytes")}
    (place / "store").write_bytes(rows[1][:400] + bytes(384))
    assert found(place, byte_needles(rows)) == set()
    assert found(place, byte_needles(rows, piece=64)) == {("store", "", 1, "bytes")}
    (place / "log").write_text(f"key={key.hex()} {base64.b64encode(b'k:' + key).decode()}")
    hits = found(place, byte_needles([key], first=7, encoded=True))
    assert hits == {("log", "", 7, "hex"), ("log", "", 7, "base64")}


def test_what_says_nothing_is_not_looked_for():
    assert byte_needles([bytes(784), b"\xff" * 50, b"abc"]) == []
    border = bytes(60) + b"\1\2\3\4"
    assert len(byte_needles([border, b"0123456789" * 6 + bytes(4)], piece=64)) == 1
    assert len(byte_needles([border])) == 1
    assert {needle.form for needle in id_needles(["s9"])} == set()
    assert "utf-8" not in {needle.form for needle in id_needles(["s1234"])}
    assert too_short(["s9", "s12345", "aaaaaaa"]) == 2


def test_links_are_not_followed_and_pipes_not_opened(tmp_path, place):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "x").write_bytes(b"writer-0042")
    (place / "folder").symlink_to(outside)
    (place / "file").symlink_to(outside / "x")
    os.mkfifo(place / "pipe")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(place / "socket"))
        assert found(place) == set()
    report = scan(id_needles(ERASED), [place / "folder", place / "nothing"])
    assert [gap.reason for gap in report.gaps] == ["is a link: name what it points to"]
    assert report.absent == (str(place / "nothing"),)
    assert not report.clean


DAMAGED = {
    "gzip": gzip.compress(NOISE[:5000])[:3000],
    "gzip flipped": gzip.compress(b"a" * 90 + NOISE[:500])[:100] + b"????" + gzip.compress(NOISE[:500])[104:],
    "bzip2": bz2.compress(NOISE[:5000])[:3000],
    "xz": lzma.compress(NOISE[:5000])[:3000],
    "zstd": pa.compress(NOISE[:5000], "zstd", asbytes=True)[:3000],
    "zip": b"PK\x03\x04" + NOISE[:500],
    "parquet": b"PAR1" + NOISE[:500],
    "sqlite": b"SQLite format 3\0" + NOISE[:5000],
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_a_damaged_file_is_a_gap_and_is_searched_as_it_lies(kind, place):
    (place / "x").write_bytes(DAMAGED[kind] + b"writer-0042")
    report = scan(id_needles(ERASED), [place])
    assert [hit.needle for hit in report.hits] == [1]
    assert [gap.file for gap in report.gaps] == [str(place / "x")]
    assert not report.clean


def test_a_file_that_may_not_be_read_or_is_gone_is_a_gap(place, monkeypatch):
    import amnesiac.erasure.contents as contents

    (place / "a").write_bytes(b"clean")
    (place / "b").write_bytes(b"writer-0042")
    real = os.open

    def refuse(path, *rest, **named):
        if Path(path).name == "a":
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, *rest, **named)

    monkeypatch.setattr(contents.os, "open", refuse)
    report = scan(id_needles(ERASED), [place])
    assert [(Path(gap.file).name, gap.reason) for gap in report.gaps] == [("a", "PermissionError: Permission denied")]
    assert len(report.hits) == 1


def test_the_report_counts_what_was_searched(place):
    (place / "a").write_bytes(NOISE)
    (place / "b").write_bytes(gzip.compress(bytes(10_000)))
    seen = []
    report = scan(id_needles(ERASED), [place, place / "a"], lambda *step: seen.append(step))
    size = len(NOISE) + (place / "b").stat().st_size
    assert (report.files, report.bytes, report.unpacked, report.things) == (2, size, 10_000, 2)
    assert report.clean
    assert seen[-1] == ("scan", size, size)
