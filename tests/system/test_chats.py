"""Chats and the messages that they carry: decisions D7 to D11, D16, D19, as seen from the wire."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest

from tests.system.harness import ChatClient, Server, StartServer, run_async
from tests.system.servers import two_users

WHERE = pytest.mark.parametrize("where", ["same shard", "other shard"])


def clients(server: Server, where: str) -> tuple[ChatClient, ChatClient]:
    """Two new users, not connected yet."""
    first, second = two_users(server, where)
    return ChatClient(server.url, first, "Alice"), ChatClient(server.url, second, "Bob")


# -- D7: opening --


@WHERE
@run_async
async def test_d7_a_chat_is_one_whoever_opens_it_and_stays_open(server: Server, where: str) -> None:
    """Also across reconnects; the id is a UUID v5, so nobody had to agree on it."""
    alice, bob = clients(server, where)
    async with alice, bob:
        await alice.hello()
        await bob.hello()
        chat_id = await alice.open_chat(bob)
        assert UUID(chat_id).version == 5
        assert await bob.open_chat(alice) == chat_id
    again, bob_again = (
        ChatClient(server.url, alice.user_id, "Alice"),
        ChatClient(server.url, bob.user_id, "Bob"),
    )
    async with again, bob_again:
        await again.hello()
        await bob_again.hello()
        assert (await again.message(bob, "no need to open it again"))["status"] == "delivered"
        assert (await bob_again.message(alice, "indeed"))["status"] == "delivered"
        assert await again.open_chat(bob) == chat_id


@WHERE
@run_async
async def test_d7_all_devices_of_both_are_told_and_opening_again_answers_only_who_asks(
    server: Server, where: str
) -> None:
    alice, bob = clients(server, where)
    alice_too, bob_too = (
        ChatClient(server.url, alice.user_id, "Alice"),
        ChatClient(server.url, bob.user_id, "Bob"),
    )
    async with alice, alice_too, bob, bob_too:
        everybody = (alice, alice_too, bob, bob_too)
        for client in everybody:
            await client.hello()
        await alice.open_chat(bob)
        for client in (alice_too, bob, bob_too):
            await client.receive("CHAT_OPENED")
        for opener, target in ((alice, bob), (bob_too, alice)):
            await opener.open_chat(target)
            await opener.message(target, "so that all of it has come")
            for client in everybody:
                assert [m for m in await client.drain() if m.type == "CHAT_OPENED"] == []


@WHERE
@run_async
async def test_d7_what_no_device_has_seen_comes_at_the_next_hello_before_the_messages(
    server: Server, where: str
) -> None:
    alice, bob = clients(server, where)
    async with alice:
        await alice.hello()
        async with bob:
            await bob.hello()
        await alice.open_chat(bob)
        await alice.message(bob, "first")
        for expected in (["CHAT_OPENED", "MSG"], []):
            async with ChatClient(server.url, bob.user_id, "Bob") as again:
                await again.hello()
                came = [message for message in await again.drain() if message.type != "PRESENCE"]
                assert [message.type for message in came] == expected
                if expected:
                    assert came[0].data["target_user_id"] == alice.user_id
                    await again.send("MSG_ACK", message_id=came[1].data["message_id"])


@WHERE
@run_async
async def test_d7_each_side_names_the_other_as_the_other_does(server: Server, where: str) -> None:
    """What the opener calls the target does not matter; the name that the target gave last does."""
    alice, bob = clients(server, where)
    async with alice, bob:
        await alice.hello(display_name="Alice")
        await bob.hello(display_name="Bob")
        await alice.send("OPEN_CHAT", target_user_id=bob.user_id, target_display_name="Robert")
        assert (await alice.receive("CHAT_OPENED"))["target_display_name"] == "Bob"
        assert (await bob.receive("CHAT_OPENED"))["target_display_name"] == "Alice"
        await bob.hello(display_name="Bobby")
        await alice.send("OPEN_CHAT", target_user_id=bob.user_id, target_display_name="Bob")
        assert (await alice.receive("CHAT_OPENED"))["target_display_name"] == "Bobby"
        await alice.hello(display_name="Alicia")
        await bob.send("OPEN_CHAT", target_user_id=alice.user_id, target_display_name="Alice")
        assert (await bob.receive("CHAT_OPENED"))["target_display_name"] == "Alicia"


# -- D8, D9: with whom --


@run_async
async def test_d8_strangers_and_oneself(server: Server) -> None:
    async with ChatClient(server.url) as alice:
        await alice.hello()
        for index in ("same shard", "other shard"):
            stranger = two_users(server, index)[1]
            await alice.send("OPEN_CHAT", target_user_id=stranger, target_display_name="Nobody")
            assert (await alice.error("USER_NOT_FOUND"))["details"]["field"] == "target_user_id"
        await alice.send("OPEN_CHAT", target_user_id=alice.user_id, target_display_name="Myself")
        assert (await alice.error("VALIDATION"))["details"]["field"] == "target_user_id"
        await alice.send("MSG", to=alice.user_id, content="to myself")
        assert (await alice.error("CHAT_NOT_OPENED"))["details"]["type"] == "MSG"


@WHERE
@run_async
async def test_d9_unknown_not_opened_and_offline(server: Server, where: str) -> None:
    alice, bob = clients(server, where)
    async with alice:
        await alice.hello()
        await alice.send("MSG", to=bob.user_id, content="hi", message_id="m-1")
        assert (await alice.error("USER_NOT_FOUND"))["details"] == {
            "field": "to",
            "type": "MSG",
            "message_id": "m-1",
        }
        async with bob:
            await bob.hello()
            await alice.send("MSG", to=bob.user_id, content="hi", message_id="m-1")
            assert (await alice.error("CHAT_NOT_OPENED"))["details"] == {
                "field": "to",
                "type": "MSG",
                "message_id": "m-1",
            }
            await alice.open_chat(bob)
        for number in range(3):
            await alice.message(bob, f"{number}")
        async with ChatClient(server.url, bob.user_id) as again:
            await again.hello()
            assert [(await again.receive("MSG"))["content"] for _ in range(3)] == ["0", "1", "2"]


# -- D10: message ids --


@pytest.mark.attack("message_id tricks")
@pytest.mark.parametrize(
    "message_id", ["", "x" * 65, "with space", "<b>", "a&b", "a'b", 'a"b', "é", "a\nb", 7, True, ["x"]]
)
@run_async
async def test_d10_what_is_no_message_id(server: Server, message_id: object) -> None:
    async with ChatClient(server.url) as alice:
        await alice.hello()
        await alice.send("MSG", to=str(uuid4()), content="hi", message_id=message_id)
        assert (await alice.error("VALIDATION"))["details"]["field"] == "message_id"


@pytest.mark.attack("message_id tricks")
@WHERE
@run_async
async def test_d10_a_repeat_is_answered_and_not_delivered_twice(server: Server, where: str) -> None:
    """While the recipient is there, when it is not, and across the sender's reconnect."""
    alice, bob = clients(server, where)
    async with alice, bob:
        await alice.hello()
        await bob.hello()
        await alice.open_chat(bob)
        identifier = "!#$%()*+,-./:;=?@[]^_`{|}~" + "x" * 38
        for _ in range(3):
            answer = await alice.message(bob, "once", message_id=identifier)
            assert answer == {"message_id": identifier, "status": "delivered"}
        async with ChatClient(server.url, alice.user_id, "Alice") as again:
            await again.hello()
            assert (await again.message(bob, "once", message_id=identifier))["status"] == "delivered"
        assert [message.data["content"] for message in await bob.drain() if message.type == "MSG"] == ["once"]
        await bob.message(alice, "my own", message_id=identifier)  # ids are the sender's own
        assert (await alice.receive("MSG"))["content"] == "my own"


@WHERE
@run_async
async def test_d10_repeats_of_a_stored_message_say_stored_until_it_is_delivered(
    server: Server, where: str
) -> None:
    alice, bob = clients(server, where)
    async with alice:
        await alice.hello()
        async with bob:
            await bob.hello()
            await alice.open_chat(bob)
        for _ in range(2):
            assert (await alice.message(bob, "later", message_id="m"))["status"] == "stored"
        async with ChatClient(server.url, bob.user_id) as again:
            await again.hello()
            await again.receive("MSG", message_id="m")
            assert (await alice.message(bob, "later", message_id="m"))["status"] == "delivered"
            assert [message for message in await again.drain() if message.type == "MSG"] == []


@pytest.mark.attack("message_id tricks")
@WHERE
@run_async
async def test_d10_the_same_id_with_another_content(server: Server, where: str) -> None:
    alice, bob = clients(server, where)
    async with alice, bob:
        await alice.hello()
        await bob.hello()
        await alice.open_chat(bob)
        await alice.message(bob, "one", message_id="m")
        await alice.send("MSG", to=bob.user_id, content="two", message_id="m")
        details = (await alice.error("VALIDATION"))["details"]
        assert (details["field"], details["message_id"]) == ("message_id", "m")
        assert [message.data["content"] for message in await bob.drain() if message.type == "MSG"] == ["one"]


@pytest.mark.slow
@pytest.mark.parametrize("where", ["same shard", "other shard"])
@run_async
async def test_d10_rejected_and_repeated_messages_do_not_count(start_server: StartServer, where: str) -> None:
    server = start_server(messages_per_minute=3)
    alice, bob = clients(server, where)
    async with alice, bob:
        await alice.hello()
        await bob.hello()
        for _ in range(4):
            await alice.send("MSG", to=bob.user_id, content="too early")
            await alice.error("CHAT_NOT_OPENED")
            await alice.send("MSG", to=bob.user_id, content="")
            await alice.error("VALIDATION")
        await alice.open_chat(bob)
        for number in range(3):
            for _ in range(3):
                await alice.message(bob, f"{number}", message_id=f"{number}")
        await alice.send("MSG", to=bob.user_id, content="one too many")
        await alice.error("RATE_LIMITED")
        assert (await alice.message(bob, "0", message_id="0"))[
            "status"
        ] == "delivered"  # over the limit, but a repeat


# -- D11: what the sender is told --


@WHERE
@run_async
async def test_d11_one_ack_for_each_message(server: Server, where: str) -> None:
    """`delivered` for a recipient who is there, `stored` for one who is not; and no second word when it is delivered later."""
    alice, bob = clients(server, where)
    async with alice:
        await alice.hello()
        async with bob:
            await bob.hello()
            await alice.open_chat(bob)
            assert (await alice.message(bob, "now"))["status"] == "delivered"
            await bob.send("MSG_ACK", message_id=(await bob.receive("MSG"))["message_id"])
        assert (await alice.message(bob, "later"))["status"] == "stored"
        async with ChatClient(server.url, bob.user_id) as again:
            await again.hello()
            message = await again.receive("MSG", content="later")
            await again.send("MSG_ACK", message_id=message["message_id"])
            await again.drain()
            await again.message(alice, "got it")
            await alice.receive("MSG", content="got it")
        assert [message for message in await alice.drain() if message.type == "MSG_ACK"] == []


# -- D16: what a message may be --


@pytest.mark.attack("HTML and scripts")
@pytest.mark.parametrize(
    ("content", "arrives"),
    [
        ("a < b && c", "a < b && c"),
        ("I <3 you", "I <3 you"),
        ("&lt;b&gt;", "&lt;b&gt;"),
        ("<b>bold</b> claim", "bold claim"),
        ("before<script>alert(1)</script>after", "beforeafter"),
        ("<img src=x onerror=alert(1)>hi", "hi"),
        ("hi <b", "hi < b"),
        ("x<y", "x< y"),
        ("for(i=0;i<n;i++){}", "for(i=0;i< n;i++){}"),
        ("List<String> xs", "List< String> xs"),
        ("#include <stdio.h>", "#include < stdio.h>"),
        ("<img src=x onerror=alert(1)", "< img src=x onerror=alert(1)"),
        ("one\r\ntwo\rthree", "one\ntwo\nthree"),
        ("a<!-- comment -->b", "ab"),
        ("<scr<script>ipt>alert(1)</script>x", None),
        ("tab\tand\nnewline\x00\x07\x1b", "tab\tand\nnewline"),
        ("Robert'); DROP TABLE students;--", "Robert'); DROP TABLE students;--"),
        ("😀" * 1000, "😀" * 1000),
        ("<b>" + "x" * 1000 + "</b>", "x" * 1000),
        ("  spaces  ", "  spaces  "),
    ],
)
@run_async
async def test_d16_content_as_it_arrives(server: Server, content: str, arrives: str | None) -> None:
    alice, bob = clients(server, "other shard")
    async with alice, bob:
        await alice.hello()
        await bob.hello()
        await alice.open_chat(bob)
        await alice.message(bob, content)
        came = (await bob.receive("MSG"))["content"]
        assert came == arrives if arrives is not None else not re.search(r"<[a-zA-Z/!?]", came)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "😀" * 1001,
        "<b></b>",
        "<script>x</script>",
        "\x00",
        7,
        None,
        ["x"],
        " ",
        "\n \t",
        "\u200b\u3164",
        "\u2060",
    ],
)
@run_async
async def test_d16_what_is_no_content(server: Server, content: object) -> None:
    async with ChatClient(server.url) as alice:
        await alice.hello()
        await alice.send("MSG", to=str(uuid4()), content=content)
        assert (await alice.error("VALIDATION"))["details"]["field"] == "content"


@pytest.mark.attack("HTML and scripts", "bidirectional overrides")
@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("Al\N{LATIN SMALL LETTER E}\N{COMBINING ACUTE ACCENT}", "Al\N{LATIN SMALL LETTER E WITH ACUTE}"),
        ("  Alice  ", "Alice"),
        ("Al\N{RIGHT-TO-LEFT OVERRIDE}ice", "Alice"),
        ("<b>Alice</b>", "Alice"),
        ("x" * 50, "x" * 50),
        ("abc", "abc"),
        ("Bobby\N{ZERO WIDTH SPACE}", "Bobby"),
        ("x<y", "x< y"),
    ],
)
@run_async
async def test_d16_names_as_they_are_shown(server: Server, name: str, shown: str) -> None:
    async with ChatClient(server.url) as alice:
        await alice.hello(display_name=name)
        users = (await alice.receive("PRESENCE"))["users"]
        assert {"user_id": alice.user_id, "display_name": shown, "online": True} in users


@pytest.mark.parametrize(
    "name", ["", "ab", "x" * 51, " a ", "<b>a</b>", None, 7, "\u200b" * 3, "\u3164" * 3, "\u2060" * 3]
)
@run_async
async def test_d16_what_is_no_name(server: Server, name: object) -> None:
    async with ChatClient(server.url) as alice:
        for hello_came in (False, True):
            await alice.send("HELLO", user_id=alice.user_id, display_name=name)
            details = (await alice.error("VALIDATION"))["details"]
            assert (details["field"], details["type"]) == ("display_name", "HELLO")
            if not hello_came:
                await alice.hello()
        await alice.send("OPEN_CHAT", target_user_id=str(uuid4()), target_display_name=name)
        assert (await alice.error("VALIDATION"))["details"]["field"] == "target_display_name"


# -- D19: time --


@run_async
async def test_d19_timestamps(server: Server) -> None:
    """UTC, ISO 8601, milliseconds, Z."""
    alice, bob = clients(server, "other shard")
    async with alice, bob:
        await alice.hello()
        await bob.hello()
        await alice.open_chat(bob)
        await alice.message(bob, "what time is it?")
        await alice.send("PING")
        for data in (await bob.receive("MSG"), await alice.receive("PONG")):
            stamp = data["timestamp"]
            assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", stamp)
            assert abs(datetime.fromisoformat(stamp) - datetime.now(UTC)) < timedelta(seconds=20)
