"""The demonstration: eight agents share one login, first each for itself, then through the ledger.

``scripts/demo`` sets up what it needs and runs it. ``crew`` starts and ends the agent processes, ``agent`` is
one of them, ``naive`` and ``through_ledger`` are the two ways it may come by its tokens, ``kills`` ends two
agents at the worst moments, ``results`` and ``checks`` say what came of it.
"""
