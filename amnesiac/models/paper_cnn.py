"""The small CNN of the 2024 paper on per-sample amnesiac unlearning (Marincione)."""

from torch import nn


def paper_cnn(input_shape: tuple[int, int, int], num_classes: int, padding: int = 0) -> nn.Module:
    """Two 3x3 convolutions of 100 channels with stride 2, LeakyReLU 0.1, max-pooled to 2x2, one linear layer.

    Maps `[n, c, h, w]` (h, w >= 7 without padding) to logits `[n, num_classes]`. There are as many parameters
    as the paper states: 95,110 on MNIST (1x28x28, 10 classes), 133,000 on CIFAR-100 (3x32x32, 100 classes).
    Its padding isn't stated and doesn't change that number; torch's default of 0 is taken.
    """
    return nn.Sequential(
        nn.Conv2d(input_shape[0], 100, 3, stride=2, padding=padding),
        nn.LeakyReLU(0.1),
        nn.Conv2d(100, 100, 3, stride=2, padding=padding),
        nn.LeakyReLU(0.1),
        nn.AdaptiveMaxPool2d(2),
        nn.Flatten(),
        nn.Linear(400, num_classes),
    )
