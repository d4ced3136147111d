// The spectral density of a run that measures it: where the eigenvalues of the Hessian lie.
(function (o) {
  "use strict";
  /** The card of the density; hidden in a run without. */
  o.densityCard = function (model) {
    const made = o.chartCard("Spectral density", { id: "density-card", wide: true,
      caption: "Where the eigenvalues lie: most near zero, and few far out, which limit the step.",
      means: "Density of the Hessian's eigenvalues by stochastic Lanczos quadrature (Ghorbani, Krishnan and Xiao 2019), blurred by a hundredth of their range, at the last sample. Its vertical axis is logarithmic." });
    const chart = new o.XYChart(made.box, model, { name: "density", label: "Spectral density of the Hessian", read: (colours) => read(model, colours) });
    const update = () => {
      const table = model.tables.density, at = latest(table);
      made.card.hidden = at < 0;
      made.note.textContent = at < 0 ? "" : `step ${o.step(table.steps[at])}`;
      chart.update();
    };
    return { ...made, chart, update };
  };

  const latest = (table) => {
    const first = table && table.column("density_0");
    return first ? first.findLastIndex(Number.isFinite) : -1;
  };

  function read(model, colours) {
    const table = model.tables.density, at = latest(table);
    if (at < 0) return null;
    const of = (name) => { const column = table.column(name); return column ? column[at] : NaN; };
    const count = table.columns.filter((name) => /^density_\d+$/.test(name)).length;
    const low = of("grid_low"), high = of("grid_high"), heights = Array.from({ length: count }, (_, i) => of(`density_${i}`));
    const xs = heights.map((_, i) => low + ((high - low) * i) / Math.max(1, count - 1)), top = Math.max(...heights.filter(Number.isFinite));
    if (!(high > low) || !(top > 0)) return null;
    const least = top * 1e-6;
    return {
      x: { ends: [low, high], title: "eigenvalue", name: "eigenvalue" },
      y: { ends: [least, 2 * top], log: true },
      curves: [{ name: "density", xs, ys: heights.map((v) => Math.max(v, least)), colour: colours.line }],
      verticals: low < 0 && high > 0 ? [{ x: 0, text: "0" }] : [],
      words: `Eigenvalues from ${o.number(low)} to ${o.number(high)}; their sum is ${o.number(of("trace"))}` +
        (Number.isFinite(of("trace_error")) ? ` ± ${o.number(of("trace_error"), 2)}.` : "."),
      csv: ["eigenvalue,density", ...xs.map((x, i) => `${x},${heights[i]}`)].join("\r\n") + "\r\n",
    };
  }
})((window.otoscope = window.otoscope || {}));
