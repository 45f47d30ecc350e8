import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amnesiac.errors import RequestError, UnknownSample
from amnesiac.requests import Journal, RequestDraft, parsing, read_requests


@pytest.fixture
def write(tmp_path):
    def write_file(name, content):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write_file


def test_csv_rows_with_one_request_id_are_one_request(write):
    path = write(
        "r.csv",
        "request_id,sample_id,subject_id,class\nt-1,s1,,\n,s9,,\nt-2,,p1,\nt-1,s2,,\n,,,three\n",
    )
    assert read_requests(path) == [
        RequestDraft("samples", ("s1", "s2"), "t-1"),
        RequestDraft("samples", ("s9",)),
        RequestDraft("subject", ("p1",), "t-2"),
        RequestDraft("class", ("three",)),
    ]


@pytest.mark.parametrize(
    "content",
    [
        b"sample_id\ns1\ns2\n",
        b"\xef\xbb\xbfsample_id\r\ns1\r\ns2\r\n",
        b'"sample_id"\n"s1"\n\n"s2"',
        b"sample_id,request_id\ns1,\ns2,\n",
    ],
)
def test_csv_as_spreadsheets_write_it(write, content):
    assert read_requests(write("r.CSV", content)) == [
        RequestDraft("samples", ("s1",)),
        RequestDraft("samples", ("s2",)),
    ]


def test_csv_quotes_keep_commas_and_quotes(write):
    path = write("r.csv", 'class\n"T-shirt, ""top"""\n')
    assert read_requests(path) == [RequestDraft("class", ('T-shirt, "top"',))]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "holds no requests: add at least one"),
        ("\n\n", "holds no requests"),
        ("sample_id\n", "holds no requests"),
        ("sample,request_id\ns1,r\n", r"r\.csv:1: unknown columns \['sample'\]: the header may name sample_id"),
        ("sample_id,label\ns1,3\n", r":1: unknown columns \['label'\]"),
        ("request_id\nr1\n", ":1: the header names none of sample_id, subject_id, class"),
        ("sample_id,sample_id\ns1,s2\n", ":1: a column stands twice"),
        ("sample_id,subject_id\ns1,p1\n", ":2: the row fills sample_id and subject_id: fill just one"),
        ("sample_id,subject_id\ns1,\n,\n", ":3: the row fills nothing: fill just one"),
        ("sample_id\ns1\ns2,s3\n", ":3: 2 cells under 1 columns: quote a cell"),
        ('sample_id\ns1\n"s2\n', r":3 isn't CSV \(unexpected end of data\): mend its quotes"),
        ('sample_id\n"s1"x\n', ":2 isn't CSV"),
        ("sample_id\ns1\n" + "x" * 65 + "\n", ":3: sample id 'x+' must be 1 to 64"),
        ("class\n" + "x" * 257 + "\n", ":2: class .* a text of 1 to 256 characters"),
        ("sample_id\n" + "x" * 200_000 + "\n", r":2 isn't CSV \(field larger than field limit"),
        ("sample_id\ns1\ns2 \n", ":3: sample id 's2 ' must be 1 to 64 of A-Z"),
        ('sample_id\n"s1\ns2"\n', r":3: sample id 's1\\ns2' must be 1 to 64"),
        ("sample_id\ns\0\n", r"NUL|must be 1 to 64"),
        ("sample_id,request_id\ns1,a b\n", ":2: request_id 'a b' must be 1 to 64"),
        ("sample_id,request_id\ns1," + "r" * 65 + "\n", ":2: request_id .* must be 1 to 64"),
        (
            "sample_id,subject_id,request_id\ns1,,t\n,p1,t\n",
            r":3: request 't' is by subject here and by samples at .*r\.csv:2: a request is of one kind",
        ),
    ],
)
def test_bad_csv_is_refused_with_file_and_line(write, content, message):
    with pytest.raises(RequestError, match=message) as caught:
        read_requests(write("r.csv", content))
    assert "r.csv" in str(caught.value)


def test_json_lines(write):
    path = write(
        "r.jsonl",
        '\ufeff{"samples": ["s2", "s1"], "request_id": "t-1"}\n\n{"subject": "p1"}\r\n{"subject": ["p1", "p2"]}\n'
        '{"class": "3", "request_id": null}',
    )
    assert read_requests(path) == [
        RequestDraft("samples", ("s2", "s1"), "t-1"),
        RequestDraft("subject", ("p1",)),
        RequestDraft("subject", ("p1", "p2")),
        RequestDraft("class", ("3",)),
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", "holds no requests"),
        ('{"samples": ["s1"]', "isn't a line of JSON"),
        ("[1]", "isn't a JSON object: write it like"),
        ('"s1"', "isn't a JSON object"),
        ("{}", "it names nothing: name just one of samples, subject, class"),
        ('{"samples": ["s1"], "class": "3"}', "it names samples and class"),
        ('{"sample": ["s1"]}', r"unknown fields \['sample'\]: use samples"),
        ('{"random": ["s1"]}', r"unknown fields \['random'\]"),
        ('{"samples": ["s1"], "samples": ["s2"]}', "a name stands twice"),
        ('{"samples": []}', "names nothing"),
        ('{"samples": [["s1"]]}', "isn't text"),
        ('{"class": 3}', "3 isn't text: write ids and classes as strings"),
        ('{"subject": null}', "None isn't text"),
        ('{"subject": {"a": 1}}', "isn't text"),
        ('{"subject": "p1", "request_id": 7}', "request_id 7 must be"),
        ('{"class": "\\ud800"}', "control characters"),
        ("[" * 100_000, "isn't a line of JSON"),
        ("9" * 10_000, "isn't a line of JSON"),
    ],
)
def test_bad_json_lines_are_refused_with_file_and_line(write, line, message):
    good = '{"subject": "p1"}\n' if line else ""
    with pytest.raises(RequestError, match=message) as caught:
        read_requests(write("r.jsonl", good + line))
    assert ("r.jsonl:2" if line else "r.jsonl") in str(caught.value)


@pytest.mark.parametrize("name", ["r.csv", "r.jsonl"])
def test_other_encodings_are_refused(write, name):
    with pytest.raises(RequestError, match=r":2 isn't UTF-8 text .*: save the file as UTF-8"):
        read_requests(write(name, "sample_id\nmüller\n".encode("latin-1")))
    with pytest.raises(RequestError, match="isn't UTF-8"):
        read_requests(write(name, "sample_id\ns1\n".encode("utf-16")))


def test_an_unknown_ending_is_refused(write):
    with pytest.raises(RequestError, match=r"r\.txt: requests are read from \.csv, \.jsonl, \.ndjson files"):
        read_requests(write("r.txt", "sample_id\ns1\n"))


def test_links_and_what_is_no_file_are_refused(write, tmp_path):
    (tmp_path / "link.csv").symlink_to(write("r.csv", "sample_id\ns1\n"))
    with pytest.raises(RequestError, match=r"link\.csv can't be read \(it is a symbolic link\)"):
        read_requests(tmp_path / "link.csv")
    os.mkfifo(tmp_path / "pipe.csv")
    with pytest.raises(RequestError, match=r"pipe\.csv isn't a plain file"):
        read_requests(tmp_path / "pipe.csv")
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(RequestError, match=r"folder\.csv "):
        read_requests(tmp_path / "folder.csv")
    with pytest.raises(RequestError, match=r"none\.csv can't be read \(No such file"):
        read_requests(tmp_path / "none.csv")


def test_size_is_limited(write, monkeypatch):
    path = write("r.csv", "sample_id\n" + "s1\n" * 1000)
    size = path.stat().st_size
    monkeypatch.setattr(parsing, "MAX_BYTES", size)
    assert len(read_requests(path)) == 1000
    monkeypatch.setattr(parsing, "MAX_BYTES", size - 1)
    with pytest.raises(RequestError, match=r"is larger than .* MiB: split it"):
        read_requests(path)


def test_one_bad_line_among_good_ones_gives_nothing(write, tmp_path, index):
    path = write("r.csv", "sample_id\ns1\ns2\nnobody\ns3\n")
    with pytest.raises(UnknownSample, match="sample 'nobody'"):
        Journal(tmp_path / "journal").file(read_requests(path), index)
    assert not (tmp_path / "journal").exists()


FORMULAS = ["=cmd|' /C calc'!A0", "+1+1", "@SUM(A1)", '=HYPERLINK("http://x")']


@pytest.mark.parametrize("cell", FORMULAS)
def test_formula_like_ids_are_refused(write, cell):
    quoted = cell.replace('"', '""')
    with pytest.raises(RequestError, match=":2: subject id .* must be 1 to 64 of A-Z") as caught:
        read_requests(write("r.csv", f'subject_id\n"{quoted}"\n'))
    assert repr(cell) in str(caught.value)


@pytest.mark.parametrize("cell", FORMULAS)
def test_formula_like_classes_are_plain_unknown_names(write, tmp_path, index, cell):
    quoted = cell.replace('"', '""')
    with pytest.raises(UnknownSample) as caught:
        Journal(tmp_path / "journal").file(read_requests(write("r.csv", f'class\n"{quoted}"\n')), index)
    assert f"class {cell!r}" in str(caught.value)


@given(content=st.binary(max_size=200), name=st.sampled_from(["r.csv", "r.jsonl"]))
def test_any_bytes_give_requests_or_a_request_error(tmp_path_factory, content, name):
    path = tmp_path_factory.getbasetemp() / f"fuzz-{name}"
    path.write_bytes(content)
    try:
        assert read_requests(path)
    except RequestError as error:
        assert name in str(error)


@given(
    line=st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["samples", "subject", "class", "request_id", "x"]), inner, max_size=3)
        ),
    )
)
def test_any_json_gives_requests_or_a_request_error(tmp_path_factory, line):
    path = tmp_path_factory.getbasetemp() / "fuzz-any.jsonl"
    path.write_text(json.dumps(line))
    try:
        [draft] = read_requests(path)
        assert draft.kind in line
    except RequestError as error:
        assert "fuzz-any.jsonl" in str(error)
