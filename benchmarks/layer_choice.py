"""What capturing only the last layer keeps of a deletion (`capture.layers`), and what it saves.

    python -m benchmarks.layer_choice [--seeds 0 1 2]      # writes benchmarks/results/layers.json

Claim:     none; docs/sizing.md shows the figures.
Procedure: MNIST-5k, MLP under momentum as in the forgetting benchmark; train with all layers captured and with the last
           one, delete 1 %, 10 % and class 3 from each, without and with a quarter epoch of repair, and compare with
           retraining (and with doing nothing, and with retraining under another seed).
Rows:      case, seed, variant, kl_forget, kl_test (of the retrained model to the variant, nats), accuracies (forget,
           retain, test), parameters (captured), bytes_per_sample (both rows of a sample).
Hardware, versions: in the result's `environment`.
"""

import argparse
import json
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch

from amnesiac.durable import write_json
from amnesiac.evaluation import accuracy, kl, predict
from amnesiac.ledger import open_ledger
from amnesiac.settings import RepairSettings
from amnesiac.training import repair, retrain_without, train_with_capture
from amnesiac.unlearning import unlearn
from benchmarks.forgetting import Options, environment
from benchmarks.forgetting_baselines import bytes_per_sample
from benchmarks.forgetting_cases import ONE, PROFILES, TEN, Config, Job, draw
from benchmarks.forgetting_run import SETTLED, Row, Weights
from benchmarks.forgetting_start import Start, begin
from benchmarks.row_formats import three_sets

RESULT = Path(__file__).parent / "results" / "layers.json"
CASES = (ONE, TEN, "class 3")
CHOICES = {"all layers": None, "last layer": 1}
REPAIR = RepairSettings(epochs=0.25)
OTHER_SEED = 1000


def config() -> Config:
    """MLP under momentum."""
    return next(one for one in PROFILES["quick"].configs if one.name == "mlp-momentum")


def run_seed(one: Config, seed: int, cases: tuple[str, ...] = CASES) -> Iterator[Row]:
    """All rows of a seed."""
    references: dict[str, Weights] = {}
    for name, choice in CHOICES.items():
        capture = one.capture.model_copy(update={"layers": choice})
        with tempfile.TemporaryDirectory(prefix="layers-") as folder:
            start = begin(Job(replace(one, capture=capture), seed, cases), Path(folder))
            torch.set_num_threads(one.training.threads)
            result, manifest = train_with_capture(start.spec, start.factory, start.train, start.plan)
            ledger = open_ledger(start.plan.destination, run_id=manifest.run_id)
            facts = {
                "parameters": sum(torch.Size(shape).numel() for _, shape in manifest.parameters),
                "bytes_per_sample": bytes_per_sample(ledger, list(manifest.entries), len(start.train)),
            }
            for case in cases:
                forget = sorted(draw(case, start.truth, seed))
                if not references.get(case):
                    references[case] = retrain_without(start.spec, start.factory, start.train, forget).weights
                    other = replace(start.spec, seed=start.spec.seed + OTHER_SEED)
                    again = retrain_without(other, start.factory, start.train, forget).weights
                    for variant, weights in (("nothing done", result.weights), ("another seed", again)):
                        yield _row(start, case, seed, variant, weights, references[case], forget)
                done = unlearn(SETTLED, ledger, result.weights, forget).weights
                yield _row(start, case, seed, name, done, references[case], forget) | facts
                mended = repair(start.spec, start.factory, done, start.train, forget, REPAIR).weights
                yield _row(start, case, seed, f"{name}, repaired", mended, references[case], forget) | facts


def _row(
    start: Start, case: str, seed: int, variant: str, weights: Weights, reference: Weights, forget: list[int]
) -> Row:
    sets = three_sets(start, forget)
    model, logits = start.factory(), {}
    for of, state in (("reference", reference), ("own", weights)):
        model.load_state_dict(dict(state))
        logits[of] = {name: predict(model, inputs) for name, (inputs, _) in sets.items()}
    found: Row = {"case": case, "seed": seed, "variant": variant}
    found |= {f"{name}_accuracy": accuracy(logits["own"][name], labels) for name, (_, labels) in sets.items()}
    return found | {f"kl_{name}": kl(logits["reference"][name], logits["own"][name]) for name in ("forget", "test")}


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    seeds = parser.parse_args().seeds
    rows = [row for seed in seeds for row in run_seed(config(), seed)]
    write_json(RESULT, {"rows": rows, "environment": environment(Options((), tuple(seeds), None, None, 1))})
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
