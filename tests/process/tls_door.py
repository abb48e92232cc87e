"""The TLS port of a gateway, from outside: a `Door` stands where a gateway does, and what Python's `ssl` (OpenSSL) and
the `openssl` command say of it."""

import asyncio
import contextlib
import re
import socket
import ssl

from certificates import Authority
from support import PATIENCE_S, Raw, until

# Records of these kinds begin with this, whatever is in them; both versions write 3.3 after it.
ALERT, HANDSHAKE = 21, 22
# A record's head: kind, version, length.
HEAD_BYTES = 5


class Door:
    """To be used in a gateway's place: `Client.open(door, ...)`, `Raw.open(door)`, `Neighbour.beside(door)`."""

    def __init__(self, gateway, authority, **speech):
        self.gateway, self.authority = gateway, authority
        self.host, self.port = gateway.tls
        self.url = f"wss://{self.host}:{self.port}/ws"
        self.ssl = authority.context(**speech)

    def __getattr__(self, name):
        return getattr(self.gateway, name)

    def speaking(self, **speech):
        """The same door for somebody who speaks in another way."""
        return Door(self.gateway, self.authority, **speech)

    async def shaken(self, name=None, session=None, **speech):
        """A connection after its handshake, as Python has it; the caller closes it. Its certificate is checked for
        127.0.0.1, or with a `name` not at all, and then the name is told."""

        def shake():
            context = self.authority.context(**speech, checks=name is None) if speech or name else self.ssl
            plain = socket.create_connection((self.host, self.port), timeout=PATIENCE_S)
            try:
                # Its end has to be said: what is cut is an error.
                return context.wrap_socket(
                    plain, server_hostname=name or self.host, session=session, suppress_ragged_eofs=False,
                )
            except BaseException:
                plain.close()
                raise

        return await asyncio.to_thread(shake)

    async def served(self, name=None):
        """The certificate that is shown, in DER."""
        with await self.shaken(name) as secured:
            return secured.getpeercert(True)

    async def refusal(self, **speech):
        """Why a handshake fails, in OpenSSL's words; None where a request is answered. Over TLS 1.3 a client hears of
        it only when it reads."""
        try:
            with await self.shaken(**speech) as secured:
                await answer(secured)
        except ssl.SSLError as error:
            return str(error).upper().replace(" ", "_")
        return None


async def answer(secured, path="/health", goodbye=True):
    """The answer to a request up to the end of the connection, whose end the gateway says."""

    def ask():
        secured.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        heard = b""
        try:
            while piece := secured.recv(1 << 16):
                heard += piece
        except ssl.SSLEOFError:
            assert not goodbye, f"cut after {heard!r}"
        return heard

    heard = await asyncio.to_thread(ask)
    assert heard.startswith(b"HTTP/1.1 200 "), heard
    return heard


@contextlib.asynccontextmanager
async def secured(start, *arguments, key="P-256", certificate=None, authority=None, **environment):
    """A gateway with a plain port and one for TLS, as `Door`; `start` is a test's own. Its certificate is
    `door.certificate`."""
    with Authority.here() as own:
        authority = authority or own
        certificate = certificate or authority.issued(key=key)
        gateway = await start(*arguments, **{
            "RINGROOM_TLS__LISTEN": "127.0.0.1:0", "RINGROOM_TLS__CERTIFICATE_FILE": certificate.path,
            "RINGROOM_TLS__KEY_FILE": certificate.key_path, **environment,
        })
        assert gateway.tls, f"no TLS port; {gateway.tail()}"
        door = Door(gateway, authority)
        door.certificate = certificate
        yield door


async def openssl(door, *words, said=b"", name="localhost"):
    """All that `openssl s_client` prints until it ends, which it does when `said` is told."""
    process = await asyncio.create_subprocess_exec(
        "openssl", "s_client", "-connect", f"{door.host}:{door.port}", "-CAfile", door.authority.path, "-servername", name, *words,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )
    try:
        printed, _ = await asyncio.wait_for(process.communicate(said), PATIENCE_S)
    except BaseException:
        if process.returncode is None:
            process.kill()
        raise
    return printed.decode(errors="replace")


def agreed(printed):
    """Version and cipher of what `openssl` printed; None where nothing was agreed on."""
    found = re.search(r"^New, (\S+), Cipher is (\S+)$", printed, re.M)
    return None if not found or found[2] == "(NONE)" else (found[1], found[2])


def client_hello(context, name="localhost"):
    """The first flight of a client, and nobody who waits for its answer."""
    outgoing = ssl.MemoryBIO()
    tls = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=name)
    with contextlib.suppress(ssl.SSLWantReadError):
        tls.do_handshake()
    return outgoing.read()


def in_records_of(bytes, flight):
    """The one handshake record of this flight as many, each with so many bytes."""
    assert flight[0] == HANDSHAKE and int.from_bytes(flight[3:5], "big") == len(flight) - HEAD_BYTES, "one record"
    rest, records = flight[HEAD_BYTES:], b""
    while rest:
        piece, rest = rest[:bytes], rest[bytes:]
        records += flight[:3] + len(piece).to_bytes(2, "big") + piece
    return records


class Pieces(Raw):
    """A client whose encrypted bytes leave in pieces of `size()` bytes each, `first` being changed before."""

    @classmethod
    async def open(cls, door, size, first=lambda flight: flight, source="127.0.0.1", **speech):
        heard, plain = await asyncio.open_connection(door.host, door.port, local_addr=(source, 0))
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = door.authority.context(**speech).wrap_bio(incoming, outgoing, server_hostname=door.host)
        self = cls(asyncio.StreamReader(), plain)
        self.tls, self.plain, self.outgoing, self.size = tls, plain, outgoing, size
        while True:
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                await self._leave(first)
                first = lambda flight: flight
                came = await asyncio.wait_for(heard.read(1 << 16), PATIENCE_S)
                assert came, "ended in the handshake"
                incoming.write(came)
        await self._leave(first)
        self.pump = asyncio.create_task(self._pump(heard, incoming))
        return self

    async def _pump(self, heard, incoming):
        while True:
            with contextlib.suppress(ssl.SSLWantReadError):
                while piece := self.tls.read(1 << 16):
                    self.reader.feed_data(piece)
                self.reader.feed_eof()
                return
            came = await heard.read(1 << 16)
            if not came:
                return self.reader.set_exception(EOFError("cut without a goodbye"))
            incoming.write(came)

    async def _leave(self, change=lambda flight: flight):
        rest = change(self.outgoing.read())
        while rest:
            piece = self.size()
            self.plain.write(rest[:piece])
            rest = rest[piece:]
            # Each in a segment of its own, which the gateway may well see by itself.
            await self.plain.drain()
            await asyncio.sleep(0)

    async def say(self, data, record_bytes=1 << 14):
        """In records of so many bytes."""
        for at in range(0, len(data), record_bytes):
            self.tls.write(data[at : at + record_bytes])
        await self._leave()

    def drop(self):
        self.pump.cancel()
        self.plain.close()


async def heard_of(door, said, source="127.0.0.1", goes=False):
    """Everything that a socket hears that says this to the TLS port; it ends its own side where it `goes`. None where
    it is reset."""
    reader, writer = await asyncio.open_connection(door.host, door.port, local_addr=(source, 0))
    try:
        writer.write(said)
        await writer.drain()
        if goes:
            writer.write_eof()
        return await asyncio.wait_for(reader.read(-1), PATIENCE_S)
    except ConnectionError:
        return None
    finally:
        writer.close()


async def shows(door, certificate, name=None):
    """Waits until new connections are shown this certificate."""

    async def is_shown():
        return await door.served(name) == certificate.der

    await until(is_shown, "the new certificate to be shown")
