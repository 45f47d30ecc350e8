"""The deletion journal from place to place: to a server, to a file."""

from pathlib import Path

from amnesiac.erasure import Target
from amnesiac.errors import InputError
from amnesiac.requests import Journal, copy_journal
from amnesiac.requests.elsewhere import note_elsewhere
from amnesiac.requests.postgresql import PostgresServer
from tasks.catalog import catalog
from tasks.clearing import purge_plan
from tasks.stages import writing


def move_journal(address: str) -> int:
    """Copy the project's file to a server and overwrite it; how many requests there are. Again after a kill, if need
    be.

    Raises SettingsError for an unusable address, StoreError when there is no file, or the server holds another journal.
    """
    at, server = catalog(), PostgresServer(None, address)
    with writing("journal move"):
        here = Journal(at.journal)
        count = copy_journal(here.database, server)
        note_elsewhere(at.journal, server.name)
        plan = purge_plan()
        plan.add([Target("journal", path) for path in sorted(at.journal.glob(f"{here.path.name}*"))], overwrite=True)
        plan.run()
        plan.close()
    return count


def export_journal(folder: Path) -> int:
    """Copy the journal to a file in a folder that has none; how many requests there are. Raises InputError."""
    target = Journal(folder.absolute())
    if target.path.exists():
        raise InputError(f"{target.path} exists: name another folder")
    return copy_journal(catalog().open_journal().database, target.database)
