"""Connects with asyncpg."""

import asyncio

import asyncpg
import lines


def connect(case):
    hosts, ports = zip(*(host.split(":") for host in case.hosts.split(",")))
    query = f"sslmode={case.sslmode}"
    if case.negotiation:
        query += f"&sslnegotiation={case.negotiation}"
    if case.sslmode.startswith("verify"):
        query += f"&sslrootcert={case.rootcert}"
    hosts = ",".join(f"{host}:{port}" for host, port in zip(hosts, ports))

    async def once():
        connection = await asyncpg.connect(f"postgres://driver@{hosts}/postgres?{query}")
        try:
            return await connection.fetchval("show port")
        finally:
            await connection.close()

    return asyncio.run(once())


lines.serve(connect, f"asyncpg {asyncpg.__version__}")
