"""Page: sections and plots become one HTML page that opens offline and asks nothing of any server."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

__all__ = ["Page", "number", "table"]

# The policy has the browser itself refuse whatever would leave the page.
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; \
script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title><style>
:root {{ --paper: #fff; --ink: #1b1f24; --soft: #59616b; --line: #dfe3e8; --tint: #f5f7f9;
  --good: #00714f; --bad: #a84300; color-scheme: light dark }}
@media screen and (prefers-color-scheme: dark) {{ :root {{ --paper: #15181c; --ink: #e6e9ec;
  --soft: #a2abb5; --line: #363c44; --tint: #1e2227; --good: #45c79b; --bad: #ff9b5e }} }}
* {{ box-sizing: border-box }}
body {{ margin: 0 auto; max-width: 70rem; padding: 1.5rem 1rem 4rem; color: var(--ink);
  background: var(--paper); font: 1rem/1.55 system-ui, sans-serif; overflow-wrap: break-word }}
h1 {{ font-size: 1.7rem; line-height: 1.2; margin: 0 0 .6rem }}
h2 {{ font-size: 1.2rem; margin: 2.6rem 0 .5rem; break-after: avoid }}
p {{ margin: .5rem 0; max-width: 46rem }} .lead {{ font-size: 1.1rem }}
.soft, figcaption, .facts li {{ color: var(--soft) }} .good {{ color: var(--good) }}
.soft, figcaption, .facts li, table {{ font-size: .88rem }} .bad {{ color: var(--bad) }}
.facts {{ display: flex; flex-wrap: wrap; gap: .6rem; padding: 0; list-style: none }}
.facts li, .box {{ border: 1px solid var(--line); border-radius: .5rem }}
.facts li {{ flex: 1 1 9rem; background: var(--tint); padding: .6rem .8rem }}
.facts b {{ display: block; font-size: 1.25rem; color: var(--ink) }}
figure {{ margin: .5rem 0; break-inside: avoid }} .box {{ overflow-x: auto; margin: .7rem 0 }}
table {{ border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums }}
th, td {{ padding: .4rem .7rem; text-align: right; border-bottom: 1px solid var(--line) }}
td, .nobr {{ white-space: nowrap }} thead th {{ background: var(--tint); vertical-align: bottom }}
tr.open > td, tbody tr:last-child > * {{ border-bottom: 0 }} .command {{ padding: .6rem .7rem }}
tr > :first-child, .words td {{ text-align: left }} .words th {{ vertical-align: top }}
.words td, td.code {{ white-space: normal; overflow-wrap: anywhere; min-width: 12rem }}
td.code {{ padding-top: 0 }} .plot svg text {{ fill: var(--ink) !important }}
code {{ font: .82rem/1.5 ui-monospace, Menlo, Consolas, monospace; user-select: all }}
td.code code {{ display: block; position: sticky; left: .7rem; max-width: calc(100vw - 3.6rem) }}
.plot .hoverlayer text {{ fill: #1b1f24 !important }}
table.differs tbody th {{ color: var(--bad) }}
td b, .best {{ color: var(--good) }} td b.bad {{ color: var(--bad) }} .key {{ font-size: 1.1em }}
summary {{ cursor: pointer; margin: .7rem 0; color: var(--soft) }}
.notes {{ border-left: .25rem solid var(--bad); padding-left: .8rem }}
@media (max-width: 32rem) {{ th, td {{ padding: .35rem .45rem }} }}
@media print {{ .box {{ overflow: visible }} td, th {{ white-space: normal; padding: .3rem }}
  body {{ font-size: .8rem; max-width: none }} }}
</style></head><body>
{body}
<script>{plotly}</script>
<script>
const plots = {plots};
// A finger that scrolls the page must not zoom a plot.
const mouse = matchMedia("(hover: hover) and (pointer: fine)").matches;
const bar = {{ responsive: true, displaylogo: false, displayModeBar: mouse ? "hover" : false,
  modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"] }};
for (const [id, plot] of Object.entries(plots)) {{
  if (!mouse) plot.layout.dragmode = false;
  if (innerWidth < 600) plot.layout.height += 20 * plot.data.length;  // the legend's rows
  Plotly.newPlot(id, plot.data, plot.layout, bar);
}}
const wide = width => Object.keys(plots).forEach(id => Plotly.relayout(id, width));
addEventListener("beforeprint", () => wide({{ width: 660 }}));
addEventListener("afterprint", () => wide({{ width: null, autosize: true }}));
</script></body></html>
"""


class Page:
    """One page in the making.

    Args:
        title: For the browser's tab; escaped here.
    """

    def __init__(self, title: str) -> None:
        self.title = title
        self._plots: dict[str, Any] = {}

    def draw(self, name: str, figure: Any) -> str:
        """Take in a `plotly.graph_objects.Figure`; give the HTML of the place where it stands.

        Its title leaves the drawing: as the page's own text it wraps on a narrow screen.
        """
        self._plots[name] = json.loads(figure.to_json())
        title = escape(self._plots[name]["layout"].pop("title")["text"])
        return (
            f'<figure><figcaption>{title}</figcaption><div id="{name}" class="plot" '
            f'role="img" aria-label="{title}"></div></figure>'
        )

    def html(self, sections: Sequence[str], origin: str = "measured") -> str:
        """The page, whole.

        Args:
            sections: HTML, in order; the user's own words in it are escaped, or stand in `<code>`.
            origin: Where the page's times come from; anything but "measured" takes that word's
                place everywhere, and is said at the top.
        """
        from plotly.offline import get_plotlyjs

        body, drawn = "\n".join(sections), json.dumps(self._plots).replace("<", "\\u003c")
        if origin != "measured":
            # What stands as code are the user's own words.
            parts = re.split(r"(<code.*?</code>)", body, flags=re.S)
            parts[::2] = [re.sub(r"\bmeasured\b", origin, t).replace("●", "◌") for t in parts[::2]]
            body, drawn = "".join(parts), re.sub(r"\bmeasured\b", origin, drawn)
            body = (
                f"<p class=command><b>{escape(origin.upper())}.</b> No device was measured for the "
                f"times on this page.</p>\n{body}"
            )
        return _PAGE.format(title=escape(self.title), body=body, plotly=get_plotlyjs(), plots=drawn)


def number(value: Any, form: str, per: float = 1) -> str:
    """A number in its form; – where there is none."""
    return form.format(value / per) if isinstance(value, int | float) else "–"


def table(head: Sequence[str], rows: Iterable[Sequence[Any]], kind: str = "") -> str:
    """A table in a box of its own; cells are escaped."""
    lines = ""
    for first, *rest in rows:
        cells = "".join(f"<td>{escape(str(c))}</td>" for c in rest)
        lines += f"<tr><th>{escape(str(first))}</th>{cells}</tr>"
    titles = "".join(f"<th>{escape(t)}</th>" for t in head)
    top = f"<thead><tr>{titles}</tr></thead>" if head else ""
    return f'<div class="box"><table class="{kind}">{top}<tbody>{lines}</tbody></table></div>'
