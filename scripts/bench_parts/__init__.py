"""The measurements behind ``scripts/bench``; run them with ``python -m bench_parts``."""
