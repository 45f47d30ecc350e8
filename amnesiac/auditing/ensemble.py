"""An ensemble on disk: one small file a member, named by what decides its bits (decision 0006).

A member that is there isn't trained again. A file that can't be read, or whose content isn't what was written, is named
by `read_member` and trained again.
"""

from pathlib import Path

from amnesiac.auditing.members import Content, train_member
from amnesiac.auditing.setup import Member, Setup
from amnesiac.durable import sweep
from amnesiac.errors import DamagedStore
from amnesiac.hashing import hash_tensors
from amnesiac.models.files import load_metadata, load_weights, save_weights


def has_member(folder: Path, setup: Setup, member: Member) -> bool:
    """Whether there is a file of the member, damaged or not."""
    return (folder / member.file_name(setup)).exists()


def read_member(folder: Path, setup: Setup, member: Member) -> Content:
    """A member's content; raises DamagedStore naming the file that is missing, unreadable or altered."""
    path = folder / member.file_name(setup)
    content = load_weights(path)
    if load_metadata(path).get("sha256") != hash_tensors(content):
        raise DamagedStore(f"{path} was altered: run the audit again, and this member is trained again")
    return content


def keep_member(folder: Path, setup: Setup, member: Member, scratch: Path) -> None:
    """Train a member and write it, whole or not at all."""
    content = train_member(setup, member, scratch / member.file_name(setup))
    save_weights(folder / member.file_name(setup), content, {"sha256": hash_tensors(content), "member": member.label})


def damaged_members(folder: Path, setup: Setup, members: list[Member]) -> list[tuple[Member, DamagedStore]]:
    """Members whose file is there and can't be trusted, with the error that names it."""
    found = []
    for member in members:
        if has_member(folder, setup, member):
            try:
                read_member(folder, setup, member)
            except DamagedStore as error:
                found.append((member, error))
    return found


def missing_members(folder: Path, setup: Setup, members: list[Member]) -> list[Member]:
    """Members that have to be trained, after damaged files were removed; what a killed run left half-written goes."""
    sweep(folder)
    for member, _ in damaged_members(folder, setup, members):
        (folder / member.file_name(setup)).unlink()
    return [member for member in members if not has_member(folder, setup, member)]
