"""The ``lease-ledger`` command: the options shared by all commands, and the list of them."""

from importlib.metadata import PackageNotFoundError, version

import click

from projections.cli.audit_commands import history, leases, rebuild, stale
from projections.cli.doctor_commands import doctor
from projections.cli.exits import EXIT_CODES, Exit, QuietGroup
from projections.cli.explain_commands import explain
from projections.cli.export import export
from projections.cli.import_ import import_audit_trail
from projections.cli.incident_commands import incident
from projections.cli.log_lines import show_log_lines
from projections.cli.login_commands import login, logout, status
from projections.cli.moments import tell_assumed_utc
from projections.cli.proof_commands import checkpoint, verify
from projections.cli.replay_commands import replay
from projections.cli.report import report
from projections.cli.session import Session
from projections.cli.sql_commands import datasette_metadata, sql
from projections.cli.storage_commands import backup, copy, init, new_token_key, rotate_token_key
from projections.cli.time_commands import as_of, diff, timeline

__all__ = ["lease_ledger"]


def _version() -> str:
    try:
        return version("lease-ledger")
    except PackageNotFoundError:
        return "unknown (not installed)"


@click.group(
    cls=QuietGroup,
    epilog=EXIT_CODES,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.option(
    "--db", envvar="LEASE_LEDGER_DB", metavar="URL", help="The ledger: a path, sqlite:///auth.db, or postgresql://..."
)
@click.option(
    "--store",
    envvar="LEASE_LEDGER_STORE",
    metavar="DIR|URL",
    help="Where the tokens are: a folder of files, or postgresql://... (sealed with LEASE_LEDGER_TOKEN_KEY_FILE).",
)
@click.option("--actor", envvar="LEASE_LEDGER_ACTOR", metavar="NAME", help="Who acts, for the history.")
@click.version_option(_version(), prog_name="lease-ledger")
@click.pass_context
def lease_ledger(context: click.Context, db: str | None, store: str | None, actor: str | None) -> None:
    """Who held which credential when, at which generation, and why a login was lost.

    Every login, refresh and logout is one event in a ledger. Name the ledger with --db and the folder of the token
    files with --store, or once for all in LEASE_LEDGER_DB and LEASE_LEDGER_STORE.

    \b
    Example:
      export LEASE_LEDGER_DB=auth.db LEASE_LEDGER_STORE=tokens
      lease-ledger login dev:openai:work < tokens.json
      lease-ledger history dev:openai:work
    """
    if context.invoked_subcommand is None:
        click.echo(context.get_help(), err=True)
        context.exit(Exit.USAGE)
    show_log_lines()
    context.obj = Session(db, store, actor)


@lease_ledger.result_callback()
def _after(result: object, **_: object) -> object:
    tell_assumed_utc()
    return result


_COMMANDS = (
    login,
    logout,
    status,
    history,
    as_of,
    diff,
    timeline,
    explain,
    leases,
    stale,
    doctor,
    replay,
    incident,
    verify,
    checkpoint,
    rebuild,
    sql,
    datasette_metadata,
    init,
    backup,
    copy,
    new_token_key,
    rotate_token_key,
    export,
    import_audit_trail,
    report,
)

for _command in _COMMANDS:
    lease_ledger.add_command(_command)
