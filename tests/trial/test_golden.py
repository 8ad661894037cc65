"""Plans, keys, fingerprints, verdicts and submissions are those of tests/golden.json."""

import json
import sys

from conftest import REPOSITORY

sys.path.insert(0, str(REPOSITORY / "tools"))
import golden


def test_what_a_checkout_says_of_itself_is_unchanged():
    expected = json.loads(golden.GOLDEN.read_text(encoding="utf-8"))
    entries = json.loads(json.dumps(golden.without_real_slices(expected["plans"])))
    assert len(entries) == 6
    assert [name for name in entries if entries[name] != expected[name]] == []
