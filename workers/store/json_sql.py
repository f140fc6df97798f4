"""Parts of statements that take JSON and give JSON, as SQLite does it: the rows of a parameter, their fields, and a result of many rows.

Nothing else knows how a database takes JSON apart and puts it together; with PostgreSQL these would be json_array_elements and json_agg.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    ColumnElement,
    Delete,
    Insert,
    Integer,
    LargeBinary,
    Select,
    TableValuedAlias,
    Text,
    Update,
    bindparam,
    cast,
    func,
    literal_column,
)
from sqlalchemy.dialects import sqlite


def given_rows() -> TableValuedAlias:
    """Return the rows in the JSON parameter of a statement, which is bytes: an array of arrays, or of texts."""
    rows = cast(bindparam("rows", type_=LargeBinary), Text)
    return func.json_each(rows).table_valued("key", "value", name="given")


def field_of(given: TableValuedAlias, index: int) -> ColumnElement[Any]:
    """Return one field of such a row."""
    return func.json_extract(given.c.value, literal_column(f"'$[{index}]'"))


def json_array(*fields: ColumnElement[Any]) -> ColumnElement[Any]:
    """Return one JSON array of these."""
    return func.json_array(*fields)


def gathered(row: ColumnElement[Any]) -> ColumnElement[Any]:
    """Return all rows in one JSON array, in their order."""
    return func.json_group_array(row)


def nested(rows: Select[Any]) -> ColumnElement[Any]:
    """Return a JSON value that stands in another."""
    return func.json(rows.scalar_subquery())


def text_of(statement: Select[Any] | Insert | Update | Delete, *parameters: str) -> str:
    """Return the text of a statement, with ``?`` for each of `parameters`."""
    compiled = statement.compile(dialect=sqlite.dialect(paramstyle="qmark"))
    assert tuple(compiled.positiontup or ()) == parameters, compiled.positiontup
    return str(compiled)


def number(value: int) -> ColumnElement[int]:
    """Return a number that stands in the text of a statement."""
    return literal_column(str(value), Integer)
