"""A small convolutional network with two pooled convolutions and two linear layers."""

from torch import nn

from amnesiac.models.pooling import MaxPool2


def cnn(input_shape: tuple[int, int, int], num_classes: int) -> nn.Module:
    """Convolutions of 16 (5x5) and 32 (3x3) channels, each pooled by 2, then 64 hidden units; ReLU.

    Maps `[n, c, h, w]` (h, w >= 4) to logits `[n, num_classes]`; 106,122 parameters on 1x28x28, 10 classes.
    """
    channels, height, width = input_shape
    return nn.Sequential(
        nn.Conv2d(channels, 16, 5, padding=2),
        nn.ReLU(),
        MaxPool2(),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.ReLU(),
        MaxPool2(),
        nn.Flatten(),
        nn.Linear(32 * (height // 4) * (width // 4), 64),
        nn.ReLU(),
        nn.Linear(64, num_classes),
    )
