"""The addresses of the authorization server."""

from django.urls import path
from oauth2_provider.views import AuthorizationView, RevokeTokenView

from oauth_server import views

urlpatterns = [
    path("login", views.login_view),
    path("authorize", AuthorizationView.as_view()),
    path("token", views.TokenView.as_view()),
    path("revoke", RevokeTokenView.as_view()),
    path("resource", views.resource),
    path("stats", views.stats),
    path("stats/reset", views.reset_stats),
]
