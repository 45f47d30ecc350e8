"""The grid of published weights."""

import torch
from torch import nn

from amnesiac.settings import CaptureSettings, CurvatureSettings

N = 26


def test_published_weights_are_on_the_grid(small_run, small_data, tmp_path):
    """Those that training hardly moves, too: weights of a pixel that is always dark, far below 2^-16."""

    def build():
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = nn.Sequential(nn.Flatten(), nn.Linear(36, 3))
        model[1].weight.data[:, 0] = 1e-7 / 3
        return model

    data = small_data(N)
    data.inputs[:, :, 0, 0] = 0.0
    for methods, on_grid in ((("settled",), True), (("per-sample-delta",), False)):
        capture = CaptureSettings(methods=methods, curvature=CurvatureSettings(smallest_sample=20))
        run = small_run(tmp_path / methods[0], build, data, capture, epochs=2)
        scaled = run.weights["1.weight"].double() * 2.0**40
        assert torch.equal(scaled, scaled.round()) == on_grid
        assert float((run.weights["1.weight"][:, 0] - 1e-7 / 3).abs().max()) < 2.0**-40
