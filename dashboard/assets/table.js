// What the page holds of one family: columns, steps, times and values; grown by deltas.
(function (o) {
  "use strict";
  const MOST = 6000; // rows; beyond it the page asks for everything again, reduced by the server

  o.Table = class Table {
    constructor(part) {
      this.columns = part.columns;
      this.layers = part.layers;
      this.steps = [];
      this.times = [];
      this.data = part.columns.map(() => []);
      this.low = part.columns.map(() => []); // extremes of what a row stands for: itself, or a bucket
      this.high = part.columns.map(() => []);
      this.add(part);
    }

    add(part) {
      this.steps.push(...part.steps);
      this.times.push(...part.times);
      append(this.data, part.values);
      append(this.low, part.low || part.values);
      append(this.high, part.high || part.values);
    }

    get full() { return this.steps.length > MOST; }
    column(name, of = "data") { const i = this.columns.indexOf(name); return i < 0 ? null : this[of][i]; }

    /** [{layer, values}] of the columns that belong to a layer */
    perLayer() {
      const found = [];
      this.layers.forEach((layer, i) => { if (layer !== null) found.push({ layer, values: this.data[i], low: this.low[i], high: this.high[i] }); });
      return found;
    }
  };

  function append(columns, rows) {
    for (const row of rows) row.forEach((value, i) => columns[i].push(o.toNumber(value)));
  }

  o.median = function (values) {
    const kept = values.filter(Number.isFinite).sort((a, b) => a - b);
    if (!kept.length) return NaN;
    const half = kept.length >> 1;
    return kept.length % 2 ? kept[half] : (kept[half - 1] + kept[half]) / 2;
  };

  o.quantile = function (values, share) {
    const kept = values.filter(Number.isFinite).sort((a, b) => a - b);
    return kept.length ? kept[Math.min(kept.length - 1, Math.floor(share * kept.length))] : NaN;
  };

  o.lastFinite = function (values) {
    for (let i = values.length - 1; i >= 0; i--) if (Number.isFinite(values[i])) return values[i];
    return NaN;
  };

  /**
   * Exponential mean over steps: a gap of n steps forgets as much as n samples would. A sample counts at
   * most four times the mean so far: one spike of 1e18 would else fill the next 400 steps.
   */
  o.smooth = function (steps, values, weight) {
    if (!weight) return values;
    const spacing = steps.length > 1 ? (steps[steps.length - 1] - steps[0]) / (steps.length - 1) : 1;
    let mean = 0, mass = 0, last = steps[0];
    return values.map((value, i) => {
      const keep = Math.pow(weight, Math.max(1, (steps[i] - last) / Math.max(spacing, 1e-9)));
      last = steps[i];
      if (!Number.isFinite(value)) return NaN;
      const before = mass > 0 ? mean / mass : NaN;
      mean = keep * mean + (1 - keep) * (before > 0 ? Math.min(value, 4 * before) : value);
      mass = keep * mass + (1 - keep);
      return mean / mass;
    });
  };

  /** The value with half of the weight under it; what is not finite has no weight. */
  o.weightedMedian = function (values, weights) {
    const order = values.map((_, i) => i).filter((i) => Number.isFinite(values[i]) && weights[i] > 0);
    order.sort((a, b) => values[a] - values[b]);
    const half = order.reduce((sum, i) => sum + weights[i], 0) / 2;
    let sum = 0;
    for (const i of order) {
      sum += weights[i];
      if (sum >= half) return values[i];
    }
    return NaN;
  };

  /**
   * What each sample weighs in its layer's median: the steps until the next one, since a budget samples
   * unevenly, but at most ten usual gaps, so that no single sample rules; nothing from `end` on, where a fault begins, as long as a fifth of the run lies before it.
   */
  o.stepWeights = function (steps, end) {
    const last = steps.length - 1;
    const past = Number.isFinite(end) && end - steps[0] > (steps[last] - steps[0]) / 5 ? end : Infinity;
    const gaps = steps.map((step, i) => (i < last ? steps[i + 1] - step : 1));
    const most = 10 * Math.max(1, o.median(gaps));
    return steps.map((step, i) => (step >= past ? 0 : Math.min(gaps[i], most)));
  };

  /**
   * Robust z of a layer against its own median. Sizes are compared as logarithms; shares as they are.
   * The floors keep a constant layer from lighting up: 12 % in size, 2 points in a share.
   */
  o.robust = function (values, weights, isShare) {
    const mapped = values.map((v) => (isShare ? v : v > 0 ? Math.log10(v) : v === 0 ? -45 : NaN));
    const middle = o.weightedMedian(mapped, weights);
    const spread = 1.4826 * o.weightedMedian(mapped.map((v) => Math.abs(v - middle)), weights);
    const floor = isShare ? 0.02 : 0.05;
    return {
      median: isShare ? middle : Math.pow(10, middle),
      z: mapped.map((v, i) => (values[i] === Infinity ? Infinity : (v - middle) / Math.max(spread, floor))),
    };
  };
})((window.otoscope = window.otoscope || {}));
