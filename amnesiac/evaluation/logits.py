"""A model's logits on a whole set of samples."""

import torch
from torch import nn

from amnesiac.models.modes import evaluating


def predict(model: nn.Module, inputs: torch.Tensor, batch_size: int = 1024) -> torch.Tensor:
    """Logits float32 `[n, classes]`, on the CPU, of `inputs` `[n, c, h, w]`; `n` may be 0.

    In evaluation mode and without gradients; afterwards every module has its former training mode.
    Batches go to the device of the model's parameters.
    """
    device = next((p.device for p in model.parameters()), inputs.device)
    # No samples: one of zeros tells the number of classes.
    batches = torch.split(inputs, batch_size) if len(inputs) else [inputs.new_zeros(1, *inputs.shape[1:])]
    with torch.inference_mode(), evaluating(model):
        logits = [model(batch.to(device)).float().cpu() for batch in batches]
    # Outside inference mode, so that the result is an ordinary tensor.
    return torch.cat(logits)[: len(inputs)]
