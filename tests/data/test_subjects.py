"""Subjects from a mapping file, and each way in which one can be malformed."""

from pathlib import Path

import pandas as pd
import pytest

from amnesiac.data import Samples, load_samples
from amnesiac.errors import DataError
from amnesiac.settings import DataSettings

GOOD = "sample_id,subject_id,note\nmnist-5k-00001,007,x\nmnist-5k-00000,NA,y\n"


def load(path: Path) -> Samples:
    return load_samples(DataSettings(source="mnist-5k", limit=20, subjects_file=path), None, seed=0)


def test_csv_keeps_ids_as_written_and_fills_in_the_rest(tmp_path: Path) -> None:
    path = tmp_path / "s.csv"
    path.write_text(GOOD)
    samples = load(path)
    assert samples.subject_ids[:2] == ("NA", "007")
    assert samples.subject_ids[2:] == samples.sample_ids[2:]


def test_one_subject_owns_many_in_parquet(tmp_path: Path) -> None:
    path = tmp_path / "s.parquet"
    pd.DataFrame({"sample_id": ["mnist-5k-00000", "mnist-5k-00500"], "subject_id": [3, 3]}).to_parquet(path)
    samples = load(path)
    assert [name for name, who in zip(samples.sample_ids, samples.subject_ids, strict=True) if who == "3"] == [
        "mnist-5k-00000",
        "mnist-5k-00500",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "sample,subject_id\na,b\n",
            r"s.csv: column sample_id is missing \(it has .*'sample'.*\): a subjects file needs",
        ),
        ("sample_id;subject_id\na;b\n", r"s.csv: column sample_id, subject_id is missing"),
        ("", "s.csv: the subjects file can't be read as CSV or parquet"),
        (GOOD + "nobody,p\n", "s.csv: line 4: sample id 'nobody' isn't in the data: correct it, or remove the row"),
        (GOOD + "n1,p\nn2,p\n", r"line 4: sample id 'n1' isn't in the data \(and 1 more\)"),
        (GOOD + "mnist-5k-00002,\n", "s.csv: line 4: subject id '' must be 1 to 64"),
        (GOOD + "mnist-5k-00002,two words\n", "s.csv: line 4: subject id 'two words' must be 1 to 64"),
        (GOOD + "mnist-5k-00001,8,\n", "s.csv: line 4: sample id 'mnist-5k-00001' is already used by .*s.csv: line 2"),
    ],
)
def test_malformed_csv(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "s.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        load(path)


def test_missing_and_malformed_parquet(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere.csv: the subjects file can't be read"):
        load(tmp_path / "nowhere.csv")
    path = tmp_path / "s.parquet"
    path.write_text(GOOD)
    with pytest.raises(DataError, match="s.parquet: the subjects file can't be read"):
        load(path)
    pd.DataFrame({"sample_id": ["mnist-5k-00000"], "subject_id": [0.5]}).to_parquet(path)
    with pytest.raises(DataError, match="s.parquet: column subject_id holds float64: save the ids as text"):
        load(path)
    pd.DataFrame({"sample_id": ["mnist-5k-00000", "mnist-5k-00001"], "subject_id": ["a", None]}).to_parquet(path)
    with pytest.raises(DataError, match="s.parquet: row 1: subject id '' must be"):
        load(path)
