const plots = @plots@;
// A finger that scrolls the page must not zoom a plot.
const mouse = matchMedia("(hover: hover) and (pointer: fine)").matches;
const bar = { responsive: true, displaylogo: false, displayModeBar: mouse ? "hover" : false,
  // These buttons alone: others of the library upload a chart, or lead to its maker's pages.
  modeBarButtons: [["toImage", "zoom2d", "pan2d", "zoomIn2d", "zoomOut2d", "resetScale2d"]],
  plotlyServerURL: "", showLink: false };

// Base 85 with a comma for "<": five characters are four bytes.
const unpacked = text => {
  const digits = new Uint8Array(128), rest = (5 - text.length % 5) % 5;
  [..."0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz!#$%&()*+-;,=>?@^_`{|}~"]
    .forEach((c, i) => { digits[c.charCodeAt(0)] = i; });
  const groups = (text.length + rest) / 5, view = new DataView(new ArrayBuffer(4 * groups));
  for (let g = 0; g < groups; g++) {
    let value = 0;
    for (let i = 5 * g; i < 5 * g + 5; i++)
      value = value * 85 + (i < text.length ? digits[text.charCodeAt(i)] : 84);
    view.setUint32(4 * g, value);
  }
  return new Uint8Array(view.buffer, 0, 4 * groups - rest);
};

// A point of the front shows its block string, two blocks a line; the table holds it.
const strings = new Map([...document.querySelectorAll("table.sortable tbody tr")].map(row =>
  [Number(row.cells[0].textContent), row.querySelector(".cut").textContent]));
const fronts = Object.keys(plots).filter(id => id.startsWith("front")).map(id => plots[id].data).flat();
for (const row of fronts.flatMap(trace => trace.customdata ?? []))
  if (row.length === 5) row[4] = (strings.get(row[0]) ?? "").replaceAll("&", "&amp;")
    .replaceAll("<", "&lt;").replace(/(\S+ \S+) /g, "$1<br>");

const draw = async () => {
  const packed = new Blob([unpacked(document.getElementById("plotly").textContent)]);
  const inflated = packed.stream().pipeThrough(new DecompressionStream("deflate-raw"));
  // The page's policy lets the browser run this one text, by its hash.
  const library = document.createElement("script");
  library.textContent = await new Response(inflated).text();
  document.head.append(library);
  for (const [id, plot] of Object.entries(plots)) {
    if (!mouse) plot.layout.dragmode = false;
    if (innerWidth < 600) plot.layout.height += 20 * plot.data.length;  // the legend's rows
    Plotly.newPlot(id, plot.data, plot.layout, bar);
  }
  const wide = width => Object.keys(plots).forEach(id => Plotly.relayout(id, width));
  addEventListener("beforeprint", () => wide({ width: 660 }));
  addEventListener("afterprint", () => wide({ width: null, autosize: true }));
};
const drawn = !Object.keys(plots).length ? Promise.resolve()
  : typeof DecompressionStream === "undefined" ? Promise.reject(Error("DecompressionStream")) : draw();
drawn.catch(() => document.querySelectorAll(".plot").forEach(plot => {
  plot.textContent = "This plot needs a browser of 2023 or later; the tables hold its numbers.";
}));
window.drawn = drawn;

for (const table of document.querySelectorAll("table.sortable")) {
  const titles = [...table.tHead.rows[0].cells], body = table.tBodies[0], rows = [...body.rows];
  const value = (row, column) => {
    const text = row.cells[column].dataset.v ?? row.cells[column].textContent;
    return text === "" ? NaN : isNaN(text) ? text : Number(text);
  };
  titles.forEach((title, column) => title.querySelector("button").addEventListener("click", () => {
    const down = title.getAttribute("aria-sort") === "ascending";
    titles.forEach(t => t.removeAttribute("aria-sort"));
    title.setAttribute("aria-sort", down ? "descending" : "ascending");
    rows.sort((a, b) => {
      const [x, y] = [value(a, column), value(b, column)];
      if (x !== x || y !== y) return (x !== x) - (y !== y);  // what is unknown stands last
      return (x < y ? -1 : x > y ? 1 : 0) * (down ? -1 : 1);
    });
    body.append(...rows);
  }));
  for (const cut of table.querySelectorAll(".cut")) cut.title = cut.textContent;
  const tools = document.querySelector(".tools"), names = titles.map(t => t.dataset.name);
  tools.hidden = false;
  const kept = (row, word) => {
    const [, name, sign, number] = word.match(/^([^<>=]+)(<=|>=|<|>)([\d.]+)$/) ?? [];
    const column = names.findIndex(n => n.toLowerCase() === name);
    if (column < 0) return row.textContent.toLowerCase().includes(word);
    const [x, limit] = [value(row, column), Number(number)];
    return { "<": x < limit, ">": x > limit, "<=": x <= limit, ">=": x >= limit }[sign];
  };
  const filter = tools.querySelector("input"), status = tools.querySelector("[role=status]");
  const apply = () => {
    const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    for (const row of rows) row.hidden = !words.every(word => kept(row, word));
    status.textContent = `${rows.filter(r => !r.hidden).length} of ${rows.length} networks`;
  };
  filter.addEventListener("input", apply);
  apply();
  tools.querySelector("[data-save]").addEventListener("click", event => {
    const quoted = text => `"${String(text).replaceAll('"', '""')}"`;
    const lines = [names, ...rows.filter(r => !r.hidden).map(r => [...r.cells].map(c => c.dataset.v ?? c.textContent))];
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([lines.map(l => l.map(quoted).join(",") + "\n").join("")],
      { type: "text/csv" }));
    link.download = event.target.dataset.save;
    link.click();
    URL.revokeObjectURL(link.href);
  });
}
