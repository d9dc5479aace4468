"""Every opcode in turn: run a scenario, strike it there, and check what must hold."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from interrupts.scenarios import Scenario
from interrupts.world import World


@dataclass
class Report:
    """What came of striking one scenario.

    Attributes:
        points: How many opcodes were struck.
        broken: What was wrong, and where it was struck.
    """

    name: str
    points: int = 0
    broken: list[str] = field(default_factory=list)


def opcodes_of(scenario: Scenario, folder: Path) -> int:
    """How many opcodes a run has that nothing disturbs."""
    world = _new_world(folder)
    scenario.strike(world, 0)
    strike, problems = scenario.strike(world, 0)
    assert not problems, problems
    world.ledger.close()
    return strike.opcodes


def strike_everywhere(scenario: Scenario, folder: Path, *, points: int | None = None, most_broken: int = 10) -> Report:
    """Strike a scenario at each opcode, or at so many of them, evenly spread.

    Args:
        scenario: What to strike.
        folder: Where to work.
        points: How many opcodes at most; ``None`` for all.
        most_broken: After so many broken points there is nothing more to learn.
    """
    report = Report(scenario.name)
    world = _new_world(folder)
    opcodes = opcodes_of(scenario, folder)
    stride = 1 if points is None else max(1, -(-opcodes // points))
    # Another offset for each scenario, so that together they strike shared code at more of its opcodes.
    for at in range(1 + sum(scenario.name.encode()) % stride, opcodes + 1, stride):
        strike, problems = scenario.strike(world, at)
        report.points += 1
        if problems:
            report.broken.append(f"{scenario.name}, struck at {strike.where}: {'; '.join(problems)}")
            if len(report.broken) >= most_broken:
                return report
            # What was left locked would be found again and again.
            world = _new_world(folder)
    report.broken.extend(f"{scenario.name}: {problem}" for problem in world.problems_after_reopening())
    return report


def _new_world(folder: Path) -> World:
    unused = next(name for name in _names(folder) if not name.exists())
    unused.mkdir(parents=True)
    return World(unused)


def _names(folder: Path) -> Iterator[Path]:
    yield from (folder / f"world-{number}" for number in range(10_000))
