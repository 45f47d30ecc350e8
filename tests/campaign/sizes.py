"""How much of an experiment the normal suite does, and how much the campaign."""

import os

import pytest

KILLS = int(os.environ.get("AMNESIAC_CAMPAIGN_KILLS", "100"))


def sizes(short, full):
    """`size` is `short` in the normal suite, `full` in the campaign."""
    marks = pytest.mark.campaign
    return pytest.mark.parametrize(
        "size", [pytest.param(short, id="short"), pytest.param(full, id="full", marks=marks)]
    )
