"""Every recorded reading of a marker, from the literal JSON it was written in."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from conformance.replay import recorded

from ledger.marker import (
    TokenLifecyclePublication,
    tokens_lifecycle_publication,
    tokens_lifecycle_publication_with_explicit_expiry,
    tokens_lifecycle_published,
    tokens_lifecycle_published_credential_time,
    tokens_lifecycle_published_generation,
)
from ledger.tokens import PersistedTokens, persisted_token_expires_at_epoch_secs

CASES = recorded("publication")


def test_every_recorded_reading_gives_the_recorded_answers() -> None:
    assert list(_mismatches(rewritten=False)) == []


def test_a_rewritten_token_file_gives_the_same_answers() -> None:
    assert list(_mismatches(rewritten=True)) == []


@pytest.mark.parametrize("case", CASES, ids=lambda case: str(case["id"]))
def test_recorded_metadata_survives_in_value_and_kind(case: dict[str, Any]) -> None:
    written = json.loads(_tokens(case).to_json())["metadata"]
    # As text, since to Python 1 == 1.0 == True.
    assert json.dumps(written) == json.dumps(json.loads(case["metadata_text"]))


def _tokens(case: dict[str, Any]) -> PersistedTokens:
    fields = {name: json.dumps(value) for name, value in case["tokens"].items()}
    fields["metadata"] = case["metadata_text"]
    return PersistedTokens.from_json("{" + ",".join(f'"{name}":{text}' for name, text in fields.items()) + "}")


def _mismatches(*, rewritten: bool) -> Iterator[tuple[Any, str, object]]:
    for case in CASES:
        tokens = _tokens(case)
        if rewritten:
            tokens = PersistedTokens.from_json(tokens.to_json())
        found = {
            "lifecycle_published": tokens_lifecycle_published(tokens),
            "published_generation": tokens_lifecycle_published_generation(tokens),
            "published_credential_time": tokens_lifecycle_published_credential_time(tokens),
            "publication": _shown(tokens_lifecycle_publication(tokens)),
            "publication_with_explicit_expiry": _shown(tokens_lifecycle_publication_with_explicit_expiry(tokens)),
            "token_expires_at_epoch_secs": persisted_token_expires_at_epoch_secs(tokens),
        }
        for name, value in found.items():
            if json.dumps(value) != json.dumps(case[name]):
                yield case["id"], name, value


def _shown(publication: TokenLifecyclePublication | None) -> dict[str, int | None] | None:
    if publication is None:
        return None
    return {
        "expires_at": publication.expires_at,
        "generation": publication.generation,
        "published_at_millis": publication.credential_published_at_millis,
    }
