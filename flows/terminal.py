"""Where the command line prints, and one JSON object for programs."""

import json
from collections.abc import Mapping
from typing import Any

from rich.console import Console

console = Console()


def print_json(value: Mapping[str, Any]) -> None:
    """One JSON object on stdout, without colours or wrapping."""
    print(json.dumps(value, indent=2))
