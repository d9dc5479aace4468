"""Every recorded projection from a newer marker."""

import json

from conformance.replay import recorded, shown, snapshot_from

from ledger.status import oauth_status_projection_snapshot_from_newer_marker
from ledger.tokens import PersistedTokens


def test_every_recorded_projection_gives_the_recorded_snapshot() -> None:
    wrong = []
    for case in recorded("newer_marker"):
        tokens = PersistedTokens.from_json(json.dumps(case["tokens"]))
        projected = oauth_status_projection_snapshot_from_newer_marker(snapshot_from(case["snapshot"]), tokens)
        found = None if projected is None else shown(projected)
        if found != case["result"]:
            wrong.append((case["id"], case["path"], found))
    assert wrong == []
