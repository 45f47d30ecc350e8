import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tasks.locking import LOCK_NAME, WriterBusy, single_writer

ROOT = Path(__file__).parents[2]
HOLD = "print('held', flush=True); time.sleep(60)"
ADD = "n = int(file.read_text()); time.sleep(0.002); file.write_text(str(n + 1))"


def start(folder: Path, body: str, timeout: float = 0.0, times: int = 1) -> subprocess.Popen[str]:
    program = f"""
import time
from pathlib import Path
from tasks.locking import single_writer
file = Path({str(folder)!r}) / "counter"
for _ in range({times}):
    with single_writer(Path({str(folder)!r}), timeout={timeout}):
        {body}
"""
    command = [sys.executable, "-c", program]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def wait_until_held(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"


def end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()


def test_a_second_writer_is_told_who_holds_the_lock(tmp_path: Path) -> None:
    holder = start(tmp_path, HOLD)
    try:
        wait_until_held(holder)
        with pytest.raises(WriterBusy, match=rf"{tmp_path}.* process {holder.pid}\b"), single_writer(tmp_path):
            pass
    finally:
        end(holder)


def test_the_lock_is_free_at_once_after_kill_9(tmp_path: Path) -> None:
    holder = start(tmp_path, HOLD)
    wait_until_held(holder)
    end(holder)
    with single_writer(tmp_path):
        assert (tmp_path / LOCK_NAME).read_text() == f"{os.getpid()}\n"


def test_waiting_ends_when_the_holder_does(tmp_path: Path) -> None:
    holder = start(tmp_path, "print('held', flush=True); time.sleep(0.5)")
    wait_until_held(holder)
    with single_writer(tmp_path, timeout=30):
        pass
    end(holder)


def test_a_wait_is_bounded_and_says_how_long_it_was(tmp_path: Path) -> None:
    with single_writer(tmp_path):
        began = time.monotonic()
        with (
            pytest.raises(WriterBusy, match=r"this process itself.*waited 0\.3 s"),
            single_writer(tmp_path, timeout=0.3),
        ):
            pass
        assert time.monotonic() - began >= 0.3


def test_the_lock_is_given_back_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), single_writer(tmp_path):
        _ = 1 / 0
    with single_writer(tmp_path):
        pass


def test_no_update_is_lost_between_writers(tmp_path: Path) -> None:
    (tmp_path / "counter").write_text("0")
    writers = [start(tmp_path, ADD, timeout=60, times=5) for _ in range(3)]
    assert [writer.communicate()[0] for writer in writers] == [""] * 3
    assert (tmp_path / "counter").read_text() == "15"
