"""Django settings of the authorization server; what differs from run to run comes from the environment."""

import os
import secrets

SECRET_KEY = secrets.token_urlsafe(32)
DEBUG = False
ALLOWED_HOSTS = ["127.0.0.1"]
USE_TZ = True
ROOT_URLCONF = "oauth_server.urls"
LOGIN_URL = "/login"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

INSTALLED_APPS = ["django.contrib.auth", "django.contrib.contenttypes", "oauth2_provider"]
# The tables are made from the models: a database that lives for minutes needs no history of migrations.
MIGRATION_MODULES = dict.fromkeys(["auth", "contenttypes", "oauth2_provider"])

MIDDLEWARE = [
    "oauth_server.faults.FaultMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
]
# The session of a login lasts for two requests and needs no table.
SESSION_ENGINE = "django.contrib.sessions.backends.signed_cookies"
# The one account's password is random and dies with the server; a slow hash would only slow the logins down.
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
TEMPLATES = [{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True}]

DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": os.environ["OAUTH_SERVER_DATABASE"],
        "CONN_MAX_AGE": None,
        "OPTIONS": {
            # A deferred transaction that reads and then writes fails at once when another wrote in between,
            # whatever the timeout. IMMEDIATE waits its turn before it reads.
            "transaction_mode": "IMMEDIATE",
            "timeout": 30,
            "init_command": "PRAGMA journal_mode = wal; PRAGMA synchronous = normal",
        },
    }
}

OAUTH2_PROVIDER = {
    "ACCESS_TOKEN_EXPIRE_SECONDS": int(os.environ["OAUTH_SERVER_ACCESS_TOKEN_SECONDS"]),
    "ROTATE_REFRESH_TOKEN": True,
    "REFRESH_TOKEN_GRACE_PERIOD_SECONDS": 0,
    "REFRESH_TOKEN_REUSE_PROTECTION": True,
    "PKCE_REQUIRED": True,
    "SCOPES": {"read": "Read the protected resource"},
}

# Refused requests are what this server is for, and so are the faults it was asked for; only its own are news.
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "filters": {
        "exceptions": {
            "()": "django.utils.log.CallbackFilter",
            "callback": lambda record: record.exc_info is not None,
        }
    },
    "handlers": {"stderr": {"class": "logging.StreamHandler", "filters": ["exceptions"]}},
    "root": {"handlers": ["stderr"], "level": "ERROR"},
    "loggers": {"django.server": {"handlers": [], "propagate": True}},
}
