"""The commands about moments, reasons and incidents, for people and for programs."""

import json
import os
import pty
import select
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from projections_explain import incidents
from projections_explain.scenes import KEY, Scene

from ledger.lease_ledger import LeaseLedger
from projections.cli.app import lease_ledger
from projections.cli.exits import Exit
from projections.cli.stepping import Stepper
from projections.incident import Incident

Run = Callable[..., Result]


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    scene = Scene(tmp_path)
    yield scene
    scene.close()


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Runs a command on the ledger of the scene."""

    def command(*words: str) -> Result:
        return CliRunner().invoke(lease_ledger, ["--db", str(tmp_path / "auth.db"), *words])

    return command


@pytest.fixture
def lost(scene: Scene, run: Run) -> Run:
    """The same, after a login was lost: 1 login, 2 begun by agent-a, 3 given up, 4 begun by agent-b, 5 refused."""
    incidents.a_crash_after_the_exchange(scene)
    return run


def shown(result: Result) -> str:
    assert result.exit_code == 0, result.output
    return result.stdout


def objects(result: Result) -> list[Any]:
    return [json.loads(line) for line in shown(result).splitlines()]


def test_as_of_shows_a_lease_after_an_event_or_at_a_time(lost: Run) -> None:
    assert "after event 2: refresh started" in shown(lost("as-of", str(KEY), "--version", "2"))
    assert "nothing had happened to it" in shown(lost("as-of", str(KEY), "--at", "2020-01-31"))
    (now,) = objects(lost("as-of", str(KEY), "--json"))
    assert (now["version"], now["state"]["phase"], now["last"]["tag"]) == (5, "reauth_required", "lease.refresh_failed")
    assert objects(lost("as-of", str(KEY), "--at", "2999-01-31T12:00+02:00", "--json"))[0]["version"] == 5


def test_leases_can_be_listed_as_they_were(lost: Run) -> None:
    assert objects(lost("leases", "--at", "0s", "--json"))[0]["phase"] == "reauth_required"
    assert "nobody had logged in then" in lost("leases", "--at", "0").output


def test_diff_names_fields_and_events(lost: Run) -> None:
    (found,) = objects(lost("diff", str(KEY), "1", "5", "--json"))
    assert [change["field"] for change in found["changes"]] == ["phase", "last_failure"]
    assert found["changes"][0]["versions"] == [2, 3, 4, 5]
    text = shown(lost("diff", str(KEY), "1", "5"))
    assert "reauth_required" in text and "2, 3, 4, 5" in text
    assert "nothing differs" in lost("diff", str(KEY), "5", "0s").output
    assert objects(lost("diff", str(KEY), "@0", "1", "--json"))[0]["before_version"] == 0


def test_timeline_goes_page_by_page(lost: Run) -> None:
    (first,) = objects(lost("timeline", "--limit", "3", "--json"))
    assert [entry["version"] for entry in first["entries"]] == [1, 2, 3]
    (second,) = objects(lost("timeline", "--after", str(first["next"]), "--json"))
    assert [entry["version"] for entry in second["entries"]] == [4, 5] and "next" not in second
    text = shown(lost("timeline", str(KEY), "--tag", "refresh_failed", "--limit", "1", "--since", "1h"))
    assert "refresh abandoned by its holder" in text and "there is more: --after 3" in text
    assert "no event answers that" in lost("timeline", "--actor", "nobody").output


def test_explain_says_why_and_shows_the_proof(lost: Run) -> None:
    text = shown(lost("explain", str(KEY), "--last-change", "phase", "--last-change", "expires_at"))
    assert "class: response_lost" in text
    assert "phase was last changed from refreshing to reauth_required by agent-b" in text
    assert "refresh refused for good: invalid_grant" in text
    (found,) = objects(lost("explain", str(KEY), "--json", "--last-change", "generation"))
    assert found["verdict"]["code"] == "response_lost"
    assert [event["version"] for event in found["verdict"]["proof"]] == [2, 3, 4, 5]
    assert found["last_changes"]["generation"]["by"]["tag"] == "lease.acquired"


def test_explain_with_a_store_says_what_the_stored_tokens_are(lost: Run, tmp_path: Path) -> None:
    stored = ("--store", str(tmp_path / "tokens"), "explain", str(KEY))
    assert "tokens: the stored tokens are those in force (current)" in shown(lost(*stored))
    assert "tokens" not in objects(lost(*stored, "--at", "1h", "--json"))[0]["verdict"]


def test_explain_with_a_peer_shows_who_else_sent_the_token(
    scene: Scene, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LEASE_LEDGER_FINGERPRINT_KEY", "one key for both ledgers")
    incidents.a_copied_token_file(scene)
    text = shown(run("explain", str(KEY), "--peer", str(tmp_path / "laptop.db")))
    assert "class: spent_by_peer" in text and "in another ledger:" in text


def test_replay_prints_its_steps_when_nobody_is_at_a_terminal(lost: Run) -> None:
    assert len(shown(lost("replay", str(KEY))).splitlines()) == 6
    steps = objects(lost("replay", str(KEY), "--json"))
    assert [step["recorded"]["version"] for step in steps] == [1, 2, 3, 4, 5]
    assert steps[1]["after"]["phase"] == "refreshing"
    (only,) = objects(lost("replay", "--where", "tag=refresh_failed,phase=expiring", "--json"))
    assert only["number"] == 3


def test_replay_of_a_changed_history_shows_the_first_refusal_and_what_ends_differently(lost: Run) -> None:
    text = shown(lost("replay", str(KEY), "--without", "3"))
    assert "first refusal: position 4 (lease.refresh_started of dev:openai:work)" in text
    (found,) = objects(lost("replay", "--without", "3", "--without", "4", "--without", "5", "--json"))
    assert found["first_refusal"] is None
    assert {difference["field"] for difference in found["differences"]} >= {"phase"}
    assert "nothing is refused" in shown(lost("replay", "--insert", "5", str(KEY), "logout"))
    assert "position 5" in shown(lost("replay", "--move", "5", "1"))
    begun = objects(lost("replay", "--json"))[3]["recorded"]["id"]
    assert "left out" in shown(lost("replay", "--refuse", begun[:8]))


def test_an_incident_is_saved_shown_replayed_and_verified_without_its_ledger(lost: Run, tmp_path: Path) -> None:
    path = str(tmp_path / "lost.json")
    (saved,) = objects(lost("incident", "save", path, str(KEY), "--json"))
    assert (saved["events"], saved["leases"]) == (5, 1)
    assert shown(lost("incident", "verify", path, "--against-ledger")).startswith("all is well: 5 events")
    (tmp_path / "auth.db").rename(tmp_path / "gone.db")
    assert "class: response_lost" in shown(lost("incident", "show", path))
    (whole,) = objects(lost("incident", "show", path, "--json"))
    assert whole["verdicts"][0]["code"] == "response_lost" and len(whole["steps"]) == 5
    assert len(objects(lost("replay", "--incident", path, "--json"))) == 5
    assert objects(lost("incident", "verify", path, "--json")) == [{"ok": True, "findings": []}]


def test_a_changed_bundle_is_refused_with_the_event_named(lost: Run, tmp_path: Path) -> None:
    path = tmp_path / "lost.json"
    lost("incident", "save", str(path), "--attempt", objects(lost("replay", "--json"))[3]["recorded"]["id"])
    path.write_text(path.read_text().replace("agent-b", "agent-c", 1))
    for command in ("verify", "show"):
        result = lost("incident", command, str(path))
        assert result.exit_code == Exit.VERIFICATION_FAILED
        assert "event 3 of dev:openai:work (position 3): it is not the event its digest was made of" in result.output
    result = lost("incident", "verify", str(path), "--json")
    assert (json.loads(result.stdout)["ok"], result.exit_code) == (False, Exit.VERIFICATION_FAILED)
    assert lost("replay", "--incident", str(path)).exit_code == Exit.REFUSED


def test_a_bundle_of_another_ledger_is_told_from_this_one(lost: Run, tmp_path: Path) -> None:
    with LeaseLedger.open("memory://") as other:
        other.acquire_lease(KEY, 5)
        Incident.select(other).save(tmp_path / "other.json")
    result = lost("incident", "verify", str(tmp_path / "other.json"), "--against-ledger")
    assert result.exit_code == Exit.VERIFICATION_FAILED and "this one is" in result.output


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("as-of", str(KEY), "--at", "yesterday"), Exit.USAGE, "no time; a time looks like"),
        (("as-of", str(KEY), "--at", "now", "--version", "1"), Exit.USAGE, "not both"),
        (("as-of", str(KEY), "--version", "9"), Exit.REFUSED, "its last is 5"),
        (("explain", str(KEY), "--at", "now", "--version", "1"), Exit.USAGE, "not both"),
        (("explain", str(KEY), "--last-change", "colour"), Exit.USAGE, "colour"),
        (("diff", str(KEY), "1", "x"), Exit.USAGE, "no moment; a version is a number"),
        (("timeline", "no-key"), Exit.USAGE, "not of the form"),
        (("replay", "--where", "colour=red"), Exit.USAGE, "no field 'colour'"),
        (("replay", "--where", "phase=valid", "--without", "1"), Exit.USAGE, "leave it out"),
        (("replay", "--without", "99"), Exit.REFUSED, "does not hold position 99"),
        (("replay", "--insert", "x", str(KEY), "logout"), Exit.USAGE, "--insert takes"),
        (("replay", "--insert", "1", "no-key", "logout"), Exit.USAGE, "not of the form"),
        (("replay", "dev:nobody"), Exit.REFUSED, "unknown key dev:nobody"),
        (("replay", str(KEY), "--incident", "x.json"), Exit.USAGE, "chosen already"),
        (("incident", "show", "missing.json"), Exit.USAGE, "missing.json"),
    ],
)
def test_what_cannot_be_answered_is_refused_in_one_line(
    lost: Run, words: tuple[str, ...], code: Exit, said: str
) -> None:
    result = lost(*words)
    assert result.exit_code == code, result.output
    assert said in result.stderr and len(result.stderr.splitlines()) == 1


def stepped(scene: Scene, *said: str) -> list[str]:
    """What a person sees who says these things and then hangs up."""
    told: list[str] = []
    answers = iter(said)
    Stepper(Incident.select(scene.ledger("auditor")), lambda _: next(answers, None), told.append).run()
    return told[1:]


def test_a_person_steps_forward_and_back_and_jumps(scene: Scene, lost: Run) -> None:
    assert stepped(scene, "n")[0] == "step 1: logged in: generation 1"
    assert "  phase: none -> valid" in stepped(scene, "")
    assert stepped(scene, "p") == ["this is the start"]
    assert stepped(scene, "n", "n", "p")[-1].startswith("  published_by: none ->")
    assert any(line.startswith("step 4") for line in stepped(scene, "g 4"))
    assert stepped(scene, "g 9") == ["there is no step 9; the incident has 5"]
    assert stepped(scene, "g 5", "n")[-1] == "this is the end"
    assert stepped(scene, "@4")[0].startswith("step 4")
    assert stepped(scene, "@77") == ["the incident does not hold position 77"]
    begun = objects(lost("replay", "--json"))[3]["recorded"]["id"]
    assert stepped(scene, f"e {begun[:10]}")[0].startswith("step 4")


def test_a_person_searches_and_asks_why(scene: Scene, lost: Run) -> None:
    assert stepped(scene, "/phase=expiring")[0].startswith("step 3")
    assert "step 4: refresh started, may take 60 s" in stepped(scene, "g 5", "?tag=refresh_started")
    assert stepped(scene, "/generation>=9") == ["generation>=9 does not hold from here on"]
    assert "is no condition" in stepped(scene, "/what")[0]
    assert stepped(scene, "w") == ["nothing has happened yet"]
    assert stepped(scene, "g 5", "w")[-1].endswith("(response_lost)")
    assert stepped(scene, "g 2", "s")[-1].startswith("dev:openai:work: refreshing, generation 1, expires 2")
    assert len(stepped(scene, "h")) == 3
    assert stepped(scene, "q", "n") == []


def test_on_a_real_terminal_the_replay_waits_for_what_a_person_says(scene: Scene, lost: Run, tmp_path: Path) -> None:
    pid, terminal = pty.fork()
    if pid == 0:
        words = [
            "-c",
            "from projections.cli import main; main()",
            "--db",
            str(tmp_path / "auth.db"),
            "replay",
            str(KEY),
        ]
        os.environ["PYTHONPATH"] = str(Path(__file__).parents[2])
        os.execv(sys.executable, [sys.executable, *words])
    seen = b""
    for awaited, said in ((b"0/5> ", b"n\n"), (b"1/5> ", b"/phase=reauth_required\n"), (b"5/5> ", b"q\n")):
        give_up = time.monotonic() + 30
        while awaited not in seen and time.monotonic() < give_up:
            if select.select([terminal], [], [], 0.1)[0]:
                seen += os.read(terminal, 4096)
        assert awaited in seen, seen
        os.write(terminal, said)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert b"phase: none -> valid" in seen and b"reauth_required" in seen
    os.close(terminal)
