"""One HTML page that opens offline and loads nothing: sections, tables and plots."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import zlib
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from html import escape
from importlib.resources import files
from typing import Any

__all__ = ["TARGET", "YES", "Page", "boxed", "listed", "number", "table", "told"]

_MEASURED = re.compile(r"\bmeasured\b")
TARGET = {
    "meets": '<span class="good">meets it</span>',
    "likely": '<span class="good">likely meets it</span>',
    "unclear": "unclear",
    "misses": '<b class="bad">misses it</b>',
    None: "–",
}
YES = {True: '<span class="good">yes</span>', False: '<b class="bad">no</b>', None: "–"}


class Page:
    """One page, built from sections and plots.

    Args:
        title: For the browser's tab; escaped here.
    """

    def __init__(self, title: str) -> None:
        self.title = title
        self._plots: dict[str, Any] = {}
        self._origins: dict[str, str] = {}

    def draw(self, name: str, figure: Any, origin: str = "measured") -> str:
        """Add a `plotly.graph_objects.Figure`; returns the HTML of its place in the page.

        Its title leaves the drawing: as the page's own text it wraps on a narrow screen. `origin`
        is that of its times, where they have another than those of the page.
        """
        self._origins[name] = origin
        self._plots[name] = json.loads(figure.to_json(), parse_float=_shown)
        title = escape(self._plots[name]["layout"].pop("title")["text"])
        return (
            f'<figure><figcaption>{title}</figcaption><div id="{name}" class="plot" '
            f'role="group" aria-label="{title}"></div></figure>'
        )

    def html(self, sections: Sequence[str], origin: str = "measured") -> str:
        """The page, whole.

        Args:
            sections: HTML, in order; all text of files and users is escaped there.
            origin: Where the page's times come from; anything but "measured" replaces that word
                everywhere, and stands at the top.
        """
        body, each = "\n".join(sections), origin == "measured"
        drawn = _json(
            {
                name: _told_plot(plot, self._origins[name] if each else origin)
                for name, plot in self._plots.items()
            }
        )
        if not each:
            body = (
                f"<p class=command><b>{escape(origin.upper())}.</b> No device was measured for the "
                f"times on this page.</p>\n{told(body, origin)}"
            )
        library, packed = _plotly()
        script = _file("page.js").replace("@plots@", drawn)
        filled = {"title": escape(self.title), "body": body, "plotly": packed, "script": script}
        filled["hashes"] = " ".join(map(_hash, (library, script)))
        return re.sub(
            "@(title|body|hashes|plotly|script)@", lambda m: filled[m[1]], _file("page.html")
        )


def told(html: str, origin: str) -> str:
    """HTML with the origin of its times in place of "measured"; code is the user's own text."""
    if origin == "measured":
        return html
    parts = re.split(r"(<code.*?</code>)", html, flags=re.S)
    own = escape(origin)
    parts[::2] = [_MEASURED.sub(lambda _: own, t).replace("●", "◌") for t in parts[::2]]
    return "".join(parts)


def _told_plot(plot: Any, origin: str) -> Any:
    """The same of a plot."""
    if origin == "measured":
        return plot
    quoted = _json(escape(origin, quote=False))[1:-1]
    return json.loads(_MEASURED.sub(lambda _: quoted, json.dumps(plot)))


@lru_cache(maxsize=1)
def _plotly() -> tuple[str, str]:
    """plotly.js, and the same packed for the page: deflated, in base 85.

    The page is 2 MB so, instead of 5. Base 85 has `<`, which could begin a tag; a comma, which it
    has not, stands in its place.
    """
    from plotly.offline import get_plotlyjs

    library = get_plotlyjs().replace("\r\n", "\n")
    deflate = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS, 9)
    packed = deflate.compress(library.encode()) + deflate.flush()
    return library, base64.b85encode(packed).decode().replace("<", ",")


def _file(name: str) -> str:
    return (files(__package__) / name).read_text(encoding="utf-8")


def _hash(script: str) -> str:
    """How a content policy names one script."""
    digest = hashlib.sha256(script.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def _shown(number: str) -> float:
    """A number of a plot in the six digits that can be seen: a third of the page was of others."""
    return float(f"{float(number):.6g}")


def _json(value: Any) -> str:
    """JSON that cannot end the script in which it stands."""
    return json.dumps(value).replace("<", "\\u003c")


def number(value: Any, form: str, per: float = 1) -> str:
    """A number in its form; – where there is none."""
    return form.format(value / per) if isinstance(value, int | float) else "–"


def boxed(titles: Iterable[str], lines: str, kind: str = "") -> str:
    """A table in a box of its own: titles are escaped, `lines` are HTML rows."""
    head = "".join(f"<th>{escape(t)}</th>" for t in titles)
    top = f"<thead><tr>{head}</tr></thead>" if head else ""
    body = f'<table class="{kind}">{top}<tbody>{lines}</tbody></table>'
    return f'<div class="box" tabindex="0">{body}</div>'


def table(head: Sequence[str], rows: Iterable[Sequence[Any]], kind: str = "") -> str:
    """A table whose rows begin with a name; cells are escaped."""
    lines = ""
    for first, *rest in rows:
        cells = "".join(f"<td>{escape(str(c))}</td>" for c in rest)
        lines += f"<tr><th>{escape(str(first))}</th>{cells}</tr>"
    return boxed(head, lines, kind)


def listed(
    columns: Sequence[tuple[str, Callable[[Any], str]]],
    rows: Iterable[Any],
    below: Callable[[Any], str] | None = None,
) -> str:
    """A table by columns: of each its title and the HTML of a row's cell.

    `below` gives HTML for a line of its own under each row.
    """
    lines = ""
    for row in rows:
        cells = "".join(f"<td>{cell(row)}</td>" for _, cell in columns)
        lines += f'<tr class="{"open" if below else ""}">{cells}</tr>'
        if below:
            lines += f'<tr><td class="code" colspan="{len(columns)}">{below(row)}</td></tr>'
    return boxed([title for title, _ in columns], lines)
