"""A fake server that refuses every client in one of the ways in which pgnorth might, and notes what it could read in clear."""

import asyncio
import socket
import ssl
import struct

SSL_REQUEST = struct.pack("!II", 8, 80877103)
WAYS = ["decline", "error", "close", "reset", "tls"]
TEXT = "no primary could be reached"


def error_response(code="57P03", text=TEXT):
    fields = b"".join(kind + value.encode() + b"\0" for kind, value in [(b"S", "FATAL"), (b"V", "FATAL"), (b"C", code), (b"M", text)])
    return b"E" + struct.pack("!I", len(fields) + 5) + fields + b"\0"


class Refusals:
    """One port; `clear` says whether a user's name came without TLS."""

    def __init__(self, way, tls):
        self.way = way
        self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.tls.load_cert_chain(tls.certificate, tls.key)
        self.tls.set_alpn_protocols(["postgresql"])
        self.clear = False

    async def start(self):
        self.server = await asyncio.start_server(self.session, "127.0.0.1", 0)
        return self.server.sockets[0].getsockname()[1]

    async def session(self, reader, writer):
        try:
            await asyncio.wait_for(self.refuse(reader, writer), 5)
        except (OSError, EOFError, asyncio.TimeoutError):
            pass
        finally:
            writer.close()

    async def refuse(self, reader, writer):
        first = await reader.readexactly(1)
        if first == b"\x16":
            # asyncio cannot put a byte back in front of TLS: direct TLS is closed, whatever the way.
            return self.abort(writer) if self.way == "reset" else None
        packet = first + await reader.readexactly(7)
        if packet != SSL_REQUEST:
            return await self.tell(packet, reader, writer, clear=True)
        if self.way == "decline":
            writer.write(b"N")
            await self.tell(await reader.readexactly(8), reader, writer, clear=True)
        elif self.way == "error":
            writer.write(error_response())
            writer.write_eof()
            await reader.read()
        elif self.way == "reset":
            self.abort(writer)
        elif self.way == "tls":
            writer.write(b"S")
            await writer.start_tls(self.tls)
            await self.tell(await reader.readexactly(8), reader, writer, clear=False)

    async def tell(self, head, reader, writer, clear):
        length, _version = struct.unpack("!II", head)
        await reader.readexactly(length - 8)
        self.clear |= clear
        writer.write(error_response())
        await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()
        await reader.read()

    @staticmethod
    def abort(writer):
        connection = writer.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()
