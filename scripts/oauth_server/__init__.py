"""A real OAuth 2 authorization server on loopback, to see what refresh token rotation does to agents.

Django OAuth Toolkit answers: logins by authorization code with PKCE, refresh tokens that rotate and may be
spent once, reuse that revokes the whole family, access tokens that live for seconds, a resource they open.

    from oauth_server.client import OAuthClient
    from oauth_server.running import running_server

    with running_server(access_token_seconds=2) as server, OAuthClient(server) as client:
        tokens = client.login()

or by hand: ``PYTHONPATH=scripts python -m oauth_server``, which prints one JSON line when it is ready.
"""
