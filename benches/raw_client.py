"""WebSocket clients bare enough to do what libraries refuse to: frames are made beforehand and sent as they are.

Invariant: every socket is in the state that the bytes sent so far put it into; nothing is answered by itself.
"""
import base64, os, socket, struct, zlib

CONTINUATION, TEXT, CLOSE, PING, PONG = 0x0, 0x1, 0x8, 0x9, 0xA
FINAL, COMPRESSED = 0x80, 0x40
PATIENCE_S = 30


def deflated(payload):
    """A message's payload as browsers compress it (`RFC 7692` section 7.2.1)."""
    context = zlib.compressobj(wbits=-15)
    return (context.compress(payload) + context.flush(zlib.Z_SYNC_FLUSH))[:-4]


def masked(first, payload, key=b"\x37\xfa\x21\x3d"):
    """A frame of a client (`RFC 6455` section 5.2); `first` is its first byte."""
    size = len(payload)
    if size < 126:
        head = bytes([first, 0x80 | size])
    elif size < 1 << 16:
        head = struct.pack("!BBH", first, 0x80 | 126, size)
    else:
        head = struct.pack("!BBQ", first, 0x80 | 127, size)
    mask = int.from_bytes((key * (size // 4 + 1))[:size], "big")
    return head + key + (int.from_bytes(payload, "big") ^ mask).to_bytes(size, "big")


class Peer:
    """One connection that the server has taken: the push `connected` is read and gone."""

    def __init__(self, to, token, deflate=True):
        host, port = to.rsplit(":", 1)
        self.socket = socket.create_connection((host, int(port)), timeout=PATIENCE_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.heard = b""
        offer = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n" if deflate else ""
        self.socket.sendall((f"GET /ws?token={token} HTTP/1.1\r\nHost: {to}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                             f"Sec-WebSocket-Key: {base64.b64encode(os.urandom(16)).decode()}\r\nSec-WebSocket-Version: 13\r\n"
                             f"{offer}\r\n").encode())
        while b"\r\n\r\n" not in self.heard:
            self.more()
        head, _, self.heard = self.heard.partition(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 101 ") or (b"permessage-deflate" in head) != deflate:
            raise SystemExit(f"not what was asked for: {head.decode(errors='replace')}")
        self.frame()

    def more(self):
        said = self.socket.recv(1 << 16)
        if not said:
            raise EOFError
        self.heard += said

    def frame(self):
        """The next whole frame: its first byte and its payload."""
        at, size = 2, None
        while size is None or len(self.heard) < at + size:
            if size is None and len(self.heard) >= 2:
                short = self.heard[1]
                form = {126: "!H", 127: "!Q"}.get(short)
                at = 2 + (struct.calcsize(form) if form else 0)
                if len(self.heard) >= at:
                    size = struct.unpack_from(form, self.heard, 2)[0] if form else short
                    continue
            self.more()
        first, payload = self.heard[0], self.heard[at:at + size]
        self.heard = self.heard[at + size:]
        return first, payload
