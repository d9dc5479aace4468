"""The endpoints that are not Django OAuth Toolkit's own, and its token endpoint made strict and counted."""

import hashlib
import json

from django.contrib.auth import authenticate, login
from django.db import transaction
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.http import require_GET, require_POST
from oauth2_provider import views as toolkit
from oauth2_provider.models import get_refresh_token_model
from oauth2_provider.oauth2_backends import get_oauthlib_core

from oauth_server.stats import STATS

__all__ = ["TokenView", "login_view", "reset_stats", "resource", "stats"]


class TokenView(toolkit.TokenView):
    """The token endpoint: each request is decided and recorded in one write transaction.

    The toolkit looks at a refresh token before it opens its own transaction, so of two requests with the same
    token both may find it unspent, and the second is given the first one's tokens. Inside one transaction the
    second looks after the first has committed, and is answered ``invalid_grant``.
    """

    def post(self, request: HttpRequest, *args: object, **kwargs: object) -> HttpResponse:
        grant = request.POST.get("grant_type", "")
        presented = request.POST.get("refresh_token", "")
        with transaction.atomic():
            response = super().post(request, *args, **kwargs)
            answer = json.loads(response.content)
            error = None if response.status_code == 200 else str(answer.get("error"))
            family = _family(presented if grant == "refresh_token" else answer.get("refresh_token", ""))
        STATS.token_request(grant, error)
        if grant == "refresh_token":
            STATS.refresh(family, presented, error)
        elif error is None and family is not None:
            STATS.login(family, answer["refresh_token"])
        return response


def _family(refresh_token: str) -> str | None:
    """The family of rotated tokens this one belongs to: one per login."""
    checksum = hashlib.sha256(refresh_token.encode()).hexdigest()
    found = get_refresh_token_model().objects.filter(token_checksum=checksum)
    family = found.values_list("token_family", flat=True).first()
    return None if family is None else str(family)


@require_POST
def login_view(request: HttpRequest) -> HttpResponse:
    """The person types name and password."""
    user = authenticate(request, username=request.POST.get("username"), password=request.POST.get("password"))
    if user is None:
        return JsonResponse({"error": "wrong name or password"}, status=403)
    login(request, user)
    return HttpResponse(status=204)


@require_GET
def resource(request: HttpRequest) -> HttpResponse:
    """What the access token opens."""
    valid, verified = get_oauthlib_core().verify_request(request, scopes=["read"])
    if valid:
        response: HttpResponse = JsonResponse({"owner": verified.user.get_username()})
    else:
        response = JsonResponse({"error": "invalid_token"}, status=401)
        response["WWW-Authenticate"] = 'Bearer error="invalid_token"'
    STATS.resource_request(response.status_code)
    return response


@require_GET
def stats(_request: HttpRequest) -> HttpResponse:
    """The counters, open to all who can reach loopback; they hold no secret."""
    return JsonResponse(STATS.as_dict())


@require_POST
def reset_stats(_request: HttpRequest) -> HttpResponse:
    """Begin counting from nothing."""
    STATS.reset()
    return HttpResponse(status=204)
