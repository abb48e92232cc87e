"""Tokens: keys from files and servers that change while clients are connected, ends, refreshes, strangers.

Tokens are made by PyJWT, key sets from keys of the `cryptography` package: independent of the gateway's
libraries.
"""

import contextlib
import json
import os
import signal
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from support import Client, case, fresh, token, until

ISSUER = "https://id.example"


class Issuer:
    """A key pair, its tokens and what it publishes."""

    def __init__(self, algorithm, kid):
        self.algorithm, self.kid = algorithm, kid
        if algorithm.startswith(("RS", "PS")):
            self.key = rsa.generate_private_key(65537, 2048)
        elif algorithm == "ES256":
            self.key = ec.generate_private_key(ec.SECP256R1())
        elif algorithm == "ES384":
            self.key = ec.generate_private_key(ec.SECP384R1())
        else:
            self.key = ed25519.Ed25519PrivateKey.generate()

    def jwk(self):
        text = jwt.get_algorithm_by_name(self.algorithm).to_jwk(self.key.public_key())
        return {**json.loads(text), "kid": self.kid, "alg": self.algorithm, "use": "sig"}

    def pem(self):
        return self.key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )

    def token(self, user, **claims):
        claims = {"sub": user, "iss": ISSUER, "iat": int(time.time()), "exp": int(time.time()) + 3600, **claims}
        return jwt.encode(claims, self.key, self.algorithm, headers={"kid": self.kid})


def key_set(*issuers):
    odd = {"kty": "from-the-future", "kid": "odd", "data": [1, 2]}
    return json.dumps({"keys": [odd, *(issuer.jwk() for issuer in issuers)]}).encode()


@contextlib.contextmanager
def scratch_file(content):
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "keys")
        replace(path, content)
        yield path


def replace(path, content):
    """As those who rotate keys do: at once."""
    with open(path + ".new", "wb") as file:
        file.write(content)
    os.replace(path + ".new", path)


class KeyServer:
    """Answers with `body` and counts."""

    def __init__(self, body):
        self.body, self.status, self.asked = body, 200, 0

    def __enter__(self):
        keys = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                keys.asked += 1
                self.send_response(keys.status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(keys.body)))
                self.end_headers()
                self.wfile.write(keys.body)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}/jwks.json"
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()


async def knock(gateway, jwt_text):
    """`None` when the token opens a connection, else the code and reason of the close."""
    client = await Client.open(gateway, "knock", jwt=jwt_text, how="header", ready=False)
    await until(lambda: client.closed or client.waiting("connected"), "an answer to the token")
    if client.closed:
        return client.closed
    await client.close()
    return None


async def is_let_in(gateway, jwt_text):
    return await knock(gateway, jwt_text) is None


@case(own=True)
async def tokens_of_every_algorithm_are_taken_from_a_key_set_in_a_file(start):
    issuers = [Issuer(algorithm, f"k-{algorithm}") for algorithm in
               ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA")]
    with scratch_file(key_set(*issuers)) as path:
        gateway = await start(RINGROOM_JWT__JWKS_FILE=path)
        for issuer in issuers:
            assert await knock(gateway, issuer.token("alice")) is None, issuer.algorithm
            stranger = Issuer(issuer.algorithm, issuer.kid)
            code, reason = await knock(gateway, stranger.token("alice"))
            assert code == 4401 and "signature" in reason, (issuer.algorithm, code, reason)
        assert await knock(gateway, token("bob")) is None, "the shared secret counts beside the key set"
        forged = jwt.encode({"sub": "eve"}, "x" * 64, "HS256", headers={"kid": issuers[0].kid})
        assert (await knock(gateway, forged))[0] == 4401


@case(own=True)
async def a_public_key_in_a_file_is_enough(start):
    issuer = Issuer("RS256", "any")
    with scratch_file(issuer.pem()) as path:
        gateway = await start(RINGROOM_JWT__PUBLIC_KEY_FILE=path, RINGROOM_JWT__ISSUERS=ISSUER,
                              RINGROOM_JWT__AUDIENCES="chat", RINGROOM_JWT__EXPIRY="required")
        assert await knock(gateway, issuer.token("alice", aud=["mail", "chat"])) is None
        for wrong in ({"aud": "mail"}, {"aud": "chat", "iss": "https://evil.example"}, {"aud": "chat", "exp": None}):
            claims = {k: v for k, v in {"sub": "alice", "iss": ISSUER, "exp": 2**31, **wrong}.items() if v}
            text = jwt.encode(claims, issuer.key, "RS256")
            assert (await knock(gateway, text))[0] == 4401, wrong


@case(own=True)
async def a_file_of_keys_is_followed_and_clients_stay(start):
    old, new = Issuer("ES256", "old"), Issuer("EdDSA", "new")
    with scratch_file(key_set(old)) as path:
        gateway = await start(RINGROOM_JWT__JWKS_FILE=path)
        member = await Client.open(gateway, "alice", jwt=old.token("alice"), how="header")
        assert not await is_let_in(gateway, new.token("bob"))
        replace(path, key_set(old, new))
        await until(lambda: is_let_in(gateway, new.token("bob")), "the new key to count")
        replace(path, key_set(new))

        async def is_refused():
            return not await is_let_in(gateway, old.token("carol"))

        await until(is_refused, "the old key to count no more")
        replace(path, b"{ not JSON")
        await member.join(fresh("chat:stays"))
        assert await is_let_in(gateway, new.token("bob")), "a bad file changes nothing"
        await member.close()


@case(both_ios=True, own=True)
async def keys_rotate_at_their_server_under_live_connections(start):
    old, new = Issuer("RS256", "2026-01"), Issuer("RS256", "2026-02")
    with KeyServer(key_set(old)) as server:
        gateway = await start(RINGROOM_JWT__JWKS_URL=server.url, RINGROOM_JWT__REFRESH_MIN_MS="50")
        assert server.asked == 1
        room = fresh("chat:rotate")
        members = [await Client.open(gateway, fresh("user"), jwt=old.token(fresh("user")), how="header") for _ in range(4)]
        for member in members:
            await member.join(room)
        server.body = key_set(old, new)
        assert (await knock(gateway, new.token("first")))[0] == 4401
        # Nobody waits for the interval, which is minutes: the missing key has the set fetched.
        await until(lambda: is_let_in(gateway, new.token("first")), "the new key to count")
        server.body = key_set(new)
        stranger = Issuer("RS256", "2026-03")

        async def is_gone():
            await knock(gateway, stranger.token("eve"))
            return not await is_let_in(gateway, old.token("late"))

        await until(is_gone, "the old key to count no more")
        # A server in trouble changes nothing, and who is in stays in.
        server.status = 500
        await knock(gateway, stranger.token("eve"))
        assert await is_let_in(gateway, new.token("second"))
        receipt = await members[0].request("room:publish", {"room": room, "event": "chat", "data": {}})
        assert receipt["ok"], receipt
        for member in members[1:]:
            await member.push("chat")
        for member in members:
            await member.close()


@case(own=True)
async def strangers_with_unknown_keys_do_not_have_the_server_asked_again_and_again(start):
    known, unknown = Issuer("ES256", "known"), Issuer("ES256", "unknown")
    with KeyServer(key_set(known)) as server:
        gateway = await start(RINGROOM_JWT__JWKS_URL=server.url, RINGROOM_JWT__REFRESH_MIN_MS="600000")
        for _ in range(20):
            code, reason = await knock(gateway, unknown.token("eve"))
            assert code == 4401 and "not known" in reason, (code, reason)
        assert (await gateway.stats())["refused"]["token_unknown_key"] == 20
        assert server.asked == 1, f"asked {server.asked} times, and the least interval is ten minutes"


@case(own=True)
async def a_key_server_that_is_away_at_the_start_is_asked_again(start):
    issuer = Issuer("EdDSA", "late")
    with KeyServer(key_set(issuer)) as server:
        server.status = 503
        gateway = await start(RINGROOM_JWT__JWKS_URL=server.url)
        assert not await is_let_in(gateway, issuer.token("alice"))
        server.status = 200
        await until(lambda: is_let_in(gateway, issuer.token("alice")), "the keys to be loaded")


@case(both_ios=True, own=True)
async def a_connection_is_told_refreshes_and_is_closed_in_the_end(start):
    gateway = await start(RINGROOM_JWT__EXPIRING_MS="60000", RINGROOM_JWT__LEEWAY_S="0")
    user = fresh("user")
    end = int(time.time()) + 30
    client = await Client.open(gateway, user, jwt=token(user, exp=end), how="header")
    assert (await client.push("auth:expiring"))["data"] == {"expires_at": end * 1000}
    refused = await client.request("auth:refresh", {"token": token(fresh("other"))})
    assert refused["error"]["code"] == "forbidden", refused
    refused = await client.request("auth:refresh", {"token": token(user, secret="another secret, also of 32 bytes!")})
    assert refused["error"]["code"] == "unauthorized", refused
    end = int(time.time()) + 6
    refreshed = await client.request("auth:refresh", {"token": token(user, exp=end)})
    assert refreshed["data"] == {"expires_at": end * 1000}, refreshed
    assert (await client.push("auth:expiring"))["data"] == {"expires_at": end * 1000}
    code, reason = await client.until_closed()
    assert code == 4401 and "expired" in reason, (code, reason)
    assert time.time() >= end, "not before its time"


@case(own=True)
async def who_has_no_token_is_let_in_only_where_that_is_enabled(start):
    gateway = await start(RINGROOM_ANONYMOUS__ACCESS="allowed")
    guests = [await Client.open(gateway, "guest", jwt="", how="nowhere", ready=False) for _ in range(2)]
    users = []
    for guest in guests:
        users.append((await guest.push("connected"))["data"]["user"])
    assert len(set(users)) == 2 and all(user.startswith("anon:") for user in users), users
    room = fresh("chat:open")
    await guests[0].join(room)
    refused = await guests[0].request("room:publish", {"room": room, "event": "chat", "data": {}})
    assert refused["error"]["code"] == "forbidden", refused
    assert (await knock(gateway, token(users[0])))[0] == 4401, "no token speaks for them"
    assert (await knock(gateway, "not.a.token"))[0] == 4401, "a bad token is not none"
    for guest in guests:
        await guest.close()


@case(own=True)
async def a_reload_changes_keys_and_claims_and_a_wrong_one_changes_nothing(start):
    first, second = Issuer("ES256", "first"), Issuer("EdDSA", "second")
    with scratch_file(key_set(first)) as one, scratch_file(key_set(second)) as two, scratch_file(b"") as config:
        replace(config, f'[jwt]\njwks_file = "{one}"\n'.encode())
        gateway = await start("--config", config)
        member = await Client.open(gateway, "alice", jwt=first.token("alice"), how="header")
        replace(config, f'[jwt]\njwks_file = "{two}.none"\n'.encode())
        gateway.process.send_signal(signal.SIGHUP)
        await until(lambda: "the old ones stay" in gateway.tail(), "the refusal in the log")
        assert await is_let_in(gateway, first.token("alice"))
        replace(config, f'[jwt]\njwks_file = "{two}"\n[claims]\nuser = "login.name"\n'.encode())
        gateway.process.send_signal(signal.SIGHUP)
        nested = {"login": {"name": "bob"}}
        await until(lambda: is_let_in(gateway, second.token("x", **nested)), "the new set to count")
        client = await Client.open(gateway, "bob", jwt=second.token("x", **nested), how="header")
        assert client.connected["user"] == "bob"
        assert not await is_let_in(gateway, first.token("alice"))
        await member.settled()
        for client in (client, member):
            await client.close()
