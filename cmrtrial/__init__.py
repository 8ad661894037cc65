"""The trial: how the book judges what the 2020 report claimed. It stands on :mod:`cmrseg`.

What is run is planned in :mod:`cmrtrial.plans`, made by :mod:`cmrtrial.runner`, kept in
:mod:`cmrtrial.records`, compared in :mod:`cmrtrial.compare` and judged in :mod:`cmrtrial.claims`.
The second trial, with longer trainings and its own statistics, is :mod:`cmrtrial.second`.
"""
