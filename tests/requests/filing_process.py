"""A process that files requests in a journal: `filing_process.py many|endless FOLDER INDEX NAME [ADDRESS]`, starting on
a line from stdin.
"""

import sys
from pathlib import Path

import pandas as pd

from amnesiac.requests import Journal, RequestDraft


def file_many(held: Journal, index: pd.DataFrame, name: str) -> None:
    """15 times a request of its own, and one that everybody files."""
    for k in range(15):
        own = RequestDraft("samples", (f"s{k}",), f"{name}-{k}")
        held.file([own, RequestDraft("samples", (f"s{k}", f"s{k + 1}"))], index)


def file_without_end(held: Journal, index: pd.DataFrame, name: str) -> None:
    """One request after another, each acknowledged on stdout once it is filed."""
    for k in range(100_000):
        [filed] = held.file([RequestDraft("samples", (f"s{k % 9}",), f"{name}-{k}")], index).filed
        print(filed.request_id, flush=True)


if __name__ == "__main__":
    work = {"many": file_many, "endless": file_without_end}[sys.argv[1]]
    journal, frame = Journal(Path(sys.argv[2]), *sys.argv[5:]), pd.read_parquet(sys.argv[3])
    print("ready", flush=True)
    sys.stdin.readline()
    work(journal, frame, sys.argv[4])
