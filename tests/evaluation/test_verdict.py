import pytest

from amnesiac.evaluation import judge


def measured(forget, retain, test, kl_forget, kl_test):
    return {
        "forget_accuracy": forget,
        "retain_accuracy": retain,
        "test_accuracy": test,
        "kl_forget": kl_forget,
        "kl_test": kl_test,
    }


def metrics(unlearned, forget=400, **others):
    """Class 3 of MNIST-5k as in the design notes, with the unlearned model to judge."""
    return {
        "original": measured(0.958, 0.970, 0.917, 4.84, 0.480),
        "unlearned": unlearned,
        "retrained": measured(0.0, 0.974, 0.839, 0.0, 0.0),
        "samples": {"forget": forget, "retain": 3600, "test": 1000},
        **others,
    }


def test_close_to_retraining():
    verdict = judge(metrics(measured(0.0, 0.971, 0.841, 0.066, 0.013)))
    assert verdict.level == "close"
    assert verdict.sentence == "The unlearned model behaves much like the retrained one."
    assert "accuracy on the test set is 84.1 %, retrained 83.9 %" in verdict.reasons
    assert len(verdict.reasons) == 5


def test_a_wrecked_model_is_called_far_with_the_reasons():
    """Plain subtraction: it forgets, and everything else with it."""
    verdict = judge(metrics(measured(0.0, 0.113, 0.097, 32.3, 39.7)))
    assert verdict.level == "far"
    assert verdict.sentence.startswith("The unlearned model is far from retraining")
    assert verdict.reasons[:2] == (
        "accuracy on the retain set is 11.3 %, retrained 97.4 %",
        "accuracy on the test set is 9.7 %, retrained 83.9 %",
    )
    assert verdict.reasons[2].endswith("32.3 nats, that of the original model 4.84: worse than doing nothing")


def test_doing_nothing_is_far():
    assert judge(metrics(measured(0.958, 0.970, 0.917, 4.84, 0.480))).level == "far"


def test_half_forgotten_is_partly():
    verdict = judge(metrics(measured(0.08, 0.971, 0.849, 1.38, 0.1)))
    assert verdict.level == "partly"
    assert verdict.reasons == (
        "accuracy on the forget set is 8.0 %, retrained 0.0 %",
        "KL from the retrained model on the forget set is 1.38 nats, that of the original model 4.84",
    )


@pytest.mark.parametrize(
    ("test_accuracy", "level"),
    [(0.859, "close"), (0.8595, "partly"), (0.819, "close"), (0.8885, "partly"), (0.890, "far")],
)
def test_the_limits_hold_to_both_sides(test_accuracy, level):
    """Better than retraining is as wrong as worse: 2 points are close, 5 are far."""
    assert judge(metrics(measured(0.0, 0.974, test_accuracy, 0.0, 0.0))).level == level


@pytest.mark.parametrize(("forget", "level"), [(400, "far"), (10, "close")])
def test_two_samples_of_a_small_forget_set_are_chance(forget, level):
    assert judge(metrics(measured(0.2, 0.974, 0.839, 0.0, 0.0), forget=forget)).level == level


def test_over_forgetting_counts_as_failure():
    values = metrics(measured(0.5, 0.97, 0.92, 0.01, 0.001))
    values["retrained"] = measured(0.85, 0.97, 0.92, 0.0, 0.0)
    assert judge(values).level == "far"


def test_a_kl_below_the_floor_is_close_even_if_above_the_originals():
    values = metrics(measured(0.0, 0.974, 0.839, 0.004, 0.012))
    values["original"] = measured(0.0, 0.974, 0.839, 0.003, 0.011)
    assert judge(values).level == "close"


def test_the_repaired_model_is_judged_on_its_own():
    values = metrics(measured(0.0, 0.113, 0.097, 32.3, 39.7), repaired=measured(0.0, 0.974, 0.839, 0.1, 0.01))
    assert (judge(values).level, judge(values, "repaired").level) == ("far", "close")
    assert judge(values, "repaired").sentence.startswith("The repaired model")


def test_nothing_to_forget():
    values = metrics(measured(None, 0.974, 0.839, None, 0.0), forget=0)
    verdict = judge(values)
    assert (verdict.level, verdict.reasons) == ("nothing", ())
    assert "the forget set is empty" in verdict.sentence
