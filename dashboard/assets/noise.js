// The Noise page: the noise scale against the batch, what a larger batch buys, and when nothing can be said.
(function (o) {
  "use strict";
  o.pages = Object.assign(o.pages || {}, { noise: noisePage });

  function noisePage(model) {
    const stats = o.h("div", { class: "stats" }), absent = o.h("div", {}), said = o.h("div", {});
    const cards = [scale(model), tradeOff(model), signal(model), parts(model), tails(model)];
    const grid = o.h("div", { class: "grid", hidden: true }, cards.map((card) => card.card));
    o.byId("view-noise").replaceChildren(said, stats, absent, grid);

    function show() {
      const has = Boolean(model.tables.noise);
      grid.hidden = !has && !model.tables.tail_index;
      stats.hidden = !has;
      const missing = has ? "" : model.absence("noise", "the noise");
      o.fill(absent, missing, () => (missing ? o.h("section", { class: "card" }, o.h("p", {}, missing)) : null));
      for (const card of cards) card.update();
      if (!has) return;
      o.fill(stats, numbers(model), () => o.numberRow(numbers(model)));
      const [word, text] = sentence(model);
      o.fill(said, [word, text], () => o.h("p", { class: "card hint" }, o.h("strong", {}, word), text));
    }
    return { views: cards.map((card) => card.chart), show, chosen: show };
  }

  /** Samples in a step: as most steps of the run had it. */
  function batchOf(model) {
    const train = model.tables.train, samples = train && train.column("samples");
    const size = samples ? o.median(samples.filter((n) => n > 0).slice(-200)) : NaN;
    if (size > 0) return size;
    const big = model.tables.noise && model.tables.noise.column("big");
    return big ? o.lastFinite(big) : NaN;
  }

  /** The noise as it stands: {scale, low, high, gradient, trace, batch, samples}; NaN where it is undetermined. */
  o.noiseOf = function (model) {
    const table = model.tables.noise;
    const at = (name) => { const column = table && table.column(name); return column && column.length ? column[column.length - 1] : NaN; };
    return { scale: at("noise_scale"), low: at("low"), high: at("high"), gradient: at("gradient_sq"), trace: at("trace"),
      batch: batchOf(model), samples: table ? table.steps.length : 0 };
  };

  const wasted = (noise) => noise.scale / (noise.scale + noise.batch);

  function numbers(model) {
    const noise = o.noiseOf(model), ratio = noise.batch / noise.scale;
    const between = Number.isFinite(noise.low) ? `95 %: ${o.large(noise.low)} to ${Number.isFinite(noise.high) ? o.large(noise.high) : "no upper bound"}` : `after ${o.many(noise.samples, "sample")}`;
    return [
      ["Noise scale", Number.isFinite(noise.scale) ? scaleText(noise.scale) : "undetermined", between],
      ["Batch", o.step(noise.batch), "samples in a step, over all ranks"],
      ["Noise in a step", o.percent(wasted(noise)), Number.isFinite(ratio) ? `a step takes ${o.number(1 + 1 / ratio)} times a noiseless one` : ""],
      ["Signal to noise", Number.isFinite(ratio) ? o.number(ratio, 2) : "–", "batch over noise scale"],
    ];
  }

  const scaleText = (value) => (Math.abs(value) < 100 ? o.number(value) : o.large(value));

  /** What the numbers mean, in words; why, where they mean nothing yet. */
  function sentence(model) {
    const noise = o.noiseOf(model), task = model.run.task === "contrastive" ? " Losses that couple the samples of a batch bias it." : "";
    const adaptive = /adam/i.test(((model.run.optimizers || [])[0] || {}).name || "") ? " It is an estimate for plain gradient steps; Adam's scaling changes what a larger batch buys." : "";
    if (!Number.isFinite(noise.scale)) {
      const why = noise.gradient > 0 ? "the squared gradient cannot be told from zero: its estimate is smaller than its own uncertainty"
        : Number.isFinite(noise.gradient) ? `the estimate of the squared gradient is ${o.number(noise.gradient)}, which no gradient can have: noise drowns it`
        : "the samples do not fit two batch sizes together";
      return ["Undetermined ", `after ${o.many(noise.samples, "sample")}: ${why}. More samples or a larger batch settle it; no number is made up.`];
    }
    const ratio = noise.scale / noise.batch;
    if (ratio < 0.1) return ["Little noise. ", `The batch of ${o.step(noise.batch)} is larger than needed: half of it would take ${o.percent((1 + 2 * ratio) / (1 + ratio) - 1)} more steps and half the compute a step.` + adaptive + task];
    if (ratio > 2) return ["Much noise. ", `Twice the batch would take ${o.number((1 + ratio) / (1 + ratio / 2), 2)} times fewer steps; the batch of ${o.step(noise.batch)} is well under the noise scale.` + adaptive + task];
    return ["Balanced. ", `Batch and noise scale are of one size: twice the batch would take ${o.number((1 + ratio) / (1 + ratio / 2), 2)} times fewer steps for ${o.number(2 * (1 + ratio / 2) / (1 + ratio), 2)} times the compute.` + adaptive + task];
  }

  /** The batch at each sample of the noise: the usual one there, not an epoch's short last one. */
  function batches(model, table) {
    const train = model.tables.train, samples = train && train.column("samples");
    const big = table.column("big") || [];
    return table.steps.map((step, i) => {
      const at = samples && train.steps.length ? o.nearest(train.steps, step) : -1;
      const size = at < 0 ? NaN : o.median(samples.slice(Math.max(0, at - 5), at + 6).filter((n) => n > 0));
      return size > 0 ? size : big[i];
    });
  }

  function scale(model) {
    return o.chartIn({ title: "Noise scale against the batch", id: "noise-scale-card",
      caption: "The batch at which half of a step is noise, with its 95 % interval; the dashed line is the batch of the run.",
      means: "Simple noise scale (McCandlish et al. 2018): trace of the gradient's covariance over its squared mean, from squared norms at two batch sizes. Both are averaged over samples and divided last. Where the squared gradient is not above zero with confidence, nothing is drawn." },
    ({ box }) => new o.LineChart(box, model, { name: "noise", label: "Noise scale and batch", family: "noise", log: () => true, show: scaleText,
      empty: ["Sampled, but undetermined so far.", "Sampled, but undetermined."], lines: (table, colours) => {
        const values = table.column("noise_scale");
        const known = Boolean(values && values.some(Number.isFinite));
        return [{ name: "noise scale", values, gaps: true, colour: colours.line, width: 2, low: table.column("low"), high: bounded(table.column("high"), values) },
          { name: "batch", values: known ? batches(model, table) : null, gaps: false, plain: true, colour: colours.mark, width: 1.4, dash: [5, 4] }];
      } }));
  }
  // an interval without an upper end is drawn to a hundred times the estimate
  const bounded = (high, values) => high && high.map((v, i) => (v === Infinity ? 100 * values[i] : v));

  function tradeOff(model) {
    return o.chartIn({ title: "Time against compute", id: "trade-card",
      caption: "Each batch size is a place on this curve: a larger batch moves left and up, fewer steps for more compute.",
      means: "(S/S_min − 1)(E/E_min − 1) = 1: S steps and E samples to a given loss, each over the fewest that any batch could do. S/S_min = 1 + noise scale / batch, E/E_min = 1 + batch / noise scale. At the noise scale both are 2. On held-out nets it told how much farther the next step of twice the batch falls; over tens of steps only roughly." },
    ({ box }) => new o.XYChart(box, model, { name: "time-against-compute", label: "Steps against samples for every batch size",
      empty: "Nothing to place on the curve while the noise scale is undetermined.", read: (colours) => place(model, colours) }));
  }

  function place(model, colours) {
    const noise = o.noiseOf(model);
    if (!(noise.scale > 0) || !(noise.batch > 0)) return null;
    const steps = (batch) => 1 + noise.scale / batch, compute = (batch) => 1 + batch / noise.scale;
    const most = 1.3 * Math.max(11, steps(noise.batch / 2), compute(2 * noise.batch));
    const excess = Array.from({ length: 81 }, (_, i) => Math.pow(most - 1, (2 * i) / 80 - 1)); // S/S_min − 1
    const xs = excess.map((e) => 1 + e), ys = excess.map((e) => 1 + 1 / e);
    const at = (batch, words, strong) => ({ x: steps(batch), y: compute(batch), text: words, colour: strong ? colours.mark : colours.event, strong, size: strong ? 5 : 3.5 });
    const ends = [noise.low, noise.high].map((scale) => 1 + scale / noise.batch);
    const within = Number.isFinite(ends[0]) ? xs.map((x, i) => (x >= ends[0] && !(x > ends[1]) ? ys[i] : NaN)) : [];
    return {
      x: { ends: [1, most], log: true, title: "steps, times the fewest", name: "steps ×" },
      y: { ends: [1, most], log: true },
      curves: [{ name: "samples ×", xs, ys, colour: colours.line }, ...(within.length ? [{ name: "", xs, ys: within, colour: colours.line, width: 5 }] : [])],
      keys: [["samples, times the fewest", colours.line, []]],
      marks: [at(noise.batch / 2, o.large(noise.batch / 2)), at(2 * noise.batch, o.large(2 * noise.batch)), at(noise.batch, `batch ${o.large(noise.batch)}`, true)],
      words: `The batch of ${o.step(noise.batch)} takes ${o.number(steps(noise.batch))} times the fewest steps and ${o.number(compute(noise.batch))} times the fewest samples.`,
      csv: ["batch,steps_over_fewest,samples_over_fewest", ...[0.125, 0.25, 0.5, 1, 2, 4, 8].map((k) => [k * noise.batch, steps(k * noise.batch), compute(k * noise.batch)].join(","))].join("\r\n") + "\r\n",
    };
  }

  function signal(model) {
    return o.chartIn({ title: "Signal to noise", id: "signal-card",
      caption: "Batch over noise scale: above 1 most of a step is signal, below 1 most of it is noise.",
      means: "B over the simple noise scale. The share of a step that is noise is 1 − 1/(1 + noise scale / B)." },
    ({ box }) => new o.LineChart(box, model, { name: "signal-to-noise", label: "Batch over noise scale", family: "noise", log: () => true, show: (v) => o.number(v, 2),
      rules: [{ value: 1, name: "as much noise as signal" }], empty: ["Sampled, but undetermined so far.", "Sampled, but undetermined."],
      lines: (table, colours) => {
        const scale = table.column("noise_scale"), size = batches(model, table);
        return [{ name: "batch over noise scale", values: scale && scale.map((v, i) => (v > 0 ? size[i] / v : NaN)), gaps: true, colour: colours.line, width: 2 }];
      } }));
  }

  /** The tail index of a run that measures it; no card without. */
  function tails(model) {
    return o.chartIn({ title: "Tail index of the noise", id: "tail-card",
      caption: "2 is Gaussian noise, less has heavier tails. Read it with care: unequal scales of the coordinates alone make a Gaussian read 1.10.",
      means: "Index of a symmetric stable law fitted to the gradient's noise over all coordinates (Şimşekli, Sagun and Gürbüzbalaban 2019). Coordinates of a network differ in scale by orders of magnitude, which looks like heavy tails where there are none: compare a run with itself, and read no cause into the number." },
    ({ box }) => new o.LineChart(box, model, { name: "tail-index", label: "Tail index of the gradient noise", family: "tail_index", optional: true,
      rules: [{ value: 2, name: "Gaussian" }],
      lines: (table, colours) => [{ name: "tail index", values: table.column("tail_index"), gaps: false, colour: colours.line, width: 1.8 }] }));
  }

  function parts(model) {
    return o.chartIn({ title: "Gradient and its noise", id: "parts-card",
      caption: "The two parts of the noise scale: how large the true gradient is, and how far single samples scatter around it.",
      means: "Squared length of the mean gradient, and the trace of the covariance of single samples' gradients; both unbiased running means, so the first can dip under zero while it is small." },
    ({ box }) => new o.LineChart(box, model, { name: "noise-parts", label: "Squared gradient and trace of its covariance", family: "noise", log: () => true,
      lines: (table, colours) => [
        { name: "scatter of one sample", values: table.column("trace"), gaps: false, colour: colours.third, width: 1.6 },
        { name: "squared gradient", values: table.column("gradient_sq"), gaps: false, colour: colours.line, width: 1.6, dash: [6, 3] },
      ] }));
  }
})((window.otoscope = window.otoscope || {}));
