"""Every rule of `Samples` is checked, and its message names source, row and remedy."""

from dataclasses import replace

import numpy as np
import pytest

from amnesiac.data import Samples, check_samples
from amnesiac.errors import DataError


def with_label(samples: Samples, row: int, label: object, dtype: object = np.int64) -> Samples:
    labels = samples.labels.astype(dtype)
    labels[row] = label
    return replace(samples, labels=labels)


def with_id(samples: Samples, row: int, name: str, field: str = "sample_ids") -> Samples:
    ids = list(getattr(samples, field))
    ids[row] = name
    return replace(samples, **{field: tuple(ids)})


def test_real_digits_pass(digits: Samples) -> None:
    check_samples(digits)
    assert len(digits) == 60


def test_duplicate_id_names_both_rows(digits: Samples) -> None:
    with pytest.raises(DataError, match=r"row 7: sample id 'mnist-5k-00000' .* mnist-5k: row 0: .* id of its own"):
        check_samples(with_id(digits, 7, digits.sample_ids[0]))


@pytest.mark.parametrize("bad", ["", "a b", "ä", "x" * 65, "line\n", "a/b", "=cmd()"])
@pytest.mark.parametrize(("field", "what"), [("sample_ids", "sample id"), ("subject_ids", "subject id")])
def test_malformed_id(digits: Samples, field: str, what: str, bad: str) -> None:
    with pytest.raises(DataError, match=rf"mnist-5k: row 3: {what} .* must be 1 to 64 of .*: rename it"):
        check_samples(with_id(digits, 3, bad, field))


def test_longest_id_passes(digits: Samples) -> None:
    check_samples(with_id(digits, 3, "A" * 60 + "_.:-"))


@pytest.mark.parametrize("label", [-1, 10])
def test_label_out_of_range(digits: Samples, label: int) -> None:
    with pytest.raises(DataError, match=rf"row 5: label {label} is out of range 0 to 9 \(10 classes\): correct"):
        check_samples(with_label(digits, 5, label))


def test_nan_label(digits: Samples) -> None:
    with pytest.raises(DataError, match=r"row 5: the label is missing \(NaN\): give it one, or remove the row"):
        check_samples(with_label(digits, 5, np.nan, np.float64))


def test_fractional_label(digits: Samples) -> None:
    with pytest.raises(DataError, match=r"row 5: label 1.5 isn't a whole number"):
        check_samples(with_label(digits, 5, 1.5, np.float64))


def test_empty_class(digits: Samples) -> None:
    labels = np.where(digits.labels == 3, 4, digits.labels)
    with pytest.raises(DataError, match=r"mnist-5k: no training sample of class '3' \(label 3\): add samples"):
        check_samples(replace(digits, labels=labels))


def test_class_only_in_the_test_split_is_empty(digits: Samples) -> None:
    with pytest.raises(DataError, match="no training sample of class '8'"):
        check_samples(replace(digits, test=digits.labels == 8))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite(digits: Samples, bad: float) -> None:
    images = digits.images.astype(np.float32)
    images[11, 0, 2, 3] = bad
    with pytest.raises(DataError, match=r"mnist-5k: row 11: .*aren't finite.*: mend the image, or remove the row"):
        check_samples(replace(digits, images=images))


@pytest.mark.parametrize("field", ["labels", "sample_ids", "subject_ids"])
def test_lengths_differ(digits: Samples, field: str) -> None:
    with pytest.raises(DataError, match=r"mnist-5k: 60 images but 59 .*: give one for each image"):
        check_samples(replace(digits, **{field: getattr(digits, field)[:-1]}))


def test_test_flags_differ_in_length(digits: Samples) -> None:
    with pytest.raises(DataError, match="60 images but 2 test flags"):
        check_samples(replace(digits, test=np.zeros(2, bool)))


def test_images_of_a_wrong_shape_or_type(digits: Samples) -> None:
    for images in (digits.images[:, 0], digits.images.astype(np.int32)):
        with pytest.raises(DataError, match=r"images are .*: give uint8 or float32 \[n, c, h, w\]"):
            check_samples(replace(digits, images=images))


def test_class_names_used_twice(digits: Samples) -> None:
    with pytest.raises(DataError, match=r"class names \['1'\] are used twice"):
        check_samples(replace(digits, class_names=("0", "1", "1", *"3456789")))


def test_nothing_at_all(digits: Samples) -> None:
    empty = Samples(digits.images[:0], digits.labels[:0], (), (), digits.class_names, "nowhere")
    with pytest.raises(DataError, match="nowhere: holds no samples: name a source"):
        check_samples(empty)


def test_types_that_would_be_misread(digits: Samples) -> None:
    with pytest.raises(DataError, match="mnist-5k: labels are float64: convert them to int64"):
        check_samples(replace(digits, labels=digits.labels.astype(float)))
    with pytest.raises(DataError, match="row 0: labels of type <U21 aren't numbers: save them as int64"):
        check_samples(replace(digits, labels=digits.labels.astype(str)))
    with pytest.raises(DataError, match="mnist-5k: the test flags are int64: convert them to bool"):
        check_samples(replace(digits, test=np.zeros(60, np.int64)))


def test_blank_class_name(digits: Samples) -> None:
    with pytest.raises(DataError, match=r"class names \[' ', .* must be given and not blank"):
        check_samples(replace(digits, class_names=(" ", *"123456789")))
