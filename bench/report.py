"""The page with the plots of a comparison: one file that needs nothing from outside."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import Any, Final

from plotly import graph_objects as go
from plotly.io import to_html

Row = dict[str, Any]

_STYLE: Final = """
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, sans-serif; color: #1d2433; background: #fff; margin: 0 auto; padding: 1rem; max-width: 72rem; }
h1 { font-size: 1.5rem; margin: .5rem 0; } h2 { font-size: 1.15rem; margin: 2rem 0 .25rem; }
p { margin: .25rem 0; color: #4a5468; } code { font-size: .85rem; overflow-wrap: anywhere; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-size: .875rem;
  font-variant-numeric: tabular-nums; white-space: nowrap; }
th, td { padding: .3rem .7rem; border-bottom: 1px solid #e3e7ee; text-align: right; }
th:nth-child(-n+2), td:nth-child(-n+2) { text-align: left; }
"""
_COLORS: Final = ("#2f6fde", "#e8833a", "#2a9d6f", "#8f5bd6", "#c8474f", "#5c6b82")
#: Heading, what the cells hold.
_TABLE: Final = (
    ("load", lambda row: row["load"]),
    ("subject", lambda row: row["title"]),
    ("CPU, us a message", lambda row: f"{row['cpu_us']['middle']:.1f}"),
    ("95 %", lambda row: f"{row['cpu_us']['low']:.1f} - {row['cpu_us']['high']:.1f}"),
    ("ratio", lambda row: f"{row['ratio']['middle']:.2f}" if "ratio" in row else ""),
    ("95 %", lambda row: f"{row['ratio']['low']:.2f} - {row['ratio']['high']:.2f}" if "ratio" in row else ""),
    ("messages a second", lambda row: f"{row['rate']:,.0f}"),
    ("cores", lambda row: f"{row['cores']:.2f}"),
    ("delivery p50, ms", lambda row: f"{row['delivery_p50_ms']:.2f}"),
    ("p99", lambda row: f"{row['delivery_p99_ms']:.2f}"),
    ("p99.9", lambda row: f"{row['delivery_p999_ms']:.2f}"),
    ("longest turn, ms", lambda row: f"{row['turn_max_ms']:.1f}" if "turn_max_ms" in row else ""),
)


def write_page(path: Path, report: dict[str, Any]) -> None:
    """Write the page of a report as ``bench.compare`` makes it."""
    rows: list[Row] = report["rows"]
    plots = (
        (
            "CPU for each message, in microseconds",
            "All processes of the server. Whiskers: 95 % interval.",
            _cpu(rows),
        ),
        (
            "From MSG to the recipient, in milliseconds",
            "Median of the rounds' 99th percentiles.",
            _delivery(rows),
        ),
    )
    parts = [
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>",
        "<meta name='viewport' content='width=device-width, initial-scale=1'>",
        f"<title>FastChat: a comparison</title><style>{_STYLE}</style></head><body>",
        "<h1>FastChat: a comparison</h1>",
        f"<p>{escape(report['began'])} on {escape(report['machine'])}; {report['pairs']} pairs, "
        f"{report['seconds']:g} s a measurement, ratios to <b>{escape(report['yardstick'])}</b> in the same round.</p>",
        f"<p><code>{escape(report['command'])}</code></p>",
    ]
    for number, (title, note, figure) in enumerate(plots):
        parts += [f"<h2>{title}</h2><p>{note}</p>", _plot(figure, first=number == 0)]
    parts += ["<h2>All numbers</h2>", _table(rows), "</body></html>"]
    path.write_text("\n".join(parts))


def _plot(figure: go.Figure, *, first: bool) -> str:
    figure.update_layout(
        template="plotly_white",
        barmode="group",
        bargap=0.25,
        margin={"l": 8, "r": 8, "t": 8, "b": 8},
        legend={"orientation": "h", "yanchor": "bottom", "y": 1.0, "x": 0.0},
        font={"size": 13},
    )
    figure.update_yaxes(automargin=True, autorange="reversed")
    figure.update_xaxes(rangemode="tozero")
    subjects = {subject for bar in figure.data for subject in bar.y}
    figure.update_layout(height=110 + len(subjects) * (14 + 18 * len(figure.data)))
    page: str = to_html(
        figure,
        full_html=False,
        include_plotlyjs=first,
        config={"displaylogo": False, "displayModeBar": False, "responsive": True},
    )
    return page


def _by_load(rows: list[Row]) -> dict[str, list[Row]]:
    loads: dict[str, list[Row]] = {}
    for row in rows:
        loads.setdefault(row["load"], []).append(row)
    return loads


def _cpu(rows: list[Row]) -> go.Figure:
    figure = go.Figure()
    for color, (load, of_load) in zip(_COLORS * len(rows), _by_load(rows).items(), strict=False):
        spreads = [row["cpu_us"] for row in of_load]
        figure.add_bar(
            name=load,
            orientation="h",
            marker_color=color,
            y=[row["title"] for row in of_load],
            x=[each["middle"] for each in spreads],
            error_x={
                "type": "data",
                "symmetric": False,
                "array": [each["high"] - each["middle"] for each in spreads],
                "arrayminus": [each["middle"] - each["low"] for each in spreads],
                "thickness": 1,
                "color": "#4a5468",
            },
            hovertemplate="%{y}<br>%{x:.1f} us<extra>" + escape(load) + "</extra>",
        )
    return figure


def _delivery(rows: list[Row]) -> go.Figure:
    figure = go.Figure()
    for color, (load, of_load) in zip(_COLORS * len(rows), _by_load(rows).items(), strict=False):
        figure.add_bar(
            name=load,
            orientation="h",
            marker_color=color,
            y=[row["title"] for row in of_load],
            x=[row["delivery_p99_ms"] for row in of_load],
            hovertemplate="%{y}<br>%{x:.2f} ms<extra>" + escape(load) + "</extra>",
        )
    return figure


def _table(rows: list[Row]) -> str:
    head = "".join(f"<th>{heading}</th>" for heading, _ in _TABLE)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(cell(row))}</td>" for _, cell in _TABLE) + "</tr>" for row in rows
    )
    return f"<div class='scroll'><table><tr>{head}</tr>{body}</table></div>"
