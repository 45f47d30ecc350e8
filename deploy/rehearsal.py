"""A team's set-up on loopback, from nothing to two scheduled deletion batches and back to nothing.

    python deploy/rehearsal.py [--folder DIR]      # from the repository's root; 5 minutes on two quiet cores

1. PostgreSQL (the system's package, on a Unix socket) with Prefect's database and the deletion journal; moto's S3
   server as the object store; a Prefect server; a small project with `storage.url`.
2. `amnesiac cycle`: prepare, train, forget a class, evaluate, erase, sign.
3. `amnesiac deploy`, two `amnesiac worker`. A person asks to be forgotten; the worker that carries out the scheduled
   batch is killed (SIGKILL, with all its processes). A later scheduled run on the other worker ends the batch.
4. A second person asks; another scheduled batch.
5. `amnesiac verify`, `amnesiac receipt verify`; what consumers fetch from the bucket is what was published; neither
   rows nor a journal lie here.
6. Everything that was started is ended, by its process id.

Prints a line a step, with the seconds since the start, and `rehearsal passed`; exit code 1 and what went wrong if not.
The server calls a silent run crashed after two minutes and frees its slot within five: that is most of the time.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import psycopg
import yaml

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from amnesiac.requests.database import FILE_NAME  # noqa: E402
from tests.pipeline.project import FOREIGN, ask, create  # noqa: E402
from tests.postgresql import Cluster, cluster, missing  # noqa: E402
from tests.storage.conftest import environment, new_bucket  # noqa: E402

BIN = Path(sys.executable).parent
INTERVAL = 45
BOUND = 1500.0  # seconds that one step may take: a bound, no expectation
STARTED = time.monotonic()


class Failed(Exception):
    """A step didn't do what it is for."""


@dataclass(frozen=True)
class Team:
    """root: the project;  environment: of every command;  logs: folder;  bucket: its URL below the store."""

    root: Path
    environment: dict[str, str]
    logs: Path
    url: str

    @property
    def api(self) -> str:
        """Prefect's."""
        return self.environment["PREFECT_API_URL"]

    def amnesiac(self, *words: str) -> str:
        """What a command prints; raises Failed with its errors."""
        command = [str(BIN / "amnesiac"), *words]
        done = subprocess.run(command, cwd=self.root, env=self.environment, capture_output=True, text=True, check=False)
        if done.returncode:
            told = f"{done.stdout[-500:]}\n{done.stderr[-3000:]}"
            raise Failed(f"`amnesiac {' '.join(words)}` ended with {done.returncode}:\n{told}")
        return done.stdout

    def receipts(self) -> int:
        """How many requests have one."""
        return len(list((self.root / "pipeline_data/receipts").glob("[0-9]*.json")))

    @contextmanager
    def running(self, name: str, *words: str) -> Iterator[subprocess.Popen[bytes]]:
        """A process of its own session, its words in a log; ended with all that it started."""
        with (self.logs / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(
                words, cwd=self.root, env=self.environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip
            try:
                yield process
            finally:
                end(process)


def main() -> int:
    """Exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--folder", type=Path, help="keep project and logs there; default: a temporary folder")
    folder = parser.parse_args().folder
    if (why := missing()) is not None:
        print(f"can't rehearse: {why}", file=sys.stderr)
        return 2
    try:
        with ExitStack() as stack:
            place = folder or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="rehearsal-")))
            rehearse(set_up(stack, place.resolve()))
    except Failed as error:
        print(f"rehearsal failed: {error}", file=sys.stderr)
        return 1
    say("rehearsal passed; everything that was started has ended")
    return 0


def rehearse(team: Team) -> None:
    """Steps 2 to 5."""
    said = team.amnesiac("cycle", "--forget-class", "3")
    say("cycle done", said.strip().splitlines()[-1] if said.strip() else "")
    team.amnesiac("deploy")
    before, people = team.receipts(), subjects(team)
    with ExitStack() as stack:
        workers = [start_worker(stack, team, name) for name in ("worker-1", "worker-2")]
        say("two workers wait")
        team.amnesiac("request", "add", "--subject", people[0], "--id", "first")
        victim = wait("a worker has opened a batch", lambda: at_work(team, workers), 0.05)
        end(victim)
        say("killed it, and all its processes", f"worker {workers.index(victim) + 1}, batch {open_batch(team)}")
        wait("the other worker ends the batch", lambda: team.receipts() > before)
        team.amnesiac("request", "add", "--subject", people[1], "--id", "second")
        wait("the second scheduled batch has its receipt", lambda: team.receipts() > before + 1)
    check(team, before + 2)


def check(team: Team, receipts: int) -> None:
    """Step 5."""
    team.amnesiac("verify")
    team.amnesiac("receipt", "verify")
    if team.receipts() != receipts:
        raise Failed(f"{team.receipts()} receipts, not {receipts}")
    say("verified", f"{receipts} receipts")
    program = (
        "import sys, pathlib, amnesiac.storage as s, amnesiac.publication as p\n"
        "head, version = p.fetch_published(s.open_storage(sys.argv[1]), pathlib.Path(sys.argv[2]))\n"
        "print(head.version)"
    )
    command = [sys.executable, "-c", program, f"{team.url}/published", str(team.logs / "fetched")]
    done = subprocess.run(command, env=team.environment, cwd=team.root, capture_output=True, text=True, check=False)
    head = json.loads((team.root / "pipeline_data/published/HEAD.json").read_text())
    if done.returncode or done.stdout.strip() not in json.dumps(head):
        raise Failed(f"consumers fetch {done.stdout!r}, published is {head}\n{done.stderr}")
    say("consumers fetch what was published", done.stdout.strip()[:12])
    left = [
        path
        for path in (team.root / "pipeline_data/ledger/rows.zarr").glob("settled*/c")
        if "." not in path.parent.name
    ]
    left += list((team.root / "pipeline_data/journal").glob(f"{FILE_NAME}*"))
    if left or open_batch(team):
        raise Failed(f"rows or a journal lie here: {left}; or a batch is open: {open_batch(team)}")


def set_up(stack: ExitStack, place: Path) -> Team:
    """Step 1."""
    place.mkdir(parents=True, exist_ok=True)
    logs = place / "logs"
    logs.mkdir()
    made = stack.enter_context(cluster())
    made.sql("CREATE DATABASE prefect", "CREATE DATABASE deletions")
    say("PostgreSQL runs", made.sql("SHOW server_version")[0][0])
    root = create(place / "project").root
    port, api = free_port(), free_port()
    team = Team(root, surroundings(made, port, api), logs, "")
    stack.enter_context(
        team.running("object-store", sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port))
    )
    store = f"http://127.0.0.1:{port}"
    wait("the object store answers", lambda: answers(store))
    team = Team(root, team.environment, logs, f"s3://{new_bucket(store)}/team")
    settings(team)
    server = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(api)]
    stack.enter_context(team.running("prefect-server", *server))
    wait("Prefect's server answers", lambda: answers(f"{team.api}/health"))
    return team


def surroundings(made: Cluster, store: int, api: int) -> dict[str, str]:
    """The environment: nothing of the caller's own servers and projects."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith((*FOREIGN, "AWS_"))}
    host = str(made.folder).replace("/", "%2F")
    return ours | environment(f"http://127.0.0.1:{store}") | {
        "PATH": f"{BIN}{os.pathsep}{ours['PATH']}",
        "PREFECT_API_URL": f"http://127.0.0.1:{api}/api",
        "PREFECT_API_DATABASE_CONNECTION_URL": f"postgresql+asyncpg://postgres@/prefect?host={host}",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_CSRF_PROTECTION_ENABLED": "true",
        "AMNESIAC_JOURNAL": f"postgresql://postgres@/deletions?host={host}",
    }  # fmt: skip


def settings(team: Team) -> None:
    """params.yaml and prefect.yaml: settled rows in the bucket, a batch every INTERVAL seconds, no grace time."""
    path = team.root / "params.yaml"
    said = yaml.safe_load(path.read_text()) | {
        "capture": {"methods": ["settled"]}, "unlearning": {"method": "settled"}, "storage": {"url": team.url},
        "recurrence": {"interval_seconds": INTERVAL, "evaluate": False}, "erasure": {"grace_days": 0},
    }  # fmt: skip
    path.write_text(yaml.safe_dump(said, sort_keys=False))
    deployments = yaml.safe_load((ROOT / "prefect.yaml").read_text())
    for entry in deployments["deployments"]:
        if entry["name"] == "scheduled":
            entry["schedules"][0]["interval"] = INTERVAL
            entry["parameters"]["evaluate"] = False
    (team.root / "prefect.yaml").write_text(yaml.safe_dump(deployments, sort_keys=False))


def start_worker(stack: ExitStack, team: Team, name: str) -> "subprocess.Popen[bytes]":
    """A worker that ends with the stack."""
    return stack.enter_context(team.running(name, str(BIN / "amnesiac"), "worker", "--limit", "1"))


def at_work(team: Team, workers: "list[subprocess.Popen[bytes]]") -> "subprocess.Popen[bytes] | None":
    """The worker that has a flow run under way, once the journal has an open batch; None until then."""
    if open_batch(team) is None:
        return None
    running = ask(team.api, "flow_runs/filter", flow_runs={"state": {"type": {"any_": ["RUNNING"]}}})
    for worker in workers:
        if worker.poll() is not None:
            raise Failed(f"a worker ended by itself: {(team.logs / 'worker-1.log').read_text()[-2000:]}")
        for child in psutil.Process(worker.pid).children(recursive=True):
            with suppress(psutil.Error):
                own = child.environ().get("PREFECT__FLOW_RUN_ID")
                if own in {run["id"] for run in running}:
                    return worker
    return None


def open_batch(team: Team) -> str | None:
    """Number and state of the journal's unfinished batch, as its database says; None where there is none."""
    query = "SELECT batch, state FROM amnesiac.batches WHERE state <> 'RECEIPTED' AND ended IS NULL"
    with psycopg.connect(team.environment["AMNESIAC_JOURNAL"]) as connection:
        found = connection.execute(query).fetchone()
    return f"{found[0]} ({found[1]})" if found else None


def subjects(team: Team) -> list[str]:
    """Two people of the prepared data whose class wasn't forgotten."""
    program = (
        "import json; from tasks.catalog import catalog\n"
        "train = catalog().dataset().split('train')\n"
        "rows = zip(train.subject_ids, train.labels.tolist(), train.erased)\n"
        "print(json.dumps([subject for subject, label, erased in rows if label != 3 and not erased][:2]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=team.root,
        env=team.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise Failed(f"the prepared data can't be read: {done.stderr}")
    found: list[str] = json.loads(done.stdout)
    return found


def wait(what: str, found: Callable[[], Any], pause: float = 0.5) -> Any:
    """What `found` returns once it is something; raises Failed after BOUND seconds."""
    deadline = time.monotonic() + BOUND
    while not (result := found()):
        if time.monotonic() > deadline:
            raise Failed(f"waited {BOUND:.0f} s in vain: {what}")
        time.sleep(pause)
    say(what)
    return result


def answers(url: str) -> bool:
    """Whether a server does, whatever it says."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=5):
            return True
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False


def end(process: "subprocess.Popen[bytes]") -> None:
    """SIGKILL to a process and all that it started, wherever their sessions are."""
    with suppress(psutil.NoSuchProcess):
        whole = [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]
        for one in whole:
            with suppress(psutil.NoSuchProcess):
                one.send_signal(signal.SIGKILL)
        psutil.wait_procs(whole, 30)
    process.wait(30)


def free_port() -> int:
    """A port of loopback that nobody listens on."""
    from tasks.prefect_server import free_port as found

    return found()


def say(*words: str) -> None:
    """A line with the seconds since the start."""
    print(f"{time.monotonic() - STARTED:6.0f} s  {': '.join(word for word in words if word)}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
