"use strict";
(() => {
  const charts = JSON.parse(document.getElementById("data").textContent);
  const place = (i) => document.getElementById("chart-" + i);
  const dashes = { train: "solid", valid: "dash", test: "dot", only: "solid", raw: "solid" };
  const symbols = { train: "circle", valid: "diamond", test: "square", only: "circle", raw: "circle" };
  let printing = false;

  // The colours live in the style sheet alone; a chart asks for them whenever the theme changes.
  const colour = (name) =>
    getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim();

  const mark = (x, name, dash) => ({
    type: "line", xref: "x", yref: "paper", x0: x, x1: x, y0: 0, y1: 1,
    line: { color: colour(name), width: 1.5, dash },
  });
  const words = (x, text, name, first, last) => ({
    x, y: 1, xref: "x", yref: "paper", yanchor: "bottom", showarrow: false, text,
    xanchor: x > (first + last) / 2 ? "right" : "left",
    font: { color: colour(name), size: 12 },
  });

  const short = (value) =>
    value >= 1e-3 && value < 1e4 ? String(+value.toPrecision(1)) : value.toExponential(0);

  const vertical = (chart) => {
    const ys = chart.curves.flatMap((curve) => curve.y).filter((y) => y !== null);
    const low = ys.reduce((a, b) => Math.min(a, b)), high = ys.reduce((a, b) => Math.max(a, b));
    if (low === high) {
      const room = Math.abs(low) / 2 || 1;
      return { range: [low - room, low + room] };
    }
    if (!chart.log) return {};
    const decades = Math.log10(high / low);
    const steps = decades < 2 ? [1, 2, 5] : decades < 4 ? [1, 3] : [1];
    const every = Math.max(1, Math.ceil(decades / 8));
    const tickvals = [];
    for (let k = Math.floor(Math.log10(low)); k <= Math.ceil(Math.log10(high)); k += every) {
      steps.forEach((step) => tickvals.push(Number(step + "e" + k)));
    }
    return { type: "log", tickmode: "array", tickvals, ticktext: tickvals.map(short) };
  };

  const figure = (chart) => {
    const xs = chart.curves.flatMap((curve) => curve.x);
    const first = xs.reduce((a, b) => Math.min(a, b), Infinity);
    const last = xs.reduce((a, b) => Math.max(a, b), -Infinity);
    const data = chart.curves.map((curve) => ({
      type: "scatter", mode: curve.dots ? "lines+markers" : "lines",
      name: curve.name, x: curve.x, y: curve.y, hovertemplate: "%{y:.5g}",
      // Dashes that follow noise from point to point are no longer seen as dashes.
      line: {
        color: colour(curve.part), width: curve.x.length > 300 ? 1.3 : 2,
        dash: curve.x.length > 300 ? "solid" : dashes[curve.part],
      },
      marker: { color: colour(curve.part), size: 6, symbol: symbols[curve.part] },
    }));
    const shapes = [], annotations = [];
    if (chart.best) {
      shapes.push(mark(chart.best.epoch, "good", "dot"));
      annotations.push(words(chart.best.epoch, chart.best.text, "good", first, last));
    }
    if (chart.broken !== null) {
      shapes.push(mark(chart.broken, "bad", "solid"));
      // Below the words of the best epoch, and on the side that this curve has left empty.
      const late = chart.broken > first + 0.8 * (last - first);
      annotations.push({
        ...words(chart.broken, "not finite", "bad", first, last),
        xanchor: late ? "right" : "left", y: late ? 0.02 : 0.98, yanchor: late ? "bottom" : "top",
      });
    }
    const axis = {
      gridcolor: colour("grid"), linecolor: colour("line"), zerolinecolor: colour("line"),
      tickcolor: colour("line"), automargin: true,
    };
    const room = Math.max((last - first) * 0.02, 0.5);
    const several = chart.curves.length > 1;
    const layout = {
      autosize: true, margin: { l: 48, r: 12, t: 24, b: several ? 64 : 44 },
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      font: { family: getComputedStyle(document.body).fontFamily, size: 13, color: colour("soft") },
      hovermode: "x unified", hoverlabel: { bgcolor: colour("card"), font: { color: colour("ink") } },
      dragmode: false, shapes, annotations, showlegend: several,
      legend: { orientation: "h", x: 1, xanchor: "right", y: -0.27, yanchor: "top" },
      xaxis: {
        ...axis, title: { text: chart.axis, standoff: 4 }, range: [first - room, last + room],
        ...(last - first < 10 ? { dtick: 1 } : {}), hoverformat: ",d",
      },
      yaxis: { ...axis, nticks: 6, exponentformat: "e", ...vertical(chart) },
    };
    return [data, layout];
  };

  const draw = () => charts.forEach((chart, i) => {
    const [data, layout] = figure(chart);
    Plotly.react(place(i), data, layout, { responsive: true, displayModeBar: false });
  });

  if (charts.length) {
    draw();
    document.documentElement.dataset.drawn = String(charts.length);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
    // The print style has light colours and other widths: draw again for it, and back.
    matchMedia("print").addEventListener("change", (event) => {
      if (event.matches !== printing) {
        printing = event.matches;
        draw();
        charts.forEach((_, i) => Plotly.Plots.resize(place(i)));
      }
    });
  }

  const button = document.getElementById("copy");
  if (button) {
    button.addEventListener("click", () => {
      const range = document.createRange();
      range.selectNodeContents(document.getElementById("command"));
      const selection = getSelection();
      selection.removeAllRanges();
      selection.addRange(range);
      // The clipboard interface is closed to pages opened from a file; this older call is not.
      button.textContent = document.execCommand("copy") ? "Copied" : "Press Ctrl+C";
    });
  }
})();
