import pytest
import torch

from amnesiac.errors import InputError
from amnesiac.evaluation import accuracy, per_class_accuracy

LOGITS = torch.tensor([[2.0, 1.0, 0.0], [0.0, 3.0, 1.0], [0.0, 0.0, 5.0], [4.0, 0.0, 1.0]])


def test_accuracy_counts_the_largest_logit():
    assert accuracy(LOGITS, torch.tensor([0, 1, 2, 0])) == 1.0
    assert accuracy(LOGITS, torch.tensor([0, 0, 2, 2])) == 0.5


def test_accuracy_of_nothing_is_refused():
    with pytest.raises(InputError, match="no samples"):
        accuracy(LOGITS[:0], torch.tensor([], dtype=torch.int64))


def test_per_class_accuracy_is_none_where_a_class_has_no_sample():
    assert per_class_accuracy(LOGITS, torch.tensor([0, 0, 2, 0]), 5) == [2 / 3, None, 1.0, None, None]
    assert per_class_accuracy(LOGITS[:0], torch.tensor([], dtype=torch.int64), 2) == [None, None]
