"""Faults on demand, asked for by the request that is to suffer them."""

import time
from collections.abc import Callable

from django.http import HttpRequest, HttpResponse, JsonResponse

__all__ = ["FaultMiddleware"]

_LONGEST_DELAY_MS = 30_000


class FaultMiddleware:
    """Delays or refuses a request that says so in its headers.

    ``X-Delay-Ms`` waits before the request is looked at. ``X-Delay-Answer-Ms`` waits after its work is
    committed and before the answer leaves. ``X-Fail-Status`` answers with that status and does nothing, with
    ``X-Fail-Retry-After`` as its ``Retry-After``.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        _wait(request.headers.get("X-Delay-Ms"))
        status = request.headers.get("X-Fail-Status")
        if status is not None:
            return _refusal(int(status), request.headers.get("X-Fail-Retry-After"))
        response = self._get_response(request)
        _wait(request.headers.get("X-Delay-Answer-Ms"))
        return response


def _wait(milliseconds: str | None) -> None:
    if milliseconds is not None:
        time.sleep(min(int(milliseconds), _LONGEST_DELAY_MS) / 1000)


def _refusal(status: int, retry_after: str | None) -> HttpResponse:
    response = JsonResponse({"error": "temporarily_unavailable"}, status=status)
    if retry_after is not None:
        response["Retry-After"] = retry_after
    return response
