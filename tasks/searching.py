"""The search for residues in object stores: every version of every object, fetched a few at a time."""

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from amnesiac.erasure import Marked, Needle, ScanReport, scan
from amnesiac.storage import Address, ObjectVersion, Storage, object_versions, version_content

AT_ONCE = 256 << 20
_NAMES = "names"


def search_objects(
    addresses: Sequence[Address], needles: Sequence[Needle], marked: Marked, scratch: Path
) -> tuple[ScanReport, ...]:
    """Search the names and the content of all objects below these addresses; a report an address.

    scratch: a folder for what is fetched, removed again; no more than AT_ONCE bytes, or one object, lie there at a time
    """
    return tuple(_search(address, needles, marked, scratch / "residues") for address in addresses)


def _search(address: Address, needles: Sequence[Needle], marked: Marked, folder: Path) -> ScanReport:
    found = [one for one in object_versions(address) if not one.marker]
    reports = []
    try:
        for part in _parts(found):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(mode=0o700, parents=True)
            shown = _fetch(address, part, folder)
            reports.append(_renamed(scan(needles, [folder], marked=marked), shown, address))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return _of_the_address(address, found, reports)


def _fetch(address: Address, versions: Sequence[ObjectVersion], folder: Path) -> dict[str, str]:
    """Objects as files with numbers for names, and their names as the content of one; by file, what it is."""
    (folder / _NAMES).write_text("\n".join(one.name for one in versions))
    shown = {str(folder / _NAMES): f"the names of objects below {address.url}"}
    for number, one in enumerate(versions):
        path = folder / f"{number}{Path(one.name).suffix if Path(one.name).suffix.isascii() else ''}"
        if one.current:
            Storage(address).fetch(one.name, path)
        else:
            path.write_bytes(version_content(address, one))
        shown[str(path)] = f"{address.url} (object {number} of {len(versions)}, version {one.id})"
    return shown


def _parts(found: Sequence[ObjectVersion]) -> Iterator[list[ObjectVersion]]:
    part, size = list[ObjectVersion](), 0
    for one in found:
        if part and size + one.bytes > AT_ONCE:
            yield part
            part, size = [], 0
        part.append(one)
        size += one.bytes
    if part:
        yield part


def _renamed(report: ScanReport, shown: dict[str, str], address: Address) -> ScanReport:
    """Files as what they were fetched from: an object's name may itself hold what is looked for."""
    hits = tuple(replace(hit, file=shown.get(hit.file, address.url)) for hit in report.hits)
    return replace(report, hits=hits, gaps=tuple(replace(g, file=shown.get(g.file, address.url)) for g in report.gaps))


def _of_the_address(address: Address, found: Sequence[ObjectVersion], reports: Sequence[ScanReport]) -> ScanReport:
    size = sum(one.bytes for one in found)
    return replace(joined(reports), places=(address.url,), files=len(found), bytes=size)


def joined(reports: Sequence[ScanReport]) -> ScanReport:
    """Several searches for the same things as one."""
    return ScanReport(
        places=tuple(place for report in reports for place in report.places),
        absent=tuple(place for report in reports for place in report.absent),
        files=sum(report.files for report in reports),
        bytes=sum(report.bytes for report in reports),
        unpacked=sum(report.unpacked for report in reports),
        things=max((report.things for report in reports), default=0),
        hits=tuple(hit for report in reports for hit in report.hits),
        gaps=tuple(gap for report in reports for gap in report.gaps),
    )
