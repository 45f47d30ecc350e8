"""The layers: what may import what, seen from the outside (import-linter proves the rest in `make lint`)."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CORE = sorted((ROOT / "amnesiac").rglob("*.py"))
# A table of contents: flows name tasks and other flows, and nothing that computes or reads
FLOWS = sorted(
    path
    for path in (ROOT / "flows").glob("*.py")
    if path.name
    not in {
        "__init__.py",
        "audit_cli.py",
        "bench.py",
        "bench_audit.py",
        "bench_compare.py",
        "bench_figures.py",
        "cli.py",
        "console.py",
        "deployed.py",
        "deploying.py",
        "deployments.py",
        "operations.py",
        "journal_cli.py",
        "receipts_cli.py",
        "session.py",
        "size_cli.py",
        "standing.py",
        "terminal.py",
        "trial_cli.py",
        "workers_cli.py",
    }  # fmt: skip
)
OF_A_FLOW = {"prefect", "tasks", "flows", "typing", "collections"}
IMPORT_ALL = """
import importlib, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
print(*sorted({"prefect", "dvc", "typer", "rich"} & set(sys.modules)))
"""


def imported(tree: ast.AST) -> Iterator[str]:
    """The names of all modules that are imported anywhere in a file, also inside functions."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or "."


def importers(of: set[str], files: list[Path]) -> set[str]:
    """Which of the files import one of these packages."""
    found = {}
    for path in files:
        found[path] = {name.partition(".")[0] for name in imported(ast.parse(path.read_text()))}
    return {str(path.relative_to(ROOT)) for path, names in found.items() if names & of}


def test_the_whole_core_imports_without_the_orchestration() -> None:
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in CORE]
    assert len(names) > 50
    command = [sys.executable, "-c", IMPORT_ALL, *names]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == []


def test_one_module_knows_how_rows_lie_on_disk() -> None:
    files = [*CORE, *(ROOT / "tasks").glob("*.py"), *(ROOT / "flows").glob("*.py")]
    assert importers({"zarr", "tensorstore"}, files) == {"amnesiac/rowstore.py", "amnesiac/tables.py"}


def test_only_the_lower_layers_are_imported() -> None:
    assert importers({"tasks", "flows"}, CORE) == set()
    assert importers({"flows"}, sorted((ROOT / "tasks").glob("*.py"))) == set()


def test_the_command_line_starts_without_the_heavy_imports() -> None:
    """`amnesiac --help` and shell completion must not wait for torch."""
    program = "import sys, flows.cli; print(*sorted({'torch', 'prefect', 'pandas', 'zarr'} & set(sys.modules)))"
    command = [sys.executable, "-c", program]
    assert subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split() == []


def test_requests_and_receipts_are_read_and_filed_without_torch() -> None:
    """Who only files a request, or checks a receipt, doesn't wait 2.5 s for it."""
    program = "import sys, amnesiac.requests, amnesiac.receipts; print('torch' in sys.modules)"
    command = [sys.executable, "-c", program]
    assert subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split() == ["False"]


@pytest.mark.parametrize("path", FLOWS, ids=lambda path: path.name)
def test_a_flow_file_is_a_table_of_contents(path: Path) -> None:
    tree = ast.parse(path.read_text())
    assert {name.partition(".")[0] for name in imported(tree)} <= OF_A_FLOW
    calls = [node.func for node in ast.walk(tree) if isinstance(node, ast.Call)]
    assert not {func.id for func in calls if isinstance(func, ast.Name)} & {"open", "Path", "print", "exec", "eval"}
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)], "it would exist twice"
    sums = [node for node in ast.walk(tree) if isinstance(node, ast.BinOp) and not isinstance(node.op, ast.BitOr)]
    assert not sums, f"arithmetic or path arithmetic in line {sums[0].lineno}"


def test_every_flow_is_looked_at() -> None:
    decorated = {
        path.name
        for path in (ROOT / "flows").glob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef) and any("flow" in ast.unparse(d) for d in node.decorator_list)
    }
    assert decorated == {path.name for path in FLOWS}
    assert len(FLOWS) == 9
