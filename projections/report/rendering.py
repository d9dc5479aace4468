"""From the model to one HTML page that needs nothing else and can do nothing else.

The page's own policy forbids every connection and every script and style but its own two, named by their digests. The
data lie in a block that no browser executes, with every character escaped that could end it.
"""

import base64
import hashlib
from functools import cache
from importlib.resources import files
from typing import Final

import jinja2
import msgspec

from projections.report.model import ReportModel

__all__ = ["is_report", "render"]

_SCRIPTS: Final = ("data.js", "view.js", "lanes.js", "details.js", "events.js", "page.js")
_ESCAPED: Final = {b"<": b"\\u003c", b">": b"\\u003e", b"&": b"\\u0026"} | {
    mark.encode(): f"\\u{ord(mark):04x}".encode() for mark in "\u0085\u2028\u2029"
}


_MADE_BY: Final = b'<meta name="generator" content="lease-ledger">'


def is_report(head: bytes) -> bool:
    """Whether a file that begins like this is a page that was made here."""
    return head.startswith(b"<!doctype html>") and _MADE_BY in head


def _asset(name: str) -> str:
    return files("projections.report").joinpath("page", name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _json(model: ReportModel) -> str:
    data = msgspec.json.encode(model)
    for raw, escaped in _ESCAPED.items():
        data = data.replace(raw, escaped)
    return data.decode()


@cache
def _script() -> str:
    return '"use strict";\n(() => {\n' + "\n".join(_asset(name) for name in _SCRIPTS) + "})();\n"


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    return environment.from_string(_asset("report.html"))


def render(model: ReportModel, made: str) -> str:
    """The page.

    Args:
        model: What it shows.
        made: When it was made, as people read it.
    """
    script, style = _script(), _asset("report.css")
    return _template().render(
        title=model.title,
        ledger=model.ledger,
        made=made,
        script=script,
        style=style,
        data=_json(model),
        policy=(
            f"default-src 'none'; script-src '{_digest(script)}'; style-src '{_digest(style)}'; img-src data:; "
            "base-uri 'none'; form-action 'none'"
        ),
    )
