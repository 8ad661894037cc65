"""Plans, keys, fingerprints, verdicts and submissions are those of tests/golden.json."""

import json
import sys

import pytest
from conftest import REPOSITORY

sys.path.insert(0, str(REPOSITORY / "tools"))
import golden


def test_what_a_checkout_says_of_itself_is_unchanged():
    same, different = golden.compare(golden.without_real_slices)
    assert (len(same), different) == (6, [])


@pytest.mark.slow
def test_what_is_said_of_the_real_slices_is_unchanged(real, monkeypatch):
    """Also what the doctor finds in them, and the masks and Dice of the delivered networks."""
    monkeypatch.setattr(golden, "REAL", real)
    same, different = golden.compare(golden.collect)
    assert different == []
    assert {*same} == json.loads(golden.GOLDEN.read_text(encoding="utf-8")).keys()
