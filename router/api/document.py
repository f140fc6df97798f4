"""The OpenAPI document of the calls (OpenAPI 3.1), and a page that shows it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from html import escape
from http import HTTPStatus
from typing import Any, Final

import msgspec

from router.api import shapes
from router.api.calls import Call
from router.api.problems import CONTENT_TYPE

#: The type of an answer that is a line for each thing.
LINES: Final = "application/x-ndjson"
#: What may go wrong with every call.
_ALWAYS: Final = (
    HTTPStatus.BAD_REQUEST,
    HTTPStatus.UNAUTHORIZED,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    HTTPStatus.UNPROCESSABLE_ENTITY,
    HTTPStatus.TOO_MANY_REQUESTS,
    HTTPStatus.SERVICE_UNAVAILABLE,
)
_MEANING: Final = {
    HTTPStatus.BAD_REQUEST: "The request is malformed.",
    HTTPStatus.UNAUTHORIZED: "The key is missing or wrong.",
    HTTPStatus.NOT_FOUND: "There is no such user.",
    HTTPStatus.CONFLICT: "It can't be done as things are: the user is banned or has blocked the other one, there is no chat of the two, or"
    " the message_id was used for another message.",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "The body is too large.",
    HTTPStatus.UNPROCESSABLE_ENTITY: "A value is not as it must be; `details.field` names it.",
    HTTPStatus.TOO_MANY_REQUESTS: "Too many calls, or too many messages of this sender. Repeat the call after `Retry-After` seconds.",
    HTTPStatus.INSUFFICIENT_STORAGE: "The mailbox of the recipient, or the share of this sender, is full until the recipient reads.",
    HTTPStatus.NOT_IMPLEMENTED: "The server stores nothing (FASTCHAT_STORE=memory).",
    HTTPStatus.SERVICE_UNAVAILABLE: "The worker of the user is away, or its storage fails. Repeat the call after `Retry-After` seconds.",
}
_ABOUT: Final = (
    "For the backend of an app: users, messages and presence. Every call needs a key of FASTCHAT_API_KEY_FILE as `Authorization: Bearer`."
    " What a call changes is durable when it is answered, and every call may be repeated: a message is stored once for each"
    " `message_id`. Ids of users in a path are percent-encoded."
)
_PARAMETERS: Final = {
    "limit": (
        "Entries on a page, at most 100; 50 if it is not given.",
        {"type": "integer", "minimum": 1, "maximum": 100},
    ),
    "before": ("`next` of the page before.", {"type": "string"}),
    "user_id": ("The id of the user.", {"type": "string"}),
    "peer_id": ("The id of the other user of the chat.", {"type": "string"}),
}


def make_document(calls: Sequence[Call], version: str) -> dict[str, Any]:
    """Make the document of these calls."""
    kinds = [
        *dict.fromkeys(kind for call in calls for kind in (call.body, call.answer) if kind),
        shapes.Problem,
    ]
    references, components = msgspec.json.schema_components(kinds, ref_template="#/components/schemas/{name}")
    schemas = dict(zip(kinds, references, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for call in calls:
        paths.setdefault(call.path, {})[call.method.lower()] = _operation(call, schemas)
    return {
        "openapi": "3.1.0",
        "info": {"title": "FastChat server API", "version": version, "description": _ABOUT},
        "security": [{"key": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
            "schemas": components,
        },
    }


def _operation(call: Call, schemas: dict[Any, Any]) -> dict[str, Any]:
    name = re.sub(r"[^a-z]+", "_", f"{call.method} {call.path.removeprefix('/v1')}".lower()).strip("_")
    operation: dict[str, Any] = {"operationId": name, "summary": call.summary}
    where = [("path", each) for each in re.findall(r"{(\w+)}", call.path)] + [
        ("query", each) for each in call.query
    ]
    if where:
        operation["parameters"] = [
            {
                "name": each,
                "in": place,
                "required": place == "path",
                "description": _PARAMETERS[each][0],
                "schema": _PARAMETERS[each][1],
            }
            for place, each in where
        ]
    if call.body is not None:
        operation["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": schemas[call.body]}},
        }
    content: dict[str, Any] = {
        LINES: {"schema": {"type": "string", "description": "A JSON object in each line."}}
    }
    if call.answer is not None:
        content = {"application/json": {"schema": schemas[call.answer]}}
    operation["responses"] = {
        "200": {"description": "Done.", "content": content},
        **{
            str(int(status)): {
                "description": _MEANING[status],
                "content": {CONTENT_TYPE: {"schema": schemas[shapes.Problem]}},
            }
            for status in sorted({*_ALWAYS, *call.problems})
        },
    }
    return operation


# -- The page --


def make_page(document: dict[str, Any]) -> str:
    """Make a page of HTML that shows the document."""
    info, schemas = document["info"], document["components"]["schemas"]
    calls = "".join(
        _call(method, path, operation)
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
    )
    shown = "".join(_schema(name, schema) for name, schema in schemas.items())
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<title>{escape(info["title"])}</title><link rel="stylesheet" href="/api.css"></head><body><main>'
        f"<h1>{escape(info['title'])} <small>{escape(info['version'])}</small></h1>"
        f'<p>{_code(info["description"])}</p><p><a href="/openapi.json">openapi.json</a></p>'
        f"<h2>Calls</h2>{calls}<h2>Shapes</h2>{shown}</main></body></html>"
    )


def _call(method: str, path: str, operation: dict[str, Any]) -> str:
    parameters = [(each["name"], each["in"], each["description"]) for each in operation.get("parameters", ())]
    body = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema")
    answers = [
        (status, _kind(next(iter(answer["content"].values()))["schema"]), _code(answer["description"]))
        for status, answer in operation["responses"].items()
    ]
    return (
        f'<section id="{escape(operation["operationId"])}"><h3><span class="method">{method.upper()}</span> '
        f"<code>{escape(path)}</code></h3><p>{_code(operation['summary'])}.</p>"
        + (
            _table(
                ("parameter", "in", ""),
                ((_code(f"`{name}`"), place, _code(text)) for name, place, text in parameters),
            )
            if parameters
            else ""
        )
        + (f"<p>Body: {_kind(body)}</p>" if body else "")
        + _table(("status", "body", ""), answers)
        + "</section>"
    )


def _schema(name: str, schema: dict[str, Any]) -> str:
    required = schema.get("required", ())
    rows = (
        (
            _code(f"`{field}`") + ("" if field in required else " (optional)"),
            _kind(kind),
            _code(kind.get("description", "")),
        )
        for field, kind in schema["properties"].items()
    )
    return (
        f'<section id="{escape(name)}"><h3>{escape(name)}</h3>{_table(("field", "type", ""), rows)}</section>'
    )


def _kind(schema: dict[str, Any]) -> str:
    """Describe the type of a value."""
    if "$ref" in schema:
        name = escape(schema["$ref"].rpartition("/")[2])
        return f'<a href="#{name}">{name}</a>'
    if "anyOf" in schema:
        return " or ".join(map(_kind, schema["anyOf"]))
    if schema.get("type") == "array":
        return f"list of {_kind(schema['items'])}"
    return escape(str(schema.get("type", "any")))


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """Make a table; the cells are HTML."""
    titles = "".join(f"<th>{each}</th>" for each in head)
    cells = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{titles}</tr></thead><tbody>{cells}</tbody></table></div>'


def _code(text: str) -> str:
    """Return text with what stands between backticks as code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text))
