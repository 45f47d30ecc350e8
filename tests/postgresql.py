"""A PostgreSQL cluster of the system's package for the tests: made once, on a Unix socket, as a user who isn't root."""

import os
import pwd
import shutil
import subprocess
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

PACKAGED = Path("/usr/lib/postgresql")


@dataclass(frozen=True)
class Cluster:
    """Runs from `folder`, where its socket lies, too; `user` owns its files."""

    folder: Path
    programs: Path
    user: str

    def url(self, schema="amnesiac", role="postgres"):
        return f"postgresql://{role}@/postgres?host={quote(str(self.folder), safe='')}&schema={schema}"

    @property
    def data(self):
        return self.folder / "data"

    def call(self, name, *words):
        """One of PostgreSQL's own programs, as the cluster's user."""
        command = [str(self.programs / name), *words]
        done = subprocess.run(command, **as_user(self.user), cwd="/", capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def restart(self):
        self.call("pg_ctl", "-D", str(self.data), "-w", "-m", "immediate", "restart", "-l", str(self.folder / "log"))

    def sql(self, *statements):
        """Statements one by one, each committed at once; the last one's rows."""
        import psycopg

        with psycopg.connect(host=str(self.folder), user="postgres", dbname="postgres", autocommit=True) as connection:
            for statement in statements:
                cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description else []


def programs():
    """Where initdb and pg_ctl are; None where the package isn't installed."""
    found = shutil.which("initdb")
    if found and shutil.which("pg_ctl"):
        return Path(found).parent
    versions = sorted(PACKAGED.glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    return versions[-1].parent if versions else None


def owner():
    """Who runs the server, which refuses root: `postgres`, whom the package makes; None where there is no such user."""
    if os.geteuid() != 0:
        return pwd.getpwuid(os.geteuid()).pw_name
    try:
        return pwd.getpwnam("postgres").pw_name
    except KeyError:
        return None


def missing():
    """Why no cluster can be started; None where it can."""
    if programs() is None:
        return "PostgreSQL isn't installed (initdb, pg_ctl): apt-get install postgresql"
    return None if owner() else "PostgreSQL refuses to run as root, and there is no user `postgres`"


def as_user(name):
    """Words for subprocess.run."""
    entry = pwd.getpwnam(name)
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []} if os.geteuid() == 0 else {}


@contextmanager
def cluster():
    """A cluster that is ended, and removed, at the end of the block."""
    entry = pwd.getpwnam(owner())
    folder = Path(tempfile.mkdtemp(prefix="amnesiac-pg-", dir="/tmp"))  # a socket's path has 107 characters at most
    os.chown(folder, entry.pw_uid, entry.pw_gid)
    made = Cluster(folder, programs(), entry.pw_name)
    try:
        made.call(
            "initdb", "-D", str(made.data), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"
        )
        settings = (
            f"-c listen_addresses= -c unix_socket_directories={folder} -c shared_buffers=16MB -c max_connections=40"
        )
        made.call("pg_ctl", "-D", str(made.data), "-w", "-l", str(folder / "log"), "-o", settings, "start")
        try:
            yield made
        finally:
            made.call("pg_ctl", "-D", str(made.data), "-w", "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder)
