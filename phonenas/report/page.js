const plots = @plots@;
// A finger that scrolls the page must not zoom a plot.
const mouse = matchMedia("(hover: hover) and (pointer: fine)").matches;
const bar = { responsive: true, displaylogo: false, displayModeBar: mouse ? "hover" : false,
  // These buttons alone: others of the library upload a chart, or lead to its maker's pages.
  modeBarButtons: [["toImage", "zoom2d", "pan2d", "zoomIn2d", "zoomOut2d", "resetScale2d"]],
  plotlyServerURL: "", showLink: false };
for (const [id, plot] of Object.entries(plots)) {
  if (!mouse) plot.layout.dragmode = false;
  if (innerWidth < 600) plot.layout.height += 20 * plot.data.length;  // the legend's rows
  Plotly.newPlot(id, plot.data, plot.layout, bar);
}
const wide = width => Object.keys(plots).forEach(id => Plotly.relayout(id, width));
addEventListener("beforeprint", () => wide({ width: 660 }));
addEventListener("afterprint", () => wide({ width: null, autosize: true }));
