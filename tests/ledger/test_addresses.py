"""Addresses of databases as people may see them: whatever is wrong with one, its password is not said."""

import pytest

from ledger.addresses import split_address, without_password, without_passwords
from ledger.errors import LedgerStorageError
from ledger.lease_ledger import LeaseLedger

SECRET = "s3cr"

HIDING = [
    "postgresql://u:s3cr@h/d",
    "postgresql://u:x/s3cr@h/d",
    "postgresql://u:12/s3cr@h/d",
    "postgresql://u:x?s3cr@h/d",
    "postgresql://u:x#s3cr@h/d",
    "postgresql://u:x@s3cr@h/d",
    "postgresql://u:s3cr@[::1/d",
    "postgresql://u:s3cr@h]/d",
    "postgresql://u:s3cr@h\u2100/d",
    "postgresql://u:h@h:s3cr/d",
    "postgresql://u:s3cr",
    "postgresql://u:s3cr@h:99999999/d",
    "postgresql://u:s3cr@h:-1/d",
    "postgresql://u:%s3cr@h/d",
    "postgresql://u:x%00s3cr@h/d",
    "postgresql://h/d?password=s3cr",
    "postgresql://h/d?password=x@s3cr",
    "postgresql://u:x y s3cr@h/d",
    "postgresql:/u:s3cr@h/d",
    "postgresql:u:s3cr@h/d",
    "mysql://u:s3cr@h/d",
    "mysql://h/d?password=s3cr",
    "https://u:s3cr@h/d",
    "sqlite://u:s3cr@h/d",
    "://u:s3cr@h/d",
    "u:s3cr@h/d",
]


@pytest.mark.parametrize("url", HIDING)
def test_no_address_is_shown_with_its_password(url: str) -> None:
    assert SECRET not in without_password(url)


@pytest.mark.parametrize("url", HIDING)
def test_a_text_that_quotes_an_address_loses_the_password(url: str) -> None:
    if ":/" in url and " " not in url and not url.startswith(":"):
        assert SECRET not in without_passwords(f"No such command '{url}'.")


@pytest.mark.parametrize("url", [url for url in HIDING if ":" in url])
def test_no_error_about_an_address_quotes_its_password(url: str) -> None:
    local = url.replace("@h", "@127.0.0.1:1").replace("//h", "//127.0.0.1:1") + ("&" if "?" in url else "?")
    for tried in (url, f"{local}reconnect=0"):
        if tried.startswith("postgresql://u:s3cr@h") and tried == url:
            continue
        with pytest.raises((ValueError, LedgerStorageError)) as caught:
            LeaseLedger.open(tried)
        error: BaseException | None = caught.value
        while error is not None:
            assert SECRET not in f"{error} {error!r}"
            error = error.__cause__


def test_what_is_beyond_doubt_is_shown() -> None:
    assert without_password("postgresql://me:x@one,two:5433/db?sslmode=require") == "postgresql://me@one,two:5433/db"
    assert without_password("postgresql://me@[::1]:5432/db") == "postgresql://me@[::1]:5432/db"
    assert without_password("sqlite:///auth.db") == "sqlite:///auth.db"
    assert without_passwords("see https://example.org/help, and auth.db") == "see https://example.org/help, and auth.db"


def test_an_address_that_cannot_be_taken_apart_is_a_value_error_of_ours() -> None:
    with pytest.raises(ValueError, match="unreadable address postgresql") as caught:
        split_address("postgresql://u:s3cr@[::1/d")
    assert SECRET not in str(caught.value)
