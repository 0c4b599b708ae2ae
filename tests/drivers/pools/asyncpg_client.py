"""asyncpg with its own pool."""

import asyncio
import ssl

import asyncpg
import load


async def connect(*arguments, **options):
    return await load.ACCOUNT.login_async(lambda: asyncpg.connect(*arguments, **options))


async def main():
    tls = ssl.create_default_context(cafile=load.CA) if load.CA else False
    # asyncpg gives a login up after 60 s.
    longer = {"timeout": 90} if load.SAFE else {}
    options = dict(user="postgres", password="rig", database="postgres", ssl=tls, server_settings={"application_name": load.NAME}, **longer)
    at = dict(host=load.HOSTS.split(","), port=[int(port) for port in load.PORTS.split(",")])
    pool = await asyncpg.create_pool(connect=connect, min_size=load.WORKERS, max_size=load.WORKERS, **at, **options)

    async def insert():
        async with pool.acquire() as connection:
            await connection.execute(load.INSERT)

    await load.serve_async(insert)


asyncio.run(main())
