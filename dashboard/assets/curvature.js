// The Curvature page: the top of the Hessian against the optimizer's edge, conditioning, the landscape.
(function (o) {
  "use strict";
  const EDGE_LOW = 0.8, EDGE_HIGH = 1.25; // of the edge: within it a run hovers there
  const DASHES = [[], [6, 3], [2, 3], [8, 3, 2, 3], [1, 2]];

  o.pages = Object.assign(o.pages || {}, { curvature: curvaturePage });

  function curvaturePage(model) {
    const stats = o.h("div", { class: "stats" }), absent = o.h("div", {}), said = o.h("div", {});
    const scan = o.scanCard(model);
    const bent = [eigenvalues(model), edges(model), gains(model)], apart = [shares(model), spreads(model)];
    const along = [scan, horizons(model, scan), positions(model)];
    const cards = [...bent, ...along, ...apart, zigzag(model), o.densityCard(model)];
    const grid = o.h("div", { class: "grid", hidden: true }, cards.map((card) => card.card));
    o.byId("view-curvature").replaceChildren(said, stats, absent, grid);

    function show() {
      const has = Boolean(model.tables.curvature || model.tables.landscape);
      grid.hidden = stats.hidden = !has;
      o.fill(absent, [missing(model)], () => missing(model).map((text) => o.h("section", { class: "card" }, o.h("p", {}, text))));
      if (!has) return;
      o.fill(stats, numbers(model), () => o.numberRow(numbers(model)));
      o.fill(said, badge(model), () => (badge(model) ? o.h("p", { class: "card hint" }, o.h("span", { class: "badge info" }, o.icon("info"), "edge of stability"), badge(model)) : null));
      for (const card of cards) card.update();
      // what is not measured is said once, above, and not again by each of its empty charts
      for (const card of along) card.card.hidden = !isMeasured(model, "landscape");
      for (const card of [...bent, ...apart]) card.card.hidden = !isMeasured(model, "curvature");
    }
    return { views: cards.map((card) => card.chart), show, chosen: show };
  }

  const names = (table, start) => (table ? table.columns.filter((name) => name.startsWith(start)) : []);

  function missing(model) {
    return [["curvature", "the curvature"], ["landscape", "the landscape"]]
      .filter(([family]) => !isMeasured(model, family))
      .map(([family, what]) => model.absence(family, what));
  }
  /** A column of the run; where it has several optimizers, that of the first. */
  const columnOf = (table, name) => (table ? table.column(name) || table.column(names(table, name + "/")[0]) : null);
  const isMeasured = (model, family) => Boolean(model.tables[family]) && model.tables[family].data.some((column) => column.some(Number.isFinite));

  function last(model, family, name) {
    const table = model.tables[family], values = columnOf(table, name);
    const at = values ? values.findLastIndex(Number.isFinite) : -1;
    return at < 0 ? { value: NaN, at, step: NaN } : { value: values[at], at, step: table.steps[at] };
  }

  function recent(model, family, name, count) {
    const values = (columnOf(model.tables[family], name) || []).filter(Number.isFinite).slice(-count);
    return { value: o.median(values), count: values.length };
  }

  function optimizer(model) { return ((model.run.optimizers || [])[0] || {}).name || "this optimizer"; }

  function numbers(model) {
    const table = model.tables.curvature;
    const top = last(model, "curvature", "lambda_1"), bound = table && table.column("bound_1");
    const own = recent(model, "curvature", "preconditioned_newton_gain", 5), plain = recent(model, "curvature", "newton_gain", 5);
    const pool = last(model, "curvature", "pool_samples"), spreads = (table && table.column("lambda_spread")) || [];
    const apart = spreads[pool.at]; // NaN where the pool held one batch
    const ahead = recent(model, "landscape", "horizon", 5), alpha = recent(model, "landscape", "alpha", 5);
    const steps = (v) => `${o.number(v, 2)} step${v === 1 ? "" : "s"}`;
    return [
      ["Largest eigenvalue", o.number(top.value), top.at < 0 ? model.words("not measured yet", "never measured") : `${within(top.value, bound ? bound[top.at] : NaN)}step ${o.step(top.step)}`],
      ...edgeNumbers(model),
      ["Newton gain", o.number(plain.value, 2), Number.isFinite(own.value) ? `${o.number(own.value, 2)} with the scaling of ${optimizer(model)}` : "plain gradient steps"],
      model.tables.landscape ? ["Horizon", ahead.count ? steps(ahead.value) : "–", ahead.count ? `median of ${o.many(ahead.count, "scan")}` : model.words("not measured yet", "never measured")] : null,
      model.tables.landscape ? ["Step position", alpha.count >= 5 ? o.number(alpha.value, 2) : "–", alpha.count >= 5 ? "median of 5 scans" : `${o.many(alpha.count, "scan")} of the 5 that it takes`] : null,
      ["Measured on", o.step(pool.value), Number.isFinite(apart) ? `samples; the batches are ${o.number(apart, 2)} apart` : "samples, of one batch"],
    ];
  }

  /** The error of an eigenvalue: beyond three digits nobody needs it. */
  function within(value, bound) {
    if (!(bound >= 0)) return "";
    return bound < 1e-3 * Math.abs(value) ? "to 0.1 %, " : `± ${o.number(bound, 2)}, `;
  }

  function edgeNumbers(model) {
    const found = names(model.tables.curvature, "edge_ratio");
    return found.map((name) => {
      const { value } = last(model, "curvature", name);
      const which = name.includes("/") ? `Edge, ${name.slice(name.indexOf("/") + 1)}` : "Step to stable limit";
      if (Number.isNaN(value)) return [which, "–", model.tables.curvature.steps.length ? `no stable limit is known for ${optimizer(model)}` : model.words("not measured yet", "never measured")];
      return [which, `${o.number(value, 2)} ×`, value > 1 ? "beyond the edge" : "within the edge"];
    });
  }

  /** What is said of a run that hovers at the edge while its loss falls: no fault, and no finding. */
  function badge(model) {
    const ratio = recent(model, "curvature", "edge_ratio", 3);
    const loss = ((model.tables.train && model.tables.train.column("loss")) || []).filter(Number.isFinite);
    const tenth = Math.max(10, Math.floor(loss.length / 10));
    const falls = loss.length >= 40 && o.median(loss.slice(-tenth)) < o.median(loss.slice(-4 * tenth, -2 * tenth));
    if (ratio.count < 2 || !(ratio.value >= EDGE_LOW && ratio.value <= EDGE_HIGH) || !falls) return "";
    return `The largest eigenvalue hovers where ${optimizer(model)} is just stable (${o.number(ratio.value, 2)} of the edge) while the loss falls. ` +
      "Many sound runs train there; it is no fault by itself.";
  }

  function eigenvalues(model) {
    return o.chartIn({ title: "Largest eigenvalues", id: "eigenvalues-card",
      caption: "How sharply the loss bends along the steepest directions; a step is stable while it stays under the edge.",
      means: "Eigenvalues of the Hessian of your loss over up to four fresh batches, by Lanczos, with their error bounds. The edge is the largest that the optimizer can take at the present learning rate: 2/lr for plain SGD, 2(1+momentum)/lr with momentum. Batch sharpness is the curvature along each batch's own gradient, which is what hovers at the edge in mini-batch training." },
    ({ box, tools }) => {
      scaleButton(tools, "eigenvalues");
      return new o.LineChart(box, model, { name: "curvature", label: "Largest eigenvalues of the Hessian", family: "curvature", gaps: false,
        log: () => o.settings.eigenvalues === "log", lines: (table, colours) => eigenLines(table, colours) });
    });
  }

  function eigenLines(table, colours) {
    const tops = names(table, "lambda_").filter((name) => /^lambda_\d+$/.test(name));
    const own = columnOf(table, "preconditioned_lambda"), ratio = columnOf(table, "edge_ratio"), top = table.column("lambda_1");
    const scaled = Boolean(own && own.some(Number.isFinite));
    const lines = tops.map((name, i) => {
      const values = table.column(name), bound = table.column(name.replace("lambda", "bound")) || [];
      return { name: tops.length === 1 ? "largest" : `${i + 1}`, values, gaps: false, colour: colours.line, width: i ? 1.1 : 2, dash: DASHES[Math.min(i, 4)],
        low: values.map((v, k) => v - (bound[k] || 0)), high: values.map((v, k) => v + (bound[k] || 0)) };
    });
    lines.push({ name: "smallest", values: table.column("lambda_min"), gaps: false, colour: colours.fourth, width: 1.2, dash: [8, 3, 2, 3] });
    lines.push({ name: "batch sharpness", values: table.column("batch_sharpness"), gaps: false, colour: colours.second, width: 1.2, dash: [6, 3] });
    // of another matrix and a thousand times larger: on a linear axis beside the others it says nothing
    if (scaled && o.settings.eigenvalues !== "log") return lines;
    if (scaled) lines.push({ name: "scaled by the optimizer", values: own, gaps: false, colour: colours.third, width: 1.6, soft: true });
    if (ratio) {
      const of = scaled ? own : top;
      lines.push({ name: scaled ? "edge of the scaled one" : "edge", values: ratio.map((r, i) => (r > 0 ? of[i] / r : NaN)), gaps: false, soft: true, plain: true, colour: colours.mark, width: 1.4, dash: [5, 4] });
    }
    return lines;
  }

  function edges(model) {
    return o.chartIn({ title: "Step against the stable limit", id: "edge-card",
      caption: "1 is the edge of stability: above it a step lands farther out along the steepest direction than it began.",
      means: "Largest eigenvalue over the largest that the optimizer is stable at (for Adam that of the Hessian scaled by its second moment, 38/lr at beta 0.9). Sound runs hover around 1; the rule about a too high learning rate asks for a climbing loss besides. On held-out nets lr over this ratio told how far the rate can be raised from where a run stands, for plain SGD on average, with momentum the loss rose at about a quarter of it, with Adam at about half; measured at the initialization it did not tell at which rate a training blows up. Not drawn for an optimizer whose edge is not known." },
    ({ box }) => new o.LineChart(box, model, { name: "edge", label: "Eigenvalue over the edge of stability", family: "curvature", zero: true,
      empty: ["Nothing sampled yet, or no stable limit is known for this optimizer.", "Never sampled, or no stable limit is known for this optimizer."], show: (v) => (Number.isNaN(v) ? "–" : `${o.number(v, 2)} ×`), rules: [{ value: 1, name: "edge of stability" }],
      lines: (table, colours) => names(table, "edge_ratio").map((name, i) => ({ name: name.includes("/") ? name.slice(name.indexOf("/") + 1) : "this run", values: table.column(name), gaps: false, colour: i ? colours.third : colours.line, dash: DASHES[i % 5], width: 2 })) }));
  }

  function gains(model) {
    return o.chartIn({ title: "Conditioning", id: "gain-card",
      caption: "How many stable gradient steps one curvature-aware step is worth: 1 is a round bowl, 100 a narrow valley.",
      means: "The Newton gain: mean over the gradient's energy of the largest eigenvalue over each one, damped at 1 % of it, from the Lanczos run that began at the gradient. It holds for the step at hand: on held-out nets it did not rank what a second-order method saves over a whole training. The second line is the same along the directions as an adaptive optimizer scales them; the two lines together do not tell what that scaling saves." },
    ({ box }) => new o.LineChart(box, model, { name: "newton-gain", label: "Newton gain", family: "curvature", zero: true, show: (v) => o.number(v, 2),
      lines: (table, colours) => [
        { name: "plain gradient", values: table.column("newton_gain"), gaps: false, colour: colours.line, width: 2 },
        { name: "as the optimizer scales it", values: columnOf(table, "preconditioned_newton_gain"), gaps: false, colour: colours.third, width: 2, dash: [6, 3] },
      ] }));
  }

  function horizons(model, scan) {
    return o.chartIn({ title: "Horizon", id: "horizon-card",
      caption: "How many steps ahead slope and curvature still foretell the loss; under 1 even the step just made is too long.",
      means: "The largest scanned multiple of the last step up to which the measured loss stays within a fifth of what the quadratic model moves. Sound runs show 1 to 16 (the longest scan), a learning rate that blows up 0.25 to 0.5. Choose a point to see its scan." },
    ({ box }) => new o.LineChart(box, model, { name: "horizon", label: "Horizon of the quadratic model in steps", family: "landscape", log: () => true, show: (v) => o.number(v, 2),
      choose: (step) => scan.choose(step), rules: [{ value: 1, name: "one step" }],
      lines: (table, colours) => [{ name: "horizon", values: floor(table.column("horizon")), gaps: false, colour: colours.line, width: 1.8 }] }));
  }
  const floor = (values) => values && values.map((v) => (v === 0 ? 0.125 : v)); // under the smallest scanned multiple; a log axis has no 0

  function positions(model) {
    return o.chartIn({ title: "Where a step lands", id: "alpha-card",
      caption: "−1 is no progress, 0 the floor of the valley along the step, 1 the other side at equal height. Single scans run wild; look at the median.",
      means: "From slope and curvature along the last update: −(curvature / slope) − 1, clipped to −1…3, undefined for a step uphill. The median at the best learning rate is 0 to 0.26 in published sweeps, so 0 is no target." },
    ({ box, note }) => {
      const chart = new o.LineChart(box, model, { name: "step-position", label: "Position of the step in the valley", family: "landscape", show: (v) => o.number(v, 2),
        rules: [{ value: 0, name: "valley floor" }],
        lines: (table, colours) => {
          const alpha = table.column("alpha");
          return [{ name: "each scan", values: alpha, gaps: false, colour: colours.raw, width: 1 },
            { name: "median of 5", values: running(alpha, 5), gaps: false, colour: colours.line, width: 2, plain: true }];
        } });
      const update = chart.update.bind(chart);
      chart.update = () => {
        const uphill = ((model.tables.landscape && model.tables.landscape.column("uphill")) || []).filter(Number.isFinite);
        chart.options.empty = uphill.length ? "Every scanned step went uphill." : ["No scan yet.", "No scan was made."];
        note.textContent = uphill.length ? `${o.percent(uphill.reduce((a, b) => a + b, 0) / uphill.length)} of the steps went uphill` : "";
        update();
      };
      return chart;
    });
  }

  function running(values, count) {
    const seen = [];
    return (values || []).map((value) => {
      if (!Number.isFinite(value)) return NaN;
      seen.push(value);
      return seen.length < count ? NaN : o.median(seen.slice(-count));
    });
  }

  function shares(model) {
    return o.chartIn({ title: "Gradient in the top space", id: "share-card",
      caption: "Share of the gradient's energy along the steepest directions; near 1 the step mostly crosses the valley.",
      means: "Squared length of the gradient's part in the space of the top eigenvectors over that of the whole gradient (Gur-Ari, Roberts and Dyer 2018)." },
    ({ box }) => new o.LineChart(box, model, { name: "top-space", label: "Gradient share in the top space", family: "curvature", zero: true, percent: true,
      lines: (table, colours) => [{ name: "share", values: table.column("top_space_share"), gaps: false, colour: colours.line, width: 1.8 }] }));
  }

  function spreads(model) {
    return o.chartIn({ title: "Spread over the batches", id: "spread-card",
      caption: "How far the curvature of single batches lies apart, against the largest eigenvalue: a wide spread asks for caution.",
      means: "Largest less smallest Rayleigh quotient of the top vector over the batches of the pool, over the largest eigenvalue. A proposed learning rate carries this spread as its range." },
    ({ box, note }) => {
      const chart = new o.LineChart(box, model, { name: "spread", label: "Spread of the curvature over batches", family: "curvature", zero: true, percent: true,
        empty: ["Nothing sampled yet, or one batch alone, which has no spread.", "Never sampled, or one batch alone, which has no spread."],
        lines: (table, colours) => {
          const top = table.column("lambda_1"), spread = table.column("lambda_spread");
          return [{ name: "spread", values: spread && spread.map((v, i) => (top[i] > 0 ? v / top[i] : NaN)), gaps: false, colour: colours.line, width: 1.8 }];
        } });
      const update = chart.update.bind(chart);
      chart.update = () => {
        const { value } = last(model, "curvature", "pool_samples");
        note.textContent = Number.isFinite(value) ? `${o.step(value)} samples in the pool` : "";
        update();
      };
      return chart;
    });
  }

  function zigzag(model) {
    return o.chartIn({ title: "Consecutive gradients", id: "cosine-card",
      caption: "Cosine of the angle between the gradients of two steps in a row: −1 is the zig-zag across a narrow valley.",
      means: "Inner product of two consecutive gradients over their lengths, before clipping. Noise draws it towards 0; steps that overshoot the valley draw it below." },
    ({ box }) => new o.LineChart(box, model, { name: "gradient-cosine", label: "Cosine of consecutive gradients", family: "gradients", show: (v) => o.number(v, 2),
      optional: true, rules: [{ value: 0, name: "at right angles" }],
      lines: (table, colours) => [{ name: "cosine", values: table.column("grad_cosine"), gaps: false, colour: colours.line, width: 1.6 }] }));
  }

  /** One button that says which axis comes next. */
  function scaleButton(tools, setting) {
    const button = o.h("button", { class: "button small", "aria-pressed": "false" }, "Log axis");
    const show = () => button.setAttribute("aria-pressed", String(o.settings[setting] === "log"));
    button.addEventListener("click", () => { o.set(setting, o.settings[setting] === "log" ? "linear" : "log"); show(); });
    show();
    tools.append(button);
  }
  o.scaleButton = scaleButton;
})((window.otoscope = window.otoscope || {}));
