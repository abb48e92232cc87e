"""The operators' side: metrics, readiness and health, the service log and the audit log."""

import asyncio
import json
import os
import signal
import tempfile
import urllib.error
import urllib.request

from cases_commands import command
from cases_config import File, log_of, reloaded, with_secret
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_prometheus
from support import (
    PATIENCE_S, SECRET, Client, Neighbour, Raw, case, fresh, handshake, token, until,
)

OPENMETRICS = "application/openmetrics-text; version=1.0.0"
CUMULATIVE = ("_total", "_bucket", "_count", "_sum")


async def ask(gateway, path, method="GET", **headers):
    """Status, headers and body of the operators' port."""

    def fetch():
        request = urllib.request.Request(f"http://{gateway.ops}{path}", method=method, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
                return answer.status, dict(answer.headers), answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, dict(error.headers), error.read().decode()

    return await asyncio.to_thread(fetch)


async def samples(gateway, parse=parse_prometheus, **headers):
    """All samples by name and labels, and the families, as an independent parser reads them."""
    status, head, text = await ask(gateway, "/metrics", **headers)
    assert status == 200, (status, text)
    families = list(parse(text))
    found = {}
    for family in families:
        for sample in family.samples:
            key = (sample.name, tuple(sorted(sample.labels.items())))
            assert key not in found, f"twice: {key}"
            found[key] = sample.value
    return found, families, head, text


def total(found, name, **labels):
    """All samples of a name that have these labels, added up."""
    return sum(value for (other, own), value in found.items() if other == name and set(labels.items()) <= set(own))


@case(both_ios=True)
async def metrics_are_read_by_an_independent_parser_with_help_type_and_unit(gateway):
    client = await Client.open(gateway, fresh("ada"))
    room = fresh("lobby")
    await client.join(room)
    await client.publish(room, "chat", {"text": "x"})
    await client.push("chat", room)
    await client.refused("nonsense")
    found, families, head, text = await samples(gateway)
    assert head["content-type"] == "text/plain; version=0.0.4; charset=utf-8", head
    assert len(found) < 400, f"{len(found)} series"
    for family in families:
        assert family.documentation and " Unit: " in family.documentation, family.name
        assert family.type in ("counter", "gauge", "histogram"), (family.name, family.type)
        assert family.samples or family.name.startswith("ringroom_"), family.name
        unit = family.documentation.rsplit(" Unit: ", 1)[1].rstrip(".")
        for known in ("seconds", "bytes"):
            assert (unit == known) == family.name.endswith(f"_{known}"), (family.name, unit)
        for sample in family.samples:
            if family.type == "counter":
                assert sample.name.endswith("_total"), sample.name
    for line in text.splitlines():
        name = line.split("{")[0].split(" ")[0]
        assert line.startswith("# ") or name.startswith(("ringroom_", "process_")), line
    assert total(found, "ringroom_build_info", io=gateway.io) == 1, "the build"
    assert total(found, "ringroom_turn_seconds_count") > 0 and total(found, "ringroom_delivery_lag_seconds_count") > 0
    assert total(found, "ringroom_request_errors_total", code="unknown_event") >= 1
    assert total(found, "process_resident_memory_bytes") > 1 << 20
    assert total(found, "process_max_fds") > total(found, "process_open_fds") > 5
    assert {"shard", "peer"} == {label for label, _ in next(own for name, own in found if name == "ringroom_lane_free")}

    opened, families, head, text = await samples(gateway, parse_openmetrics, Accept=OPENMETRICS)
    assert head["content-type"].startswith("application/openmetrics-text"), head
    assert text.endswith("# EOF\n")
    units = {family.name: family.unit for family in families}
    assert units["ringroom_turn_seconds"] == "seconds" and units["ringroom_read_bytes"] == "bytes", units
    assert {name for name, _ in found} == {name for name, _ in opened}
    await client.close()


@case(own=True)
async def what_is_counted_agrees_with_what_clients_saw_and_never_goes_back(start):
    gateway = await start()
    room, members, messages = fresh("lobby"), 6, 50
    clients = [await Client.open(gateway, fresh("ada")) for _ in range(members)]
    for client in clients:
        await client.join(room)
    before, _, _, _ = await samples(gateway)
    stop = asyncio.Event()

    async def scrape():
        """Counters and histograms only grow, whoever scrapes beside us."""
        last, scrapes = before, 0
        while not stop.is_set():
            for found, _, _, _ in await asyncio.gather(*(samples(gateway) for _ in range(3))):
                for key, value in last.items():
                    if key[0].endswith(CUMULATIVE):
                        assert found[key] >= value, (key, value, found[key])
                buckets = [value for (name, own), value in found.items()
                           if name == "ringroom_turn_seconds_bucket" and ("shard", "0") in own]
                assert buckets == sorted(buckets), buckets
            last, scrapes = found, scrapes + 1
        return scrapes

    scraper = asyncio.create_task(scrape())
    for number in range(messages):
        await clients[number % members].publish(room, "chat", {"number": number})
    for client in clients:
        await client.several("chat", messages, room)
    stop.set()
    assert await scraper > 0
    after, _, _, _ = await samples(gateway)

    def grown(name, **labels):
        return total(after, name, **labels) - total(before, name, **labels)

    assert grown("ringroom_publishes_total") == messages
    assert grown("ringroom_deliveries_total") == messages * members
    assert grown("ringroom_requests_total") == messages
    assert total(after, "ringroom_connections") == members == total(after, "ringroom_websockets")
    assert total(after, "ringroom_connections_opened_total") == members
    assert grown("ringroom_read_bytes_total") > messages * 40
    assert grown("ringroom_written_bytes_total") > messages * members * 40
    stats = await gateway.stats()
    assert stats["publishes"] == total(after, "ringroom_publishes_total")
    await clients[0].close()

    async def closed():
        found, _, _, _ = await samples(gateway)
        return total(found, "ringroom_connections_gone_total") == 1 == total(found, "ringroom_closes_total", code="normal")

    await until(closed, "the close to be counted")
    for client in clients[1:]:
        await client.close()


@case
async def a_gateway_that_is_well_says_so_in_every_way(gateway):
    for path, body in (("/health", {"status": "ok"}), ("/ready", {"ready": True, "reasons": []})):
        status, _, text = await ask(gateway, path)
        assert status == 200 and body.items() <= json.loads(text).items(), (path, status, text)
        status, head, text = await ask(gateway, path, "HEAD")
        assert status == 200 and text == "" and int(head["content-length"]) > 0, (path, status, head)
    for path, method, wanted in (("/metrics", "POST", 405), ("/log", "DELETE", 405), ("/nothing", "GET", 404)):
        status, _, text = await ask(gateway, path, method)
        assert status == wanted and json.loads(text)["error"]["message"], (path, status, text)
    status, out, errors = await command("health", "--ready", "--ops", gateway.ops)
    assert status == 0 and '"ready":true' in out, (out, errors)


@case(own=True)
async def without_a_key_nobody_should_come(start):
    gateway = await start(RINGROOM_JWT_SECRET=None, RINGROOM_JWT__JWKS_URL="http://127.0.0.1:1/jwks.json")
    status, _, text = await ask(gateway, "/ready")
    reasons = json.loads(text)["reasons"]
    assert status == 503 and [reason["code"] for reason in reasons] == ["no_keys"], text
    assert "jwt.jwks_url" in reasons[0]["advice"] and reasons[0]["what"], text
    status, _, _ = await ask(gateway, "/ready", "HEAD")
    assert status == 503
    status, _, _ = await ask(gateway, "/health")
    assert status == 200, "a restart would not help"
    status, out, errors = await command("health", "--ready", "--ops", gateway.ops)
    assert status == 1 and "no_keys" in out and "not ready" in errors, (out, errors)
    found, _, _, _ = await samples(gateway)
    assert total(found, "ringroom_ready") == 0


@case(own=True)
async def a_gateway_that_drains_lives_and_is_not_ready(start):
    gateway = await start(RINGROOM_DRAIN__SPREAD_MS="0")
    # It never answers the close, so the drain has to wait for it.
    silent = await Raw.upgraded(gateway, token("silent"))
    gateway.process.send_signal(signal.SIGTERM)

    async def draining():
        status, _, text = await ask(gateway, "/ready")
        return text if status == 503 else None

    reasons = json.loads(await until(draining, "the drain"))["reasons"]
    assert "draining" in [reason["code"] for reason in reasons], reasons
    assert "not_listening" not in [reason["code"] for reason in reasons], reasons
    status, _, text = await ask(gateway, "/health")
    assert status == 200 and json.loads(text)["status"] == "draining", (status, text)
    found, _, _, _ = await samples(gateway)
    assert total(found, "ringroom_draining") == 1 and total(found, "ringroom_ready") == 0
    silent.drop()
    assert await asyncio.wait_for(gateway.process.wait(), PATIENCE_S) == 0


@case(own=True)
async def the_log_is_json_line_by_line_and_its_level_changes_at_run_time(start):
    with File(with_secret(SECRET, "[log]\nformat = 'json'\n")) as file:
        gateway = await start("--config", file.path, RINGROOM_JWT_SECRET=None)
        # The names that strangers choose are in no line, whatever they are.
        raw = await Raw.open(gateway)
        raw.write(handshake(gateway, "no.to.ken", User_Agent='x","level":"forged', Origin="https://a\x1b[0m"))
        await raw.answer()
        raw.drop()
        assert json.loads((await ask(gateway, "/log"))[2]) == {"level": "info"}
        status, _, text = await ask(gateway, "/log?level=debug", "PUT")
        assert status == 200 and json.loads(text) == {"level": "debug"}, (status, text)
        for wrong in ("/log", "/log?level=loud", "/log?level="):
            status, _, text = await ask(gateway, wrong, "PUT")
            assert status == 400 and "PUT /log?level=debug" in text, (wrong, status, text)
        status, out, errors = await command("log", "error", "--ops", gateway.ops)
        assert status == 0 and json.loads(out) == {"level": "error"}, (out, errors)
        status, out, errors = await command("log", "loud", "--ops", gateway.ops)
        assert status == 2 and "trace" in errors, (out, errors)
        # A reload brings back what is configured.
        await reloaded(gateway, "reloaded: nothing has changed")
        assert json.loads((await ask(gateway, "/log"))[2]) == {"level": "info"}
        lines = [json.loads(line) for line in log_of(gateway).splitlines()]
        for line in lines:
            assert {"ts", "level", "message"} <= set(line) <= {"ts", "level", "message", "shard"}, line
            assert line["level"] in ("error", "warn", "info", "debug", "trace"), line
        assert any("level of this log is debug, was info" in line["message"] for line in lines), lines
        file.write(with_secret(SECRET, "[log]\nformat = 'text'\n"))
        await reloaded(gateway, " INFO  reloaded: log.format")


class Audit:
    """The audit log of one test."""

    def __init__(self):
        self.folder = tempfile.TemporaryDirectory()
        self.path = os.path.join(self.folder.name, "audit.log")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.folder.cleanup()

    def lines(self, kind=None, path=None):
        # Between two files while it is moved away.
        if not os.path.exists(path or self.path):
            return []
        with open(path or self.path, newline="\n") as file:
            text = file.read()
        # The last line may be on its way.
        lines = [json.loads(line) for line in text.split("\n")[:-1]]
        for line in lines:
            assert list(line)[:2] == ["ts", "kind"], line
        return [line for line in lines if kind in (None, line["kind"])]

    async def line(self, kind, **fields):
        """The one line of this kind with these fields, once it is there."""

        def look():
            return [line for line in self.lines(kind) if fields.items() <= line.items()]

        found = await until(look, f"{kind} {fields} in the audit log")
        assert len(found) == 1, found
        return found[0]


@case(own=True, both_ios=True)
async def the_audit_log_says_who_came_went_and_was_refused(start):
    with Audit() as audit, File(with_secret(SECRET, f"[audit]\nfile = '{audit.path}'\n")) as file:
        gateway = await start("--config", file.path, RINGROOM_JWT_SECRET=None)
        assert (await audit.line("started"))["shards"] == 2
        assert os.stat(audit.path).st_mode & 0o777 & ~0o640 == 0
        ada = await Client.open(gateway, "ada", jti="token-7", tenant="acme", device="phone")
        line = await audit.line("connected", user="ada")
        expected = {"tenant": "acme", "address": "127.0.0.1", "token": "token-7", "device": "phone", "conn": ada.connected["conn"]}
        assert expected.items() <= line.items(), line
        assert line["shard"] == int(line["conn"].split("-")[0]), line
        await ada.join("chat:1")
        await ada.close()
        line = await audit.line("closed", user="ada")
        assert (line["code"], line["reason"], line["conn"]) == (1000, "closed by the client", ada.connected["conn"]), line
        assert line["duration_ms"] >= 0 and line["address"] == "127.0.0.1", line

        raw = await Raw.upgraded(gateway, token("bob"))
        raw.drop()
        assert (await audit.line("closed", user="bob"))["code"] == 1006
        for _ in range(3):
            raw = await Raw.open(gateway)
            raw.write(handshake(gateway, token("eve", secret="some other secret of at least 32 bytes"), Origin="https://evil.example"))
            await raw.answer()
            raw.drop()
        raw = await Raw.open(gateway)
        raw.write("GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n")
        await raw.answer()
        raw.drop()

        def refused():
            return sum(line["count"] for line in audit.lines("refused") if line.get("origin") == "https://evil.example") == 3

        await until(refused, "three refusals")
        assert (await audit.line("refused", reason="path"))["address"] == "127.0.0.1"
        assert not audit.lines("request"), "no events were asked for"

        file.write(with_secret(SECRET, f"[audit]\nfile = '{audit.path}'\nevents = 'room:*,ping'\n[limits]\nidle_ms = 99\n"))
        moved = audit.path + ".1"
        os.rename(audit.path, moved)
        await reloaded(gateway, "reloaded: limits.idle_ms, audit.events")
        line = await audit.line("reloaded", outcome="ok")
        assert line["changed"] == ["limits.idle_ms", "audit.events"] and SECRET not in json.dumps(line), line
        assert audit.lines(path=moved)[0]["kind"] == "started"
        file.write("[limits]\nidle_ms = 0\n")
        await reloaded(gateway, "not reloaded")
        assert (await audit.line("reloaded", outcome="refused"))["errors"] == 1

        cat = await Client.open(gateway, "cat", rooms={"join": ["chat:*", "a", "b"]})
        await cat.join("chat:1")
        await cat.publish("chat:1", "chat", {"text": "a secret payload"})
        await cat.refused("room:join", {"room": "elsewhere"})
        await cat.ok("room:join-many", {"rooms": ["a", "b"]})
        await cat.settled()
        assert (await audit.line("request", event="room:join", outcome="ok"))["rooms"] == ["chat:1"]
        line = await audit.line("request", event="room:publish")
        assert (line["user"], line["outcome"], line["conn"]) == ("cat", "ok", cat.connected["conn"]), line
        assert (await audit.line("request", outcome="forbidden"))["rooms"] == ["elsewhere"]
        assert (await audit.line("request", event="room:join-many"))["rooms_count"] == 2
        assert (await audit.line("request", event="ping"))["rooms"] == []
        assert await gateway.terminate() == 0
        assert (await audit.line("closed", user="cat"))["code"] == 1012
        kinds = [line["kind"] for line in audit.lines()]
        assert kinds[-1] == "stopped" and "drained" in kinds and "draining" in kinds, kinds
        with open(audit.path) as whole:
            assert "secret payload" not in whole.read()


@case(own=True)
async def nobody_forges_a_line_of_the_audit_log(start):
    with Audit() as audit:
        gateway = await start(RINGROOM_AUDIT__FILE=audit.path, RINGROOM_AUDIT__EVENTS="*")
        forged = '\n{"ts":"1","kind":"forged"}\n'
        for name in (f"eve{forged}", "eve\u2028\u2029\x85\x1b[2J", '"},{"kind":"forged"', "\\"):
            client = await Client.open(gateway, name, ready=False, jti=name, device=name, name=name)
            await until(lambda: client.closed or client.waiting("connected"), "an answer")
            if not client.closed:
                await client.request("room:join", {"room": name})
                await client.request(name, {"room": name})
            await client.close()
        for origin in ('https://a"},{"kind":"forged', "https://" + "a" * 4_000, "https://\xff\xfe\x1b"):
            raw = await Raw.open(gateway)
            request = handshake(gateway, "no.to.ken", Origin=origin, User_Agent=origin, Host=f"x{origin}")
            raw.write(request.encode("latin-1"))
            await raw.answer()
            raw.drop()
        assert await gateway.terminate() == 0
        lines = audit.lines()
        known = {"started", "connected", "refused", "closed", "request", "draining", "drained", "stopped"}
        assert {line["kind"] for line in lines} <= known, lines
        assert {"connected", "refused"} <= {line["kind"] for line in lines}, lines
        with open(audit.path, "rb") as file:
            longest = max(len(line) for line in file.read().split(b"\n"))
        assert longest < 4_096, longest


@case(own=True)
async def a_full_disk_loses_audit_lines_and_nothing_else(start):
    gateway = await start(RINGROOM_AUDIT__FILE="/dev/full")
    async with Neighbour.beside(gateway):
        async def lost():
            for _ in range(3):
                await (await Client.open(gateway, fresh("ada"))).close()
            found, _, _, _ = await samples(gateway)
            return total(found, "ringroom_audit_lost_total") >= 6

        await until(lost, "lost lines to be counted")
    assert log_of(gateway).count("/dev/full cannot be written") == 1, log_of(gateway)
    assert await gateway.terminate() == 0


@case
async def an_audit_log_that_cannot_be_opened_stops_the_start(gateway):
    with File("[audit]\nfile = '/nonexistent/audit.log'\n") as file:
        status, _, errors = await command("serve", "--config", file.path, "--listen", "127.0.0.1:0", "--ops", "127.0.0.1:0")
    assert status == 78 and "/nonexistent/audit.log" in errors and "audit.file" in errors, (status, errors)
