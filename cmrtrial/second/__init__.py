"""The second trial: the report's own numbers of epochs, claims registered before the first record.

Its runs (:mod:`cmrtrial.second.plan`), its statistics, its claims and verdicts, the simulated worlds
that the statistics were tried in, and its power analysis.
"""
