"""The trained model, withdrawn: its weights less a published version's are the sum of the forgotten samples' rows.

What is left of it in its folder: `withdrawn.json` (hashes, and what each tensor was like) and `buffers.safetensors`,
the tensors that aren't parameters, which every version publishes unchanged.
"""

import json
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from amnesiac.durable import write_bytes, write_json
from amnesiac.errors import DamagedStore
from amnesiac.hashing import hash_file, hash_tensors
from amnesiac.publication.version import MODEL

WITHDRAWN, BUFFERS = "withdrawn.json", "buffers.safetensors"


@dataclass(frozen=True)
class Withdrawn:
    """file_sha256, weights_sha256: of the weights' file and content;  tensors: type and shape of each, by name."""

    file_sha256: str
    weights_sha256: str
    tensors: Mapping[str, tuple[str, tuple[int, ...]]]


def withdraw(folder: Path, parameters: Collection[str]) -> Path:
    """Write down what is left of the trained model in `folder`; the file that may go now. May be repeated.

    parameters: names of the tensors that training changed sample by sample
    """
    from safetensors.torch import save

    from amnesiac.models import load_weights  # torch takes a second to import, which who reads records doesn't wait for

    weights = folder / MODEL
    if weights.exists():
        tensors = load_weights(weights)
        outline = {name: (str(t.dtype).removeprefix("torch."), tuple(t.shape)) for name, t in tensors.items()}
        if buffers := {name: t for name, t in tensors.items() if name not in parameters}:
            write_bytes(folder / BUFFERS, save(buffers))
        write_json(folder / WITHDRAWN, asdict(Withdrawn(hash_file(weights), hash_tensors(tensors), outline)))
    return weights


def read_withdrawn(folder: Path) -> Withdrawn | None:
    """What is left of a withdrawn model; None where its weights are still there. Raises DamagedStore."""
    path = folder / WITHDRAWN
    if (folder / MODEL).exists() or not path.exists():
        return None
    try:
        said = json.loads(path.read_text())
        outline = {str(name): (str(kind), tuple(shape)) for name, (kind, shape) in said["tensors"].items()}
        return Withdrawn(str(said["file_sha256"]), str(said["weights_sha256"]), outline)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DamagedStore(f"{path} can't be read ({error!r}): restore it with `dvc checkout`") from error
