"""What a backend can call (D36). Each call asks the worker where the user lives, and is answered when what it changes is durable."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Any, Final, NamedTuple

import msgspec

from core.chat.operator import BAN, DELETE, KICK, NAME, ONLINE, SAY, UNBAN, WHO
from core.wire.protocol import NAME_MIN, ErrorCode, MessageType, Refusal
from core.wire.validation import Validator, display_name
from router.api import shapes
from router.api.problems import Problem, of_refusal, refused
from router.operator.workers import Workers

#: Users whom one worker is asked to name at once: so many fit into a packet, however long their ids and names are.
_NAMED_AT_ONCE: Final = 50
#: Pages of histories and lists that are being read for the API: each is as large as a packet.
_PAGES_MAX: Final = 4


class Request(NamedTuple):
    """A call as it has come, checked against its shapes."""

    path: Mapping[str, str]
    query: Mapping[str, str]
    body: Any


Run = Callable[[Request], Awaitable[dict[str, Any]]]


class Call(NamedTuple):
    """A row of the table of calls."""

    method: str
    path: str
    summary: str
    #: None for an export, whose answer is lines of JSON: the server has them from another process (``router.api.server``).
    run: Run | None
    answer: type[shapes.Shape] | None
    body: type[shapes.Shape] | None = None
    #: Names of query parameters, which all may be left out.
    query: tuple[str, ...] = ()
    #: What may go wrong besides what may go wrong with every call.
    problems: tuple[HTTPStatus, ...] = ()


_NOT_FOUND: Final = HTTPStatus.NOT_FOUND
_INVALID: Final = HTTPStatus.UNPROCESSABLE_ENTITY
_CONFLICT: Final = HTTPStatus.CONFLICT


class Calls:
    """Does them."""

    def __init__(self, workers: Workers, validator: Validator) -> None:
        self._workers = workers
        self._validator = validator
        self._pages = asyncio.Semaphore(_PAGES_MAX)

    def table(self) -> list[Call]:
        """Return all calls, as the document lists them."""
        user, page = "/v1/users/{user_id}", ("limit", "before")
        return [
            Call(
                method="POST",
                path="/v1/users",
                summary="Create users, or give them other names, up to 1,000 at once",
                run=self._name_all,
                answer=shapes.Named,
                body=shapes.NewUsers,
            ),
            Call(
                method="GET",
                path=user,
                summary="Get a user",
                run=self._get,
                answer=shapes.User,
                problems=(_NOT_FOUND,),
            ),
            Call(
                method="PUT",
                path=user,
                summary="Create a user, or give the user another name",
                run=self._name,
                answer=shapes.Named,
                body=shapes.Name,
            ),
            Call(
                method="DELETE",
                path=user,
                summary="Delete a user, all that the user has, and all that the user has sent",
                run=self._delete,
                answer=shapes.Deleted,
                problems=(_NOT_FOUND,),
            ),
            Call(
                method="GET",
                path=f"{user}/export",
                summary="Get everything that is stored about a user",
                run=None,
                answer=None,
                problems=(_NOT_FOUND, HTTPStatus.NOT_IMPLEMENTED),
            ),
            Call(
                method="PUT",
                path=f"{user}/ban",
                summary="Ban a user: close all connections with 4003, and refuse new ones",
                run=self._ban,
                answer=shapes.Ban,
            ),
            Call(
                method="DELETE",
                path=f"{user}/ban",
                summary="End the ban of a user",
                run=self._unban,
                answer=shapes.Ban,
            ),
            Call(
                method="GET",
                path=f"{user}/connections",
                summary="List the connections of a user",
                run=self._connections,
                answer=shapes.Connections,
                problems=(_NOT_FOUND,),
            ),
            Call(
                method="DELETE",
                path=f"{user}/connections",
                summary="Close all connections of a user with 1008; the user may connect again",
                run=self._kick,
                answer=shapes.Closed,
            ),
            Call(
                method="GET",
                path=f"{user}/chats",
                summary="List the chats of a user, the newest first",
                run=self._chats,
                answer=shapes.Chats,
                query=page,
                problems=(_NOT_FOUND, _CONFLICT),
            ),
            Call(
                method="GET",
                path=f"{user}/chats/{{peer_id}}/messages",
                summary="Read a chat of a user, the newest message first",
                run=self._history,
                answer=shapes.History,
                query=page,
                problems=(_NOT_FOUND, _CONFLICT),
            ),
            Call(
                method="POST",
                path="/v1/messages",
                summary="Send a message in the name of a user, who need not be online",
                run=self._send,
                answer=shapes.Sent,
                body=shapes.NewMessage,
                problems=(_NOT_FOUND, _CONFLICT, HTTPStatus.INSUFFICIENT_STORAGE),
            ),
            Call(
                method="POST",
                path="/v1/presence",
                summary="Ask which of up to 1,000 users are online",
                run=self._presence,
                answer=shapes.Presence,
                body=shapes.UserIds,
            ),
        ]

    # -- Users --

    async def _name_all(self, request: Request) -> dict[str, Any]:
        body: shapes.NewUsers = request.body
        names: dict[str, str] = {}
        for number, user in enumerate(body.users):
            user_id = self._user_id(user.user_id, f"users[{number}].user_id")
            if user_id in names:
                raise _invalid(f"`users[{number}].user_id` is there twice", f"users[{number}].user_id")
            names[user_id] = _name_of(user.display_name, f"users[{number}].display_name")
        return await self._name_these(names)

    async def _name(self, request: Request) -> dict[str, Any]:
        user_id, name = self._user(request), _name_of(request.body.display_name, "display_name")
        return await self._name_these({user_id: name})

    async def _name_these(self, names: dict[str, str]) -> dict[str, Any]:
        """Name these users, on all workers at the same time. Whoever is named stays so, should a worker be away."""

        async def name(user_ids: list[str]) -> list[dict[str, Any]]:
            return [
                await self._ask(chunk[0], NAME, users=[(user_id, names[user_id]) for user_id in chunk])
                for chunk in _chunks(user_ids, _NAMED_AT_ONCE)
            ]

        groups = self._workers.by_worker(names)
        answers = [each for group in await asyncio.gather(*map(name, groups)) for each in group]
        return {
            what: [each for answer in answers for each in answer[what]] for what in ("created", "renamed")
        }

    async def _get(self, request: Request) -> dict[str, Any]:
        facts = await self._known(request)
        return {
            "user_id": facts["user"],
            **{name: facts[name] for name in ("display_name", "online", "banned", "chats", "last_close")},
            "waiting": facts["mailbox"]["waiting"],
        }

    async def _delete(self, request: Request) -> dict[str, Any]:
        facts = await self._ask(self._user(request), DELETE)
        if facts["state"] == "unknown":
            raise _nobody()
        return {name: value for name, value in facts.items() if name != "user"}

    async def _ban(self, request: Request) -> dict[str, Any]:
        return await self._ask(self._user(request), BAN)

    async def _unban(self, request: Request) -> dict[str, Any]:
        return await self._ask(self._user(request), UNBAN)

    # -- Connections --

    async def _connections(self, request: Request) -> dict[str, Any]:
        return {"connections": (await self._known(request))["devices"]}

    async def _kick(self, request: Request) -> dict[str, Any]:
        return await self._ask(self._user(request), KICK)

    async def _presence(self, request: Request) -> dict[str, Any]:
        user_ids = [
            self._user_id(user_id, f"user_ids[{number}]")
            for number, user_id in enumerate(request.body.user_ids)
        ]
        online: set[str] = set()
        # Every worker knows of all users who is online.
        for chunk in _chunks(user_ids, 2 * _NAMED_AT_ONCE):
            online |= {*_checked(await self._workers.ask_any(ONLINE, users=chunk))["online"]}
        user_ids = [*dict.fromkeys(user_ids)]
        return {
            "online": [user_id for user_id in user_ids if user_id in online],
            "offline": [user_id for user_id in user_ids if user_id not in online],
        }

    # -- Messages and chats --

    async def _send(self, request: Request) -> dict[str, Any]:
        message: shapes.NewMessage = request.body
        data = {"to": self._user_id(message.to, "to"), "content": message.content}
        if message.message_id is not None:
            data["message_id"] = message.message_id
        sender = self._user_id(message.sender, "from")
        return await self._say(sender, MessageType.MSG, data, "from")

    async def _chats(self, request: Request) -> dict[str, Any]:
        async with self._pages:
            return await self._say(self._user(request), MessageType.CHATS, _page(request))

    async def _history(self, request: Request) -> dict[str, Any]:
        data = {**_page(request), "with": self._user_id(request.path["peer_id"], "peer_id")}
        async with self._pages:
            page = await self._say(self._user(request), MessageType.HISTORY, data)
        return {"messages": page["messages"], "next": page["next"]}

    # -- Workers --

    def _user(self, request: Request) -> str:
        return self._user_id(request.path["user_id"], "user_id")

    def _user_id(self, value: str, field: str) -> str:
        try:
            return self._validator.user_id(value, field)
        except Refusal as refusal:
            raise of_refusal(refusal) from None

    async def _known(self, request: Request) -> dict[str, Any]:
        facts = await self._ask(self._user(request), WHO)
        if not facts["known"]:
            raise _nobody()
        return facts

    async def _say(
        self, user_id: str, kind: str, data: dict[str, Any], field: str = "user_id"
    ) -> dict[str, Any]:
        answer = await self._ask(user_id, SAY, type=kind, data=data)
        told: dict[str, Any] = answer["data"]
        if answer["type"] == MessageType.ERROR:
            details = told["details"]
            if details.get("field") == "user_id":
                details = {**details, "field": field}
            raise refused(told["code"], told["message"], details)
        return told

    async def _ask(self, user_id: str, what: str, **about: Any) -> dict[str, Any]:
        return _checked(await self._workers.ask(user_id, what, **about))


def _checked(answer: dict[str, Any]) -> dict[str, Any]:
    """Return what a worker has answered. Raises Problem for one that its store has kept from it."""
    if "problem" in answer:
        raise refused(ErrorCode.MESSAGE_FAILED, answer["problem"], {})
    return answer


def _chunks(values: list[str], size: int) -> list[list[str]]:
    return [values[start : start + size] for start in range(0, len(values), size)]


def _page(request: Request) -> dict[str, Any]:
    """Return the parameters of a page, as the protocol has them."""
    page: dict[str, Any] = {}
    if (limit := request.query.get("limit")) is not None:
        page["limit"] = int(limit) if limit.isascii() and limit.isdigit() and len(limit) < 9 else limit
    if (before := request.query.get("before")) is not None:
        page["before"] = before
    return page


def _name_of(value: str, field: str) -> str:
    try:
        return display_name(value, field, NAME_MIN)
    except Refusal as refusal:
        raise of_refusal(refusal) from None


def _nobody() -> Problem:
    return Problem(_NOT_FOUND, ErrorCode.USER_NOT_FOUND, "there is no user with this id")


def _invalid(sentence: str, field: str) -> Problem:
    return Problem(_INVALID, ErrorCode.VALIDATION, sentence, details={"field": field})


def decode(body: bytes, shape: type[shapes.Shape]) -> shapes.Shape:
    """Decode a body. Raises Problem when it is not JSON, or not of this shape."""
    try:
        return msgspec.json.decode(body, type=shape)
    except msgspec.ValidationError as error:
        sentence, _, where = str(error).partition(" - at ")
        field = where.strip("`").removeprefix("$").removeprefix(".")
        raise Problem(
            _INVALID,
            ErrorCode.VALIDATION,
            f"{sentence}{f', at {field}' if field else ''}",
            details={"field": field},
        ) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Problem(HTTPStatus.BAD_REQUEST, "MALFORMED", f"the body is not JSON: {error}") from None
