"""The trial: how the book judges what the 2020 report claimed. It stands on :mod:`cmrseg`.

So far it holds the second trial: its runs (:mod:`cmrtrial.second_trial`), its statistics
(:mod:`cmrtrial.statistics`), its claims and verdicts (:mod:`cmrtrial.claims`), the simulated worlds that the
statistics were tried in (:mod:`cmrtrial.worlds`) and its power analysis (:mod:`cmrtrial.power`).
"""
