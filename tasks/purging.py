"""Purging what DVC keeps of superseded outputs: in its cache, and in its remotes.

DVC keeps every version of every output it has seen. `dvc gc --workspace` removes all but what dvc.lock names now, for
every stage: older commits can't be checked out afterwards. Call it once `dvc commit` has recorded the new outputs.
"""

import functools
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from amnesiac.errors import PurgeRefused
from tasks.versioning import run_dvc

_REMOVED = re.compile(r"Removed (\d+) objects from remote")


@dataclass(frozen=True)
class Collected:
    """What went from one place ("dvc cache", "dvc remote NAME").

    objects  files of data and lists of folders
    bytes    None for a remote in a cloud, of which DVC only tells the number
    left     the objects that are still there; None where it isn't known
    """

    place: str
    objects: int
    bytes: int | None
    left: int | None


def purge_dvc(project: Path, *, sharing: Collection[Path] = (), patience: float = 60.0) -> tuple[Collected, ...]:
    """Remove from DVC's cache, and from all its remotes, what the workspace's dvc.lock doesn't name.

    `sharing` are other projects that use the same cache or remotes: what they name stays. Raises PurgeRefused where the
    cache lies outside of the project and none are given; VersioningError in DVC's words, also for a remote
    that can't be reached (what went from other places is gone then; run it again).
    """
    cache, remotes = cache_folder(project, patience), _remotes(project, patience)
    if not sharing and not cache.is_relative_to(project.resolve()):
        raise PurgeRefused(
            f"the DVC cache {cache} lies outside of {project}, so other projects may need what is in it: name them in "
            "`sharing` (an empty project folder, if there are none)"
        )
    keep = ["--projects", *map(str, sharing)] if sharing else []
    collected = [_collect(project, "dvc cache", str(cache), keep, patience)]
    for name, url in remotes.items():
        options = ["--cloud", "--remote", name, *keep]
        collected.append(_collect(project, f"dvc remote {name}", url, options, patience))
    return tuple(collected)


def cache_folder(project: Path, patience: float = 10.0) -> Path:
    """DVC's cache of a project."""
    return (project / run_dvc(project, patience, "cache", "dir").strip()).resolve()


def local_remotes(project: Path, patience: float = 10.0) -> list[Path]:
    """Folders of the remotes that lie on this machine."""
    return [Path(url) for url in _remotes(project, patience).values() if "://" not in url]


def s3_remotes(project: Path, patience: float = 10.0) -> dict[str, tuple[str, str | None]]:
    """Remotes in an object store: URL, and DVC's own setting of the server, by name."""
    settings = _settings(project, patience)
    found = {name: url for name, url in _addresses(project, settings).items() if url.startswith("s3://")}
    return {name: (url, settings.get(f"remote.{name}.endpointurl")) for name, url in found.items()}


def cached_objects(folder: Path) -> dict[str, int]:
    """Every object of a cache or local remote by its hash, with its bytes. Names of folder lists end in `.dir`."""
    found = {}
    for path in (folder / "files" / "md5").glob("[0-9a-f][0-9a-f]/*"):
        found[path.parent.name + path.name] = path.stat().st_size
    return found


def object_paths(folder: Path, hashes: Collection[str]) -> list[Path]:
    """Where objects lie in a cache or local remote, for `amnesiac.erasure.Purge`."""
    return [folder / "files" / "md5" / name[:2] / name[2:] for name in sorted(hashes)]


def _collect(project: Path, place: str, where: str, options: Sequence[str], patience: float) -> Collected:
    local = Path(where) if Path(where).is_absolute() else None
    before = cached_objects(local) if local else {}
    said = run_dvc(project, patience, "gc", "--workspace", "--force", *options)
    if local is None:
        return Collected(place, sum(map(int, _REMOVED.findall(said))), None, None)
    after = cached_objects(local)
    gone = before.keys() - after.keys()
    return Collected(place, len(gone), sum(before[name] for name in gone), len(after))


def _remotes(project: Path, patience: float) -> Mapping[str, str]:
    return _addresses(project, _settings(project, patience))


def _addresses(project: Path, settings: Mapping[str, str]) -> Mapping[str, str]:
    """Addresses by name, local ones absolute. (`dvc remote list` breaks long lines.)"""
    found = {}
    for key, value in settings.items():
        if key.startswith("remote.") and key.endswith(".url"):
            local = "://" not in value  # and relative to DVC's folder, if it is relative
            found[key[len("remote.") : -len(".url")]] = str((project / ".dvc" / value).resolve()) if local else value
    return found


def _settings(project: Path, patience: float) -> Mapping[str, str]:
    files = [project / ".dvc" / name for name in ("config", "config.local")]
    return _listed(project, patience, tuple(file.read_bytes() if file.exists() else None for file in files))


@functools.lru_cache(maxsize=8)
def _listed(project: Path, patience: float, written: tuple[bytes | None, ...]) -> Mapping[str, str]:
    """DVC's settings; asked again only once its files have changed: a call takes seconds."""
    lines = run_dvc(project, patience, "config", "--list").splitlines()
    return {key: value for key, _, value in (line.partition("=") for line in lines)}
