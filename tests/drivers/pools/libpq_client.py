"""libpq alone, by psycopg 3 without a pool: one connection for each row. CLIENT_HOSTS may have several."""

import load
import psycopg


def insert():
    with load.ACCOUNT.login(lambda: psycopg.connect(**load.LIBPQ)) as connection:
        connection.execute(load.INSERT)


load.serve(insert)
