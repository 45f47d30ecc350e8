"""Marks: a value is found again by its digest, wherever it lies, and can't be read out of what is kept."""

import gzip
import json
from dataclasses import astuple, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from amnesiac.erasure import Mark, Marked, id_needles, marks, scan
from amnesiac.erasure.search import Search

KEY = bytes(range(32))
RANDOM = np.random.default_rng(0)
ROWS = [RANDOM.integers(0, 256, n, dtype=np.uint8).tobytes() for n in (32, 41, 3136, 40_000)]


def found(blocks, known, key=KEY):
    return sorted(Search((), Marked(known, key)).find(blocks))


@given(before=st.integers(0, 40), cut=st.integers(1, 50_000), k=st.integers(0, len(ROWS) - 1))
def test_a_value_is_found_at_every_place_and_across_blocks(before, cut, k):
    stream = bytes(before) + ROWS[k] + b"after"
    assert found([stream[:cut], stream[cut:]], marks(ROWS, KEY)) == [(before, k)]


def test_only_the_whole_value_is_found_and_only_with_the_key():
    known = marks(ROWS, KEY)
    changed = bytearray(ROWS[2])
    changed[-1] ^= 1
    assert found([ROWS[2][:-1] + ROWS[0][1:] + bytes(changed)], known) == []
    assert found([ROWS[2]], known, bytes(32)) == []
    assert found([ROWS[2]], [replace(mark, digest="0" * 64) for mark in known]) == []
    assert found([b"".join(ROWS) * 2], known) == sorted(
        (at + turn * 43_209, k) for turn in (0, 1) for k, at in enumerate((0, 32, 73, 3209))
    )


def test_what_is_easily_guessed_is_not_marked():
    black, few, short = bytes(3136), b"\0" * 3000 + b"\x80\x3f" * 8, ROWS[0][:7]
    assert marks([black, few, short, b"", ROWS[1]], KEY, first=5) == marks([ROWS[1]], KEY, first=5)


def test_what_is_kept_holds_no_part_of_the_value_and_differs_by_key():
    [mark] = marks([ROWS[2]], KEY)
    kept = json.dumps(astuple(mark))
    assert Mark(*json.loads(kept)) == mark
    assert len(kept) < 120 and mark.slot < 1 << 20
    assert marks([ROWS[2]], bytes(32))[0].digest != mark.digest


def test_a_scan_names_file_and_number_also_where_it_is_packed(tmp_path):
    (tmp_path / "core").write_bytes(bytes(99) + ROWS[0])
    text = b"".join(b"%d;" % k for k in range(900))
    (tmp_path / "old.gz").write_bytes(gzip.compress(b"x" + text))
    (tmp_path / "log").write_text("person-0042")
    (tmp_path / "clean").write_bytes(ROWS[2][:-1])
    report = scan(id_needles(["person-0042"]), [tmp_path], marked=Marked(marks([*ROWS, text], KEY, first=1), KEY))
    hits = {(hit.file.rpartition("/")[2], hit.part, hit.offset, hit.needle, hit.form) for hit in report.hits}
    assert hits == {("core", "", 99, 1, "digest"), ("old.gz", "gzip", 1, 5, "digest"), ("log", "", 0, 0, "utf-8")}
    assert report.things == 6


@pytest.mark.parametrize("known", [(), marks(ROWS, KEY)])
def test_short_streams_and_none(known):
    assert found([], known) == found([b""], known) == found([b"1234567"], known) == []
