"""psycopg 3 with psycopg_pool."""

import load
import psycopg
from psycopg_pool import ConnectionPool


class Connection(psycopg.Connection):
    @classmethod
    def connect(cls, *arguments, **options):
        return load.ACCOUNT.login(lambda: super(Connection, cls).connect(*arguments, **options))


check = {"check": ConnectionPool.check_connection} if load.SAFE else {}
timeout = 90 if load.SAFE else 30
pool = ConnectionPool(connection_class=Connection, kwargs=load.LIBPQ, min_size=load.WORKERS, timeout=timeout, open=True, **check)


def insert():
    with pool.connection() as connection:
        connection.execute(load.INSERT)


load.serve(insert)
