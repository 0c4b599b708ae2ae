"""Django with psycopg 3 and persistent connections."""

import django
import load
import psycopg
from django.conf import settings

real = psycopg.connect
psycopg.connect = lambda *some, **more: load.ACCOUNT.login(lambda: real(*some, **more))

database = {
    "ENGINE": "django.db.backends.postgresql",
    "NAME": "postgres",
    "USER": "postgres",
    "PASSWORD": "rig",
    "HOST": load.HOSTS,
    "PORT": load.PORTS,
    "CONN_MAX_AGE": None,
    "CONN_HEALTH_CHECKS": load.SAFE,
    "OPTIONS": {"application_name": load.NAME, **load.TLS},
}
settings.configure(DATABASES={"default": database}, USE_TZ=True)
django.setup()

from django.db import close_old_connections, connection  # noqa: E402, after the settings


def insert():
    # What Django does before and after each request.
    close_old_connections()
    try:
        with connection.cursor() as cursor:
            cursor.execute(load.INSERT)
    finally:
        close_old_connections()


load.serve(insert)
