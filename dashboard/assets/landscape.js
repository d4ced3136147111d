// The landscape scan: the loss along the last step, measured and as slope and curvature foretell it.
(function (o) {
  "use strict";
  const MULTIPLES = [0, 0.25, 0.5, 1, 2, 4, 8, 16];
  const TICKS = { 0: "0", 0.25: "¼", 0.5: "½" };

  o.scanCard = function (model) {
    const made = o.chartCard("The loss along the last step", { id: "scan-card",
      caption: "Measured at multiples of the step that the optimizer made; shaded as far as the quadratic model holds.",
      means: "Forward passes over up to four fresh batches at the weights plus 0, ¼, ½, 1, 2, 4, 8 and 16 times the last update. The dashed curve is the loss at the start, the slope and the curvature along the step. Where the two part, the loss is no longer what a step is planned by." });
    const { tools, note } = made;
    const slider = o.h("input", { type: "range", class: "slider", min: 0, max: 0, step: 1, "aria-label": "Which scan is shown" });
    const latest = o.h("button", { class: "button small", onclick: () => choose("") }, "Latest");
    tools.append(slider, latest);
    slider.addEventListener("input", () => choose(model.tables.landscape.steps[rows(model)[Number(slider.value)]]));
    const chart = new o.XYChart(made.box, model, { name: "scan", label: "Landscape scan", empty: ["No scan yet.", "No scan was made."], read: (colours) => read(model, colours) });

    /** Show the scan at a step, or the latest for an empty one. */
    function choose(step) {
      const known = rows(model);
      const isLast = known.length && model.tables.landscape.steps[known[known.length - 1]] === step;
      o.set("scan", isLast || step === "" ? "" : String(step));
      update();
    }

    function update() {
      const known = rows(model), at = chosen(model);
      slider.max = Math.max(0, known.length - 1);
      slider.value = Math.max(0, known.indexOf(at));
      slider.hidden = latest.hidden = known.length < 2;
      latest.disabled = !o.settings.scan;
      const step = at >= 0 ? model.tables.landscape.steps[at] : NaN;
      slider.setAttribute("aria-valuetext", `step ${o.step(step)}`);
      note.textContent = at < 0 ? "" : `step ${o.step(step)}${o.settings.scan ? "" : ", the latest"}`;
      chart.update();
    }
    return { ...made, chart, update, choose };
  };

  /** Rows of the landscape in which a scan was made. */
  function rows(model) {
    const table = model.tables.landscape, start = table && table.column("scan_0");
    return start ? start.map((_, i) => i).filter((i) => Number.isFinite(start[i])) : [];
  }

  function chosen(model) {
    const known = rows(model);
    if (!known.length) return -1;
    const asked = Number(o.settings.scan);
    if (!o.settings.scan || !Number.isFinite(asked)) return known[known.length - 1];
    const steps = known.map((i) => model.tables.landscape.steps[i]);
    return known[o.nearest(steps, asked)];
  }

  function read(model, colours) {
    const at = chosen(model);
    if (at < 0) return null;
    const table = model.tables.landscape, of = (name) => { const column = table.column(name); return column ? column[at] : NaN; };
    const losses = MULTIPLES.map((_, i) => of(`scan_${i}`)), slope = of("slope"), bend = of("curvature_along");
    const horizon = of("horizon"), alpha = of("alpha"), start = losses[0];
    const fine = Array.from({ length: 65 }, (_, i) => Math.pow((i / 64) * 4, 2)); // 0 to 16, as the root axis spaces them
    const model2 = (c) => start + c * slope + 0.5 * c * c * bend;
    const near = MULTIPLES.map((c, i) => [c, losses[i]]).filter(([c, v]) => Number.isFinite(v) && c <= Math.max(2, Math.min(4, horizon || 0)));
    const seen = [...near.map((pair) => pair[1]), ...near.map((pair) => model2(pair[0]))].filter(Number.isFinite);
    // what explodes far ahead is cut off above; what still falls there is not
    let low = Math.min(...seen, ...losses.filter(Number.isFinite)), high = Math.max(...seen);
    if (!(high > low)) { low -= 0.5 * Math.abs(low) || 0.5; high += 0.5 * Math.abs(high) || 0.5; }
    const pad = 0.08 * (high - low);
    return {
      x: { ends: [0, 16], map: Math.sqrt, ticks: MULTIPLES, text: (c) => TICKS[c] || String(c), title: "times the step that was made", name: "at" },
      y: { ends: [low - pad, high + pad] },
      shade: horizon > 0 ? [0, Math.min(16, horizon)] : null,
      verticals: [{ x: 1, text: "the step" }],
      curves: [
        { name: "measured", xs: MULTIPLES, ys: losses, colour: colours.line, dots: true },
        { name: "quadratic", xs: MULTIPLES, ys: MULTIPLES.map(model2), colour: "transparent", width: 0.01, hidden: true },
        { name: "", xs: fine, ys: fine.map(model2), colour: colours.third, dash: [6, 4], width: 1.5 },
      ],
      keys: [["measured", colours.line, []], ["slope and curvature", colours.third, [6, 4]]],
      words: `At step ${o.step(table.steps[at])} the loss goes from ${o.number(start)} to ${o.number(losses[3])} after the step; ` +
        `the quadratic holds for ${o.number(horizon, 2)} steps${Number.isFinite(alpha) ? `, the step lands at ${o.number(alpha, 2)}` : ", uphill"}.`,
      csv: ["multiple,loss,quadratic", ...MULTIPLES.map((c, i) => [c, losses[i], model2(c)].map((v) => (Number.isFinite(v) ? v : "")).join(","))].join("\r\n") + "\r\n",
    };
  }
})((window.otoscope = window.otoscope || {}));
