"""Every recorded id and lease key: what is accepted, what is refused and why, and each form a key takes."""

import json
import re
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from conformance.replay import recorded

from ledger.keys import IdentityError, LeaseKey

CASES = recorded("slugs")
SLUGS = [case for case in CASES if case["type"] == "slug"]
ACCEPTED = [case for case in SLUGS if "ok" in case["result"]]
REFUSED = [case for case in SLUGS if "error" in case["result"]]
KEYS = [case for case in CASES if case["type"] == "key"]
PARSED = [case for case in CASES if case["type"] == "token_key_parse"]


@pytest.mark.parametrize("case", ACCEPTED, ids=repr)
def test_an_id_within_the_grammar_names_any_part_of_a_key(case: dict[str, Any]) -> None:
    raw = case["raw"]
    key = LeaseKey(raw, raw, raw)
    assert str(key) == f"{raw}:{raw}:{raw}"
    assert LeaseKey.parse(str(key)) == key
    assert msgspec.json.decode(msgspec.json.encode(key), type=LeaseKey) == key


@pytest.mark.parametrize("case", REFUSED, ids=repr)
@pytest.mark.parametrize("part", ["realm", "binding", "profile"])
def test_an_id_outside_the_grammar_is_refused_in_any_part_of_a_key(case: dict[str, Any], part: str) -> None:
    parts = {"realm": "dev", "binding": "openai", part: case["raw"]}
    with pytest.raises(IdentityError) as refusal:
        LeaseKey(**parts)
    kind = case["result"]["kind"]
    if kind == "empty":
        assert (refusal.value.kind, refusal.value.character) == ("empty", None)
    else:
        assert (refusal.value.kind, refusal.value.character) == ("invalid_char", kind["invalid_char"])
    assert _wording(str(refusal.value)) == _wording(case["result"]["error"])
    with pytest.raises(msgspec.ValidationError) as in_json:
        msgspec.json.decode(json.dumps(parts), type=LeaseKey)
    assert _wording(str(in_json.value)).startswith(_wording(case["serde_error"]))


def _wording(message: str) -> str:
    # How the character is quoted is each language's own.
    return re.sub(r"character ['\"].*['\"]; must", "character _; must", message, flags=re.DOTALL)


@pytest.mark.parametrize("case", KEYS, ids=lambda case: case["lease_key_display"])
def test_a_key_takes_the_recorded_forms(case: dict[str, Any]) -> None:
    key = LeaseKey(case["realm"], case["binding"], case["profile"])
    assert str(key) == case["lease_key_display"]
    assert key.keyring_account == case["keyring_account"]
    assert LeaseKey.parse(case["lease_key_display"]) == key
    for form in (case["token_key_json"], case["auth_binding_json"]):
        assert msgspec.json.decode(msgspec.json.encode(key)) == form
        assert msgspec.json.decode(json.dumps(form), type=LeaseKey) == key


@pytest.mark.parametrize("case", PARSED, ids=repr)
def test_a_key_of_three_parts_is_made_or_refused_as_recorded(case: dict[str, Any]) -> None:
    parts = (case["realm"], case["binding"], case["profile"])
    if "ok" in case["result"]:
        assert str(LeaseKey(*parts)) == case["result"]["ok"]
        assert str(LeaseKey.parse(":".join(parts))) == case["result"]["ok"]
    else:
        attempts: tuple[Callable[[], object], ...] = (lambda: LeaseKey(*parts), lambda: LeaseKey.parse(":".join(parts)))
        for attempt in attempts:
            with pytest.raises(IdentityError) as refusal:
                attempt()
            assert _wording(str(refusal.value)) == _wording(case["result"]["error"])
