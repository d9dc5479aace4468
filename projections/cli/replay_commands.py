"""``replay``: step through what happened, or through what would have."""

import sys
from pathlib import Path

import click
import msgspec

from ledger.keys import LeaseKey
from projections.cli.incident_options import (
    Choice,
    change_from,
    change_options,
    choice_options,
    chosen_incident,
    file_option,
)
from projections.cli.moments import tell_assumed_utc
from projections.cli.output import Cell, Output
from projections.cli.session import Session, json_option, keys_argument
from projections.cli.showing import emit, say, value_text
from projections.cli.stepping import Stepper, show_steps
from projections.cli.terminal import is_terminal
from projections.incident import Change, Counterfactual, Incident, NoSuchCondition, Step, parse_condition

__all__ = ["replay"]

_RESULT_STYLES = {"accepted": "green", "refused": "red", "left out": "dim"}


@click.command()
@keys_argument
@choice_options
@file_option(help="Replay a saved incident instead of a ledger.")
@click.option("--where", metavar="COND", help="Only steps where this holds, such as phase=expiring or tag=released.")
@change_options
@json_option
@click.pass_obj
def replay(
    session: Session,
    keys: tuple[LeaseKey, ...],
    since: int | None,
    until: int | None,
    correlation_id: str | None,
    attempt: str | None,
    file: Path | None,
    where: str | None,
    without: tuple[int, ...],
    moved: tuple[tuple[int, int], ...],
    refused: tuple[str, ...],
    inserted: tuple[tuple[str, str, str], ...],
    as_json: bool,
) -> None:
    """Step through what happened, forward and backward, event by event.

    On a terminal one goes by single keys and Enter; "h" tells which. Piped, with --where or with --json, all steps
    are printed. With --without, --move, --insert or --refuse the history is changed, replayed by the same rules, and
    shown with the first refusal and with what ends differently. In JSON: one object for each step, or one for a
    changed history.

    \b
    Example:
      lease-ledger --db auth.db replay dev:openai:work --since 2h
      lease-ledger --db auth.db replay dev:openai:work --without 17
    """
    change = change_from(without, moved, refused, inserted)
    if change is not None and where is not None:
        raise click.UsageError("--where chooses steps of the real history; leave it out.")
    incident = chosen_incident(session, keys, Choice(since, until, correlation_id, attempt), file)
    if change is not None:
        _show_changed(incident, change, as_json)
    elif as_json:
        for step in _steps(incident, where):
            emit(step)
    elif where is not None or not _can_step():
        show_steps(Output(as_json=False), _steps(incident, where))
    else:
        tell_assumed_utc()
        Stepper(incident, _ask, say).run()


def _can_step() -> bool:
    return sys.stdin is not None and sys.stdin.isatty() and is_terminal()


def _ask(prompt: str) -> str | None:
    try:
        return input(prompt)
    except EOFError:
        return None


def _steps(incident: Incident, where: str | None) -> tuple[Step, ...]:
    if where is None:
        return incident.steps
    try:
        return incident.find(parse_condition(where))
    except NoSuchCondition as error:
        raise click.UsageError(f"{error}.") from error


def _show_changed(incident: Incident, change: Change, as_json: bool) -> None:
    result = incident.what_if(change)
    if as_json:
        emit(result)
        return
    output = Output(as_json=False)
    rows = [
        (
            Cell(outcome.result, _RESULT_STYLES[outcome.result]),
            "new" if outcome.position is None else str(outcome.position),
            outcome.key,
            outcome.tag,
            "" if outcome.version is None else str(outcome.version),
            outcome.reason or "",
        )
        for outcome in result.outcomes
    ]
    output.many(result.outcomes, ("result", "position", "key", "what", "version", "why"), rows, empty="nothing is left")
    say(_first_refusal(result))
    differences = [
        (
            difference.key,
            difference.field,
            value_text(difference.field, difference.real),
            value_text(difference.field, difference.changed),
        )
        for difference in result.differences
    ]
    headings = ("key", "field", "ended", "would have ended")
    answers: list[msgspec.Struct] = [*result.differences]
    output.many(answers, headings, differences, empty="every lease ends as it did")


def _first_refusal(result: Counterfactual) -> str:
    first = result.first_refusal
    if first is None:
        return "nothing is refused"
    where = "the command added" if first.position is None else f"position {first.position}"
    return f"first refusal: {where} ({first.tag} of {first.key}): {first.reason}"
