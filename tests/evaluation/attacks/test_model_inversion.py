import pytest
import torch
from torch import nn

from amnesiac.errors import InputError
from amnesiac.evaluation.attacks import InversionSearch, class_resemblance, invert_class

SHAPE = (1, 6, 6)


def patterns():
    """A picture a class: one bright square in another corner."""
    found = torch.zeros(3, *SHAPE)
    found[0, :, :3, :3] = found[1, :, 3:, 3:] = found[2, :, :3, 3:] = 1.0
    return found


def knowing(known):
    """A linear model with the matched filters of some classes; of the others it knows nothing."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(36, 3))
    filters = patterns().flatten(1)
    filters = filters - filters.mean(1, keepdim=True)
    with torch.no_grad():
        model[1].bias.zero_()
        model[1].weight.zero_()
        model[1].weight[known] = filters[known]
    return model


def test_draws_what_the_model_knows_of_a_class():
    model = knowing([0, 1, 2]).train()
    for label in range(3):
        found = invert_class(model, label, SHAPE, InversionSearch(steps=60, lr=0.3))
        alike = [class_resemblance(found.image, patterns()[k : k + 1]) for k in range(3)]
        assert alike[label] > 0.6 and alike[label] == max(alike) and found.confidence > 0.9
        assert found.image.shape == SHAPE and 0 <= float(found.image.min()) <= float(found.image.max()) <= 1
    assert model.training and all(p.grad is None for p in model.parameters())


def test_a_forgotten_class_has_no_picture_of_its_own():
    own = patterns()[:1]
    known, gone = (invert_class(knowing(k), 0, SHAPE, InversionSearch(steps=60)) for k in ([0, 1, 2], [1, 2]))
    assert class_resemblance(gone.image, own) < class_resemblance(known.image, own) - 0.1
    assert gone.confidence < known.confidence


def test_resemblance_by_hand():
    image = torch.tensor([[[0.0, 1.0], [0.0, 1.0]]])
    assert class_resemblance(image, torch.stack([3 * image, image])) == pytest.approx(1.0)
    assert class_resemblance(image, 1 - image[None]) == pytest.approx(-1.0)
    assert class_resemblance(torch.ones(1, 2, 2), image[None]) == 0.0


def test_unknown_classes_and_no_samples_are_refused():
    with pytest.raises(InputError, match="no class 3: the model knows classes 0 to 2"):
        invert_class(knowing([0]), 3, SHAPE)
    with pytest.raises(InputError, match="no sample to compare with"):
        class_resemblance(torch.ones(SHAPE), torch.empty(0, *SHAPE))
