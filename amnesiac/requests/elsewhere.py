"""A note in the journal's folder that the journal lies on a server: without its address nobody may begin a new one."""

import json
from pathlib import Path

from amnesiac.durable import write_json
from amnesiac.errors import StoreError

NOTE = "server.json"


def note_elsewhere(folder: Path, name: str) -> None:
    """Write the note; nothing where it says so already."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = folder / NOTE
    if not path.exists() or json.loads(path.read_text()) != {"journal": name}:
        write_json(path, {"journal": name})


def refuse_elsewhere(folder: Path) -> None:
    """Raise StoreError when the folder says that the journal lies on a server."""
    path = folder / NOTE
    if path.exists():
        where = json.loads(path.read_text())["journal"]
        raise StoreError(
            f"this project's deletion journal lies in {where} ({path} says so): set AMNESIAC_JOURNAL to that address, "
            "or remove the note if the server's journal is given up"
        )
