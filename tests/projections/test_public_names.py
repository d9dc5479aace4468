"""What ``projections`` offers by name."""

import projections


def test_every_name_offered_is_there() -> None:
    assert {name for name in projections.__all__ if getattr(projections, name, None) is None} == set()
    assert set(projections.__all__) == set(projections._HOMES)
