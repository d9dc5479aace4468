"""``doctor``: what crashes left between the ledger and the token store."""

from collections.abc import Sequence
from typing import Final

import click
import msgspec

from ledger.credentials import Credentials
from projections.cli.exits import Exit
from projections.cli.output import Cell, Output
from projections.cli.session import Session, json_option
from projections.doctor import Condition, Diagnosis, examine, fix
from projections.exposure import Exposure, exposures

__all__ = ["doctor"]


_IN_ORDER: Final = ("mended", "as intended")


class _Finding(msgspec.Struct, frozen=True):
    """A diagnosis of a key, or of a file under its path, and what became of it."""

    key: str
    condition: str
    text: str
    generation: int
    event_id: str | None
    attempt: str | None
    outcome: str


@click.command()
@click.option("--fix", "mend", is_flag=True, help="Mend what can be mended; every change of a lease is an event.")
@json_option
@click.pass_obj
def doctor(session: Session, mend: bool, as_json: bool) -> int:
    """Show what is not in order between the ledger and the stored tokens, with the evidence. Changes nothing.

    Also shown is every file of the ledger that other users may read or write, and who they are.

    With --fix, whatever the next use of a key would finish by itself is finished now. Exit code 1 while anything
    remains that was not mended.

    \b
    Example:
      lease-ledger --db auth.db --store tokens doctor
      lease-ledger --db auth.db --store tokens doctor --fix
    """
    with session.ledger() as ledger:
        store = session.token_store()
        credentials = Credentials(ledger, store)
        found = [_finding(credentials, diagnosis, mend=mend) for diagnosis in list(examine(ledger, store))]
        found += [_open_file(exposure) for exposure in exposures(ledger.recorder)]
    _show(Output(as_json), found)
    return Exit.OK if all(finding.outcome in _IN_ORDER for finding in found) else Exit.REFUSED


def _finding(credentials: Credentials, diagnosis: Diagnosis, *, mend: bool) -> _Finding:
    if diagnosis.condition is Condition.OVERDUE:
        outcome = "the next use takes over"
    elif not diagnosis.mendable:
        outcome = "needs a person"
    elif not mend:
        outcome = "can be mended"
    else:
        outcome = "mended" if fix(credentials, diagnosis) else "not mended"
    return _Finding(
        diagnosis.key,
        diagnosis.condition.value,
        diagnosis.text,
        diagnosis.generation,
        diagnosis.event_id,
        diagnosis.attempt,
        outcome,
    )


def _open_file(exposure: Exposure) -> _Finding:
    condition, outcome = ("shared", "as intended") if exposure.intended else ("exposed", "needs a person")
    return _Finding(exposure.path, condition, exposure.text, 0, None, None, outcome)


def _show(output: Output, found: Sequence[_Finding]) -> None:
    rows = [
        (finding.key, Cell(finding.condition, "yellow"), str(finding.generation), finding.outcome, finding.text)
        for finding in found
    ]
    output.many(found, ("key", "condition", "generation", "outcome", "evidence"), rows, empty="all is in order")
