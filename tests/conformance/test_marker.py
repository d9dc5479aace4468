"""Every recorded marking of tokens, compared as JSON."""

import json
from collections.abc import Iterator
from typing import Any

from conformance.replay import recorded, snapshot_from

from ledger.marker import (
    mark_tokens_lifecycle_published,
    mark_tokens_lifecycle_published_for_generation,
    mark_tokens_lifecycle_published_for_snapshot,
    mark_tokens_lifecycle_published_for_transition,
)
from ledger.snapshot import AuthLeaseTransition
from ledger.tokens import PersistedTokens


def test_every_recorded_marking_gives_the_recorded_tokens() -> None:
    assert list(_mismatches()) == []


def _mismatches() -> Iterator[tuple[Any, str, object]]:
    for case in recorded("marker"):
        tokens = PersistedTokens.from_json(json.dumps(case["tokens"]))
        marked = _marked(case["function"], tokens, case["args"])
        found = {
            "tokens": _canonical(json.loads(tokens.to_json())),
            "output": _canonical(json.loads(marked.to_json())),
            "changed": marked.to_json() != tokens.to_json(),
            "output_marked_again_with_mark_published": _canonical(
                json.loads(mark_tokens_lifecycle_published(marked).to_json())
            ),
        }
        for name, value in found.items():
            expected = case[name] if name == "changed" else _canonical(case[name])
            if value != expected:
                yield case["id"], name, value


def _marked(function: str, tokens: PersistedTokens, args: dict[str, Any]) -> PersistedTokens:
    match function:
        case "mark_published":
            return mark_tokens_lifecycle_published(tokens)
        case "for_generation":
            return mark_tokens_lifecycle_published_for_generation(tokens, args["generation"])
        case "for_transition":
            transition = AuthLeaseTransition(args["generation"], args["published_at_millis"])
            return mark_tokens_lifecycle_published_for_transition(tokens, transition)
        case "for_snapshot":
            snapshot = snapshot_from({**args, "published": args["published_at_millis"]})
            return mark_tokens_lifecycle_published_for_snapshot(tokens, snapshot)
        case _:
            raise AssertionError(f"unknown function {function}")


def _canonical(value: object) -> str:
    # As text, since to Python 1 == 1.0 == True.
    return json.dumps(value, sort_keys=True)
