"""Streams and emits over TLS: what is cut into records and pieces says the same as what is not."""

from cases_sse import IN_PIECES, cut_anywhere
from cases_slow import FILL
from certificates import TLS_1_2, TLS_1_3
from engine_client import Http
from sse_client import Stream, said
from support import Client, case, count, fresh
from tls_door import secured


@case(both_ios=True, own=True)
async def streams_over_tls_that_are_cut_anywhere_lose_nothing_and_double_nothing(start):
    async with secured(start, **IN_PIECES) as door:
        await cut_anywhere(door, numbers=200)


@case(both_ios=True, own=True)
async def streams_over_both_versions_of_tls_are_told_the_same_as_plain_ones(start):
    async with secured(start) as door:
        room = fresh("chat:tls")
        native = await Client.open(door.gateway, fresh("native"))
        doors = [door.gateway, *[door.speaking(version=version) for version in (TLS_1_2, TLS_1_3)]]
        streams = [await Stream.open(way, fresh("reader"), [room]) for way in doors]
        for stream in streams:
            await stream.joined(room)
        # Some are more than one record.
        for n in range(40):
            await native.publish(room, "big", {"n": n, "fill": FILL[: 3 ** (n % 11)]})
        for way, stream in zip(doors, streams):
            http = await Http.open(way)
            for n in range(5):
                data = {"room": room, "event": "big", "data": {"by": stream.user, "fill": FILL}}
                await said(way, stream, "room:publish", data, http=http)
            http.close()
        told = [[push["text"] for push in await stream.several("big", 40 + 15, room)] for stream in streams]
        assert told[0] == told[1] == told[2], "not the same"
        for stream in streams:
            await stream.drop()
        stats = await door.stats()
        assert count(stats, "closes.4410") == 0, stats["closes"]
        await native.close()
