"""Tries real drivers: what each of them makes of a refusal, by sslmode. Prints Markdown tables.

    try.py pgnorth    pgnorth itself (PGNORTH names the binary): refusing, and forwarding to a real PostgreSQL. Fails where a driver sees something unexpected
    try.py ways       each way in which a client could be refused, played by fake_refusals.py
    try.py silence    a server that accepts and stays silent: how long a driver waits by its own defaults; takes 200 s

A client is a program that reads a case as a line of four fields (hosts as host:port,…; sslmode; sslnegotiation; CA file), with tabs between, and prints
three fields: the error's class, its SQLSTATE and its text; or `port N`, by the server's own `show port`.
"""

import asyncio
import pathlib
import sys
import tempfile
import time

import drivers
import fake_refusals
import servers

REASON = "no primary could be reached"


def row(*cells):
    print("| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |", flush=True)


def title(*cells):
    row(*cells)
    row(*["--"] * len(cells))


async def ways(tls, postgres):
    """What a user reads, whether the next host is tried, whether user and database went in clear."""
    title("driver", "sslmode", "way", "error", "next host", "in clear")
    for name in drivers.DRIVERS:
        async with drivers.started(name) as driver:
            for mode, negotiation in driver.cases:
                for way in fake_refusals.WAYS:
                    fake = fake_refusals.Refusals(way, tls)
                    port = await fake.start()
                    outcome = await driver.ask(f"localhost:{port}", mode, negotiation, tls)
                    clear = "yes" if fake.clear else "no"
                    row(driver.version, f"{mode} {negotiation}", way, outcome, await next_host(driver, port, postgres, mode, negotiation, tls), clear)


async def next_host(driver, port, postgres, mode, negotiation, tls):
    """Whether a driver that was refused by the first host goes on to the second."""
    if not driver.many_hosts:
        return "-"
    hosts = f"localhost:{port},localhost:{postgres.port}"
    return "yes" if (await driver.ask(hosts, mode, negotiation, tls)).port == postgres.port else "no"


async def pgnorth(tls, postgres):
    """Refused with a certificate made at start, refused with the operator's, forwarded."""
    patroni = servers.FakePatroni(postgres.port)
    made = await servers.Pgnorth.start("http://127.0.0.1:1", "--hold", "0s")
    given = await servers.Pgnorth.start("http://127.0.0.1:1", "--hold", "0s", "--refusal-cert", tls.certificate, "--refusal-key", tls.key)
    forwarding = await servers.Pgnorth.start(await patroni.start())
    unexpected = []
    title("driver", "sslmode", "refused, certificate made at start", "next host", "refused, operator's certificate", "next host", "forwarded")
    for name in drivers.DRIVERS:
        async with drivers.started(name) as driver:
            for mode, negotiation in driver.cases:
                cells = []
                for refusing in [made, given]:
                    outcome = await driver.ask(f"localhost:{refusing.port}", mode, negotiation, tls)
                    following = await next_host(driver, refusing.port, postgres, mode, negotiation, tls)
                    cells += [outcome, following]
                    # A driver that checks certificates must not trust one that was made at start.
                    told = refusing is given or not mode.startswith("verify")
                    if (REASON in outcome.text) != told or (told and following == "no") or outcome.port:
                        unexpected.append(f"{driver.version}, {mode} {negotiation}: {outcome}; next host: {following}")
                forwarded = await driver.ask(f"localhost:{forwarding.port}", mode, negotiation, tls)
                if forwarded.port != postgres.port:
                    unexpected.append(f"{driver.version}, {mode} {negotiation}, forwarded: {forwarded}")
                row(driver.version, f"{mode} {negotiation}", *cells, forwarded)
    for one in [made, given, forwarding]:
        one.stop()
    return unexpected


async def silence(_tls, _postgres):
    """How long a driver waits by its own defaults."""
    title("driver", "sslmode", "gave up after", "error")

    async def listen(_reader, writer):
        mute.append(writer)

    mute = []
    server = await asyncio.start_server(listen, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]

    async def one(name, mode):
        async with drivers.started(name) as driver:
            begun = time.monotonic()
            try:
                outcome = await driver.ask(f"localhost:{port}", mode, "", None, 200)
                row(driver.version, mode, f"{time.monotonic() - begun:.1f} s", outcome)
            except asyncio.TimeoutError:
                row(driver.version, mode, "not within 200 s", "")

    await asyncio.gather(*(one(name, mode) for name in drivers.DRIVERS for mode in ["disable", "require"]))


async def main():
    tries = {"pgnorth": pgnorth, "ways": ways, "silence": silence}
    if len(sys.argv) != 2 or sys.argv[1] not in tries:
        sys.exit(f"usage: try.py {'|'.join(tries)}")
    with tempfile.TemporaryDirectory(prefix="pgnorth-drivers.") as scratch:
        folder = pathlib.Path(scratch)
        # PostgreSQL runs as a user of its own.
        folder.chmod(0o755)
        tls = servers.Tls(folder)
        postgres = await servers.Postgres.start(folder, tls)
        try:
            unexpected = await tries[sys.argv[1]](tls, postgres)
        finally:
            postgres.stop()
    if unexpected:
        sys.exit("\n".join(["unexpected:", *unexpected]))


asyncio.run(main())
