"""The largest resident memory of this process over a stretch of work, as the kernel counts it."""

from pathlib import Path


def forget_peak() -> None:
    """Let the kernel count the peak of resident memory from now on, where it can."""
    path = Path("/proc/self/clear_refs")
    if path.exists():
        path.write_text("5")


def peak_mb() -> float | None:
    """Largest resident memory since `forget_peak`, MB; None where the system doesn't tell."""
    path = Path("/proc/self/status")
    lines = path.read_text().splitlines() if path.exists() else []
    found = next((line.split()[1] for line in lines if line.startswith("VmHWM")), None)
    return None if found is None else int(found) / 1024
