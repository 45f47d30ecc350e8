"""MNIST, the 2024 paper's small CNN, class 3 forgotten with every method: the paper's Table 1 beside ours.

    make table1          or        python benchmarks/table1.py [--json FILE]

Claim:     what each published deletion leaves, measured here against a model really retrained: forgotten / rest
           accuracy as the paper counts them, KL on the forget set and the test set, bytes a sample, CPU seconds.
Settings:  paper  100 threes in the training set, as in the paper's notebooks; repaired for 1/4, 1 and 4 epochs (its 4)
           full   all of MNIST, 6,131 threes of 60,000; repaired for 1/4 and 1 epoch
Training:  4 epochs, Adam 0.001, mini-batches of 64, pixels scaled to 0..1, no augmentation, one thread. Deltas are the
           right sample's; the paper's code pairs others with it.
Hardware, versions, n: printed with the tables and kept in --json. docs/table1.md: AMD EPYC, 2 virtual cores, 1 thread;
           Python 3.11.7, torch 2.14.1; n = 1 (seed 0) for each setting; 42 CPU minutes.
Disk:      6 GB (paper) and 16 GB (full) in --work for a while; checked first, removed afterwards.
"""

import argparse
import os
import platform
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from table1_experiment import Setting, make_job, run
from table1_report import tables

from amnesiac.data import Samples, load_samples
from amnesiac.data.samples import Rows
from amnesiac.data.splits import split_rows
from amnesiac.durable import write_json
from amnesiac.errors import AmnesiacError
from amnesiac.ledger.manifest import library_versions
from amnesiac.settings import DataSettings, OptimizerSettings, TrainingSettings

ROOT = Path(__file__).resolve().parents[1]
SETTINGS = {
    "paper": Setting("paper", "100 samples of the class in the training set, as in the paper", 100, (0.25, 1.0, 4.0)),
    "full": Setting("full", "all training samples of the class", None, (0.25, 1.0)),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run and print; 0, or 2 where the input is wrong."""
    args = parse(arguments)
    torch.set_num_threads(args.threads)
    try:
        return measure(args)
    except AmnesiacError as error:
        print(f"table1: {error}", file=sys.stderr)
        return 2


def measure(args: argparse.Namespace) -> int:
    """Every setting with every seed; prints a setting's tables, and writes --json, as soon as they are there."""
    content: dict[str, Any] = {"environment": environment(args), "command": command(args), "settings": {}}
    print(f"{content['command']}\n\n{describe(content['environment'])}\n", flush=True)
    samples, splits = load(args)
    for setting in chosen_settings(args):
        runs: list[dict[str, Any]] = []
        for seed in args.seeds:
            log = clock(f"{setting.name}, seed {seed}")
            job = make_job(samples, splits, setting, seed, training(args), args.forget_class, args.work, log)
            runs.append(run(job))
            content["settings"][setting.name] = {"summary": setting.summary, "runs": runs}
            if args.json:
                write_json(args.json, content)
        print(tables(setting.name, setting.summary, runs, published=is_papers(args, setting)), flush=True)
    return 0


def load(args: argparse.Namespace) -> tuple[Samples, dict[str, Rows]]:
    """The samples and their splits: MNIST's own, or for the embedded 5,000 digits one drawn by the first seed."""
    data = DataSettings(source=args.data, limit=args.limit)
    samples = load_samples(data, args.data_root, args.seeds[0])
    return samples, split_rows(samples, data, args.seeds[0])


def training(args: argparse.Namespace) -> TrainingSettings:
    """The paper's training, unless the options say otherwise."""
    rate = args.lr or {"adam": 0.001, "sgd": 0.05}[args.optimizer]
    optimizer = OptimizerSettings(name=args.optimizer, lr=rate)
    return TrainingSettings(epochs=args.epochs, batch_size=args.batch_size, optimizer=optimizer, threads=args.threads)


def chosen_settings(args: argparse.Namespace) -> list[Setting]:
    """Those that were asked for, with the repairs that were asked for."""
    chosen = [SETTINGS[name] for name in args.settings]
    if args.repair is None:
        return chosen
    return [Setting(s.name, s.summary, s.class_samples, tuple(args.repair)) for s in chosen]


def is_papers(args: argparse.Namespace, setting: Setting) -> bool:
    """Whether the paper's numbers may stand beside ours: its data, class, optimiser and length of training."""
    own = (args.data, args.forget_class, args.optimizer, args.epochs, args.batch_size, args.limit)
    return setting.name == "paper" and own == ("mnist", 3, "adam", 4, 64, None)


def environment(args: argparse.Namespace) -> dict[str, Any]:
    """Hardware and versions."""
    model = next((line for line in _cpu_lines() if line.startswith("model name")), f"model name: {platform.machine()}")
    return {"cpu": model.partition(":")[2].strip(), "cores": os.cpu_count(), "threads": args.threads} | {
        "platform": platform.platform(),
        "versions": library_versions(),
    }


def describe(environment: dict[str, Any]) -> str:
    """One line for people."""
    versions = ", ".join(f"{name} {number}" for name, number in environment["versions"].items())
    return f"{environment['cpu']}, {environment['cores']} cores, {environment['threads']} thread(s); {versions}"


def command(args: argparse.Namespace) -> str:
    """What was run, with every option spelt out."""
    options = {k: v for k, v in vars(args).items() if v is not None and k not in ("work", "json", "data_root")}
    words = [
        f"--{name.replace('_', '-')} {' '.join(map(str, value)) if isinstance(value, list) else value}"
        for name, value in options.items()
    ]
    return f"python benchmarks/table1.py {' '.join(words)}"


def clock(label: str) -> Any:
    """A log to stderr with the seconds since it was made."""
    started = time.perf_counter()
    return lambda text: print(f"[{time.perf_counter() - started:7.1f} s] {label}: {text}", file=sys.stderr, flush=True)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--settings", nargs="+", choices=list(SETTINGS), default=list(SETTINGS))
    add("--data", choices=["mnist", "mnist-5k"], default="mnist", help="mnist-5k: embedded, for a quick look")
    add("--forget-class", type=int, default=3)
    add("--epochs", type=int, default=4)
    add("--optimizer", choices=["adam", "sgd"], default="adam")
    add("--lr", type=float, help="default: adam 0.001, sgd 0.05")
    add("--batch-size", type=int, default=64)
    add("--repair", type=float, nargs="*", help="epochs on retained data, e.g. --repair 0.25 1; nothing: none")
    add("--seeds", type=int, nargs="+", default=[0])
    add("--limit", type=int, help="keep this many training and test samples (class-balanced), for a quick look")
    add("--threads", type=int, default=1)
    add("--work", type=Path, help="folder for spool and ledgers (default: the system's temporary folder)")
    add("--json", type=Path, help="write all numbers there")
    add("--data-root", type=Path, default=_data_root(), help="default: AMNESIAC_DATA_ROOT, else ../shared/datasets")
    return parser.parse_args(arguments)


def _data_root() -> Path | None:
    shared = ROOT.parent / "shared" / "datasets"
    named = os.environ.get("AMNESIAC_DATA_ROOT")
    return Path(named) if named else shared if shared.is_dir() else None


def _cpu_lines() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []


if __name__ == "__main__":
    sys.exit(main())
