"""Steps of an incident for people: in a table, and one by one on a terminal."""

import re
from collections.abc import Callable, Sequence
from typing import Final

from ledger.errors import LeaseLedgerError
from projections.cli.output import Cell, Output, styled
from projections.cli.showing import event_row, summary, value_text
from projections.incident import Incident, Step, parse_condition
from projections.times import utc_from_ms

__all__ = ["Stepper", "show_steps", "step_lines"]

_NUMBER: Final = re.compile("[0-9]{1,18}")

HELP: Final = (
    "n or Enter: next    p: back    g N: to step N (0: the start)    @N: to a position    e ID: to an event",
    "/COND: on to where it holds, such as /phase=expiring or /tag=refresh_failed,generation>=3    ?COND: back to it",
    "s: all leases here    w: why is the lease as it is here    h: this    q: end",
)


def show_steps(output: Output, steps: Sequence[Step]) -> None:
    """Steps as a table."""
    rows: list[tuple[Cell | str, ...]] = [
        (
            str(step.number),
            *event_row(step.recorded)[:6],
            styled(step.after.phase),
            ", ".join(step.changed),
            f"clock back {step.clock_back_ms} ms" if step.clock_back_ms else "",
        )
        for step in steps
    ]
    headings = ("step", "position", "key", "version", "at", "what", "actor", "phase", "changed", "note")
    output.many(steps, headings, rows, empty="no step answers that")


def step_lines(step: Step) -> list[str]:
    """One step: the event, and what it changed from what to what."""
    recorded = step.recorded
    lines = [
        f"step {step.number}: {summary(recorded)}",
        f"  {recorded.key}, event {recorded.version}, position {recorded.position}, id {recorded.event.id}",
        f"  by {recorded.event.actor} at {utc_from_ms(recorded.event.at)}",
    ]
    if recorded.event.cause:
        lines.append(f"  cause: {recorded.event.cause}")
    if step.clock_back_ms:
        lines.append(f"  a clock went back: it is dated {step.clock_back_ms} ms before the event before it")
    for field in step.changed:
        before, after = getattr(step.before, field), getattr(step.after, field)
        lines.append(f"  {field}: {value_text(field, before)} -> {value_text(field, after)}")
    return lines if step.changed else [*lines, "  nothing changed"]


class Stepper:
    """Steps through an incident as a person says.

    Args:
        incident: The incident.
        read: Asks for the next command with a prompt; ``None`` when there is none any more.
        write: Shows a line.
    """

    def __init__(self, incident: Incident, read: Callable[[str], str | None], write: Callable[[str], None]) -> None:
        self._incident = incident
        self._replay = incident.replay()
        self._read = read
        self._write = write

    def run(self) -> None:
        """Go on until the person ends it."""
        keys = ", ".join(str(key) for key in self._incident.keys)
        self._write(f"{len(self._replay.steps)} events of {keys}; h for help")
        while True:
            said = self._read(f"{self._replay.done}/{len(self._replay.steps)}> ")
            if said is None or said.strip() == "q":
                return
            try:
                self._do(said.strip())
            except LeaseLedgerError as error:
                self._write(str(error))

    def _do(self, said: str) -> None:
        replay, word, rest = self._replay, said[:1], said[1:].strip()
        match word:
            case "" | "n":
                self._moved(replay.forward(), "this is the end")
            case "p":
                replay.back()
                self._moved(replay.step, "this is the start")
            case "g" if _NUMBER.fullmatch(rest):
                replay.go_to(int(rest))
                self._moved(replay.step, "this is the start")
            case "@" if _NUMBER.fullmatch(rest):
                self._moved(replay.go_to_position(int(rest)), "")
            case "e" if rest:
                self._moved(replay.go_to_event(rest), "")
            case "/":
                self._moved(replay.forward_until(parse_condition(rest)), f"{rest} does not hold from here on")
            case "?":
                self._moved(replay.back_until(parse_condition(rest)), f"{rest} does not hold before this")
            case "s":
                self._show_states()
            case "w":
                self._why()
            case _:
                for line in HELP:
                    self._write(line)

    def _moved(self, step: Step | None, otherwise: str) -> None:
        for line in [otherwise] if step is None else step_lines(step):
            self._write(line)

    def _show_states(self) -> None:
        for key, state in self._replay.states().items():
            expiry = f", expires {value_text('expires_at', state.expires_at)}" if state.credential_present else ""
            self._write(f"{key}: {state.phase or 'no lease'}, generation {state.generation}{expiry}")

    def _why(self) -> None:
        step = self._replay.step
        if step is None:
            self._write("nothing has happened yet")
            return
        verdict = self._incident.explain(step.recorded.key, version=step.recorded.version)
        self._write(f"{verdict.text} ({verdict.code})")
