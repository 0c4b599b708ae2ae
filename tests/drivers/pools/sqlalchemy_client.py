"""SQLAlchemy's own pool, with psycopg2."""

import load
import psycopg2
import sqlalchemy


def connect():
    return load.ACCOUNT.login(lambda: psycopg2.connect(**load.LIBPQ))


engine = sqlalchemy.create_engine("postgresql+psycopg2://", creator=connect, pool_size=load.WORKERS, pool_pre_ping=load.SAFE)


def insert():
    with engine.begin() as connection:
        connection.exec_driver_sql(load.INSERT)


load.serve(insert)
