"""Errors that may name people are hidden from whoever keeps exceptions, and whole on the command line."""

import traceback

import pytest

from amnesiac.errors import DamagedRow, SettingsError, UnknownSample
from tasks.opaque import HiddenError, opaque, shown_whole

NAME = "-".join(["anna", "7"])  # not to be found in the source lines that a traceback shows


@opaque
def fail(error: Exception) -> None:
    """Fails."""
    raise error


def test_the_message_is_kept_from_prefect_and_printed_here(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(HiddenError) as hidden:
        fail(UnknownSample(f"doesn't hold sample {NAME}"))
    kept = "".join(traceback.format_exception(hidden.value)) + repr(vars(hidden.value))
    assert NAME not in kept
    assert "UnknownSample: the message may name samples" in kept
    assert f"doesn't hold sample {NAME}" in capsys.readouterr().err
    assert fail.__name__ == "fail"


def test_a_command_line_shows_it_whole_and_once(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(DamagedRow, match="anna-7"), shown_whole():
        fail(DamagedRow("rows of 'anna-7'"))
    assert capsys.readouterr().err == ""


def test_an_error_that_came_by_way_of_prefect_is_found_by_its_number() -> None:
    with pytest.raises(UnknownSample, match="anna-7"), shown_whole():
        try:
            fail(UnknownSample("anna-7"))
        except HiddenError as error:
            raise HiddenError(f"Flow run encountered an exception: {error}") from None


@pytest.mark.parametrize("error", [SettingsError("seed: not a number"), ValueError("anything else")])
def test_other_errors_pass(error: Exception) -> None:
    with pytest.raises(type(error), match=str(error)), shown_whole():
        fail(error)
