"""One Python client of a real server, led by lines of JSON on its standard input, as `javascript/device.mjs` is for JavaScript.

python python_device.py OPTIONS

OPTIONS is ``{"url", "userId", "displayName"}``. A line ``{"call": method, "args": [...], "as": name}`` calls a method: connect, openChat,
or send. What happens is printed as ``{"event": name, "value": ...}``, and what an awaitable of that name becomes as ``{"promise": name,
"value" or "error": ...}``; that of a Sent is ``name.accepted``. At the end of the input the client is closed.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable
from typing import Any

from fastchat_client import Chat, FastChat, FastChatError, Message, Sent, StateChange


def say(line: dict[str, Any]) -> None:
    print(json.dumps(line), flush=True)


def listen(client: FastChat) -> None:
    def state(change: StateChange) -> None:
        lost = change.lost and {"code": change.lost.code, "reason": change.lost.reason}
        say({"event": "state", "value": {"state": change.state, "lost": lost}})

    def message(message: Message) -> None:
        say({"event": "message", "value": {"from": message.sender, "content": message.content}})

    def error(error: FastChatError) -> None:
        say({"event": "error", "value": {"code": error.code, "message": error.message}})

    client.on("state", state)
    client.on("message", message)
    client.on("error", error)
    client.on("presence", lambda online: say({"event": "presence", "value": dict(online)}))


async def follow(name: str, answer: Awaitable[Any]) -> None:
    try:
        value = await answer
    except FastChatError as error:
        say({"promise": name, "error": {"code": error.code, "message": error.message}})
    else:
        say({"promise": name, "value": value.status if isinstance(value, Sent) else None})


async def main(options: dict[str, str]) -> None:
    client = FastChat(options["url"], options["userId"], options["displayName"])
    listen(client)
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    tasks = set()
    while line := await reader.readline():
        said = json.loads(line)
        arguments, name = said.get("args", []), said.get("as", said["call"])
        answer: Awaitable[Sent | Chat | None]
        match said["call"]:
            case "connect":
                answer = client.connect()
            case "openChat":
                answer = client.open_chat(*arguments)
            case "send":
                to, content, more = arguments
                answer, name = (
                    client.send(to, content, message_id=more["messageId"]).accepted(),
                    f"{name}.accepted",
                )
            case other:
                raise ValueError(f"{other} is not known here")
        tasks.add(asyncio.ensure_future(follow(name, answer)))
    await client.close()
    await asyncio.gather(*tasks)


if __name__ == "__main__":
    asyncio.run(main(json.loads(sys.argv[1])))
