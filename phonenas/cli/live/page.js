const EACH_MS = 2000, LEFT = 52, BELOW = 44, RIGHT = 14, ABOVE = 12;

const element = (name, content = "", kind = "") => {
  const made = document.createElement(name);
  made.textContent = content;  // text of files shows as text
  if (kind) made.className = kind;
  return made;
};
const shape = (name, values, content) => {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(values)) made.setAttribute(key, value);
  if (content !== undefined) made.textContent = content;
  return made;
};

// Round numbers from `low` to `high`, four to eight of them.
const ticks = (low, high) => {
  const rough = (high - low) / 6, unit = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map(f => f * unit).find(s => s >= rough);
  const first = Math.ceil(low / step), last = Math.floor(high / step);
  return Array.from({ length: last - first + 1 }, (_, i) => Number(((first + i) * step).toPrecision(12)));
};

const range = values => {
  const low = Math.min(...values), high = Math.max(...values), room = (high - low) * .05 || high * .05 || 1;
  return [Math.max(0, low - room), high + room];
};

// The texts of a drawing keep their size: a narrow screen gets a narrow drawing.
const drawing = (plot, name) => {
  const WIDTH = Math.max(280, Math.min(900, document.documentElement.clientWidth - 32));
  const HEIGHT = Math.round(Math.max(280, Math.min(420, WIDTH * .6)));
  const points = [...plot.cloud, ...plot.front, ...plot.measured];
  const described = `${name}: ${plot.quantity.replace(", %", "")} over latency; ` +
    `${plot.front.length} networks on the front, ${plot.measured.length} measured`;
  const svg = shape("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": described });
  if (!points.length) return svg;
  const [left, right] = range([...points.map(p => p[0]), ...(plot.target ? [plot.target] : [])]);
  const [low, high] = range(points.map(p => p[1]));
  const x = ms => LEFT + (ms - left) / (right - left) * (WIDTH - LEFT - RIGHT);
  const y = top1 => HEIGHT - BELOW - (top1 - low) / (high - low) * (HEIGHT - BELOW - ABOVE);
  for (const ms of ticks(left, right)) {
    svg.append(shape("line", { class: "grid", x1: x(ms), x2: x(ms), y1: ABOVE, y2: HEIGHT - BELOW }),
      shape("text", { x: x(ms), y: HEIGHT - BELOW + 16, "text-anchor": "middle" }, ms));
  }
  for (const top1 of ticks(low, high)) {
    svg.append(shape("line", { class: "grid", x1: LEFT, x2: WIDTH - RIGHT, y1: y(top1), y2: y(top1) }),
      shape("text", { x: LEFT - 6, y: y(top1) + 4, "text-anchor": "end" }, top1));
  }
  svg.append(shape("text", { x: (LEFT + WIDTH) / 2, y: HEIGHT - 6, "text-anchor": "middle" }, "latency, ms"),
    shape("text", { x: -(HEIGHT - BELOW) / 2, y: 12, "text-anchor": "middle", transform: "rotate(-90)" },
      plot.quantity));
  if (plot.target)
    svg.append(shape("line", { class: "target", x1: x(plot.target), x2: x(plot.target), y1: ABOVE,
      y2: HEIGHT - BELOW }));
  for (const [kind, r] of [["cloud", 2], ["front", 4], ["measured", 6]])
    for (const [ms, top1] of plot[kind])
      svg.append(shape("circle", { class: kind, cx: x(ms), cy: y(top1), r }));
  return svg;
};

const legend = plot => {
  const key = element("p", "", "key");
  const texts = { cloud: "evaluated (predicted)", front: "front (predicted)", measured: "measured" };
  for (const [kind, text] of Object.entries(texts)) {
    if (!plot[kind].length) continue;
    const sign = shape("svg", { viewBox: "0 0 12 12", "aria-hidden": "true" });
    sign.append(shape("circle", { class: kind, cx: 6, cy: 6, r: kind === "cloud" ? 3 : 4.5 }));
    const said = element("span");
    said.append(sign, text);
    key.append(said);
  }
  if (plot.target) key.append(element("span", `dashed: the target, ${plot.target.toFixed(2)} ms`));
  return key;
};

// The parts of a job stay in their places, so that nothing that is read or focused jumps.
const sections = new Map();
const sectionOf = job => {
  const name = `${job.kind} ${job.name}`;
  if (!sections.has(name)) {
    const parts = { title: element("h2"), state: element("p"), bar: element("progress"),
      facts: element("dl", "", "facts"), plot: element("div"), rows: element("div", "", "box") };
    parts.bar.max = 1;
    parts.bar.setAttribute("aria-label", `share of ${name} that is done`);
    parts.rows.tabIndex = 0;
    parts.rows.setAttribute("role", "group");
    const whole = element("section");
    whole.append(...Object.values(parts));
    document.getElementById("jobs").append(whole);
    sections.set(name, { whole, parts, seen: "" });
  }
  return sections.get(name);
};

const tableOf = ({ head, rows }) => {
  const table = element("table"), top = element("tr"), body = element("tbody");
  top.append(...head.map(text => { const th = element("th", text); th.scope = "col"; return th; }));
  for (const row of rows) {
    const line = element("tr");
    line.append(...row.map(text => element("td", text)));
    body.append(line);
  }
  const header = element("thead");
  header.append(top);
  table.append(header, body);
  return table;
};

const show = job => {
  const section = sectionOf(job), seen = JSON.stringify(job), { parts } = section;
  if (section.seen === seen) return;
  section.seen = seen;
  parts.title.textContent = job.name;
  parts.state.textContent = [job.state, job.who, job.told].filter(Boolean).join(": ");
  parts.bar.hidden = job.share === null;
  parts.bar.value = job.share ?? 0;
  parts.facts.hidden = !job.facts.length;
  parts.facts.replaceChildren(...job.facts.map(([label, value]) => {
    const fact = element("div");
    fact.append(element("dt", label), element("dd", value));
    return fact;
  }));
  parts.plot.replaceChildren(...job.plots.flatMap(plot => [
    ...(plot.device ? [element("h3", plot.device)] : []),
    drawing(plot, [job.name, plot.device].filter(Boolean).join(", ")), legend(plot)]));
  parts.rows.hidden = !job.rows?.rows.length;
  if (!parts.rows.hidden) {
    parts.rows.setAttribute("aria-label", job.rows.title);
    parts.rows.replaceChildren(element("h3", job.rows.title), tableOf(job.rows));
  }
};

const now = document.getElementById("now");
const ask = async () => {
  try {
    const answer = await fetch(`state${location.search}`, { cache: "no-store" });
    if (!answer.ok) {
      now.textContent = `The state could not be read. ${await answer.text()}`;
      return;
    }
    const state = await answer.json(), names = state.jobs.map(job => `${job.kind} ${job.name}`);
    state.jobs.forEach(show);
    for (const [name, section] of sections) if (!names.includes(name)) {
      section.whole.remove();
      sections.delete(name);
    }
    now.textContent = `As of ${new Date(state.at).toLocaleTimeString()}, read again every ${EACH_MS / 1000} s.`;
  } catch (error) {
    if (!now.textContent.startsWith("No answer"))
      now.textContent = `No answer: phonenas serve has ended, or the computer slept. ${now.textContent}`;
  }
};
const poll = () => ask().finally(() => setTimeout(poll, EACH_MS));
window.drawn = ask().finally(() => setTimeout(poll, EACH_MS));
