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

  /** Exponential mean over steps: a gap of n steps forgets as much as n samples would. */
  o.smooth = function (steps, values, weight) {
    if (!weight) return values;
    const spacing = steps.length > 1 ? (steps[steps.length - 1] - steps[0]) / (steps.length - 1) : 1;
    let mean = 0, mass = 0, last = steps[0];
    return values.map((value, i) => {
      const keep = Math.pow(weight, Math.max(1, (steps[i] - last) / Math.max(spacing, 1e-9)));
      last = steps[i];
      if (!Number.isFinite(value)) return NaN;
      mean = keep * mean + (1 - keep) * value;
      mass = keep * mass + (1 - keep);
      return mean / mass;
    });
  };

  /**
   * Robust z of a layer against its own median. Sizes are compared as logarithms; shares as they are.
   * The floors keep a constant layer from lighting up: 12 % in size, 2 points in a share.
   */
  o.robust = function (values, isShare) {
    const mapped = values.map((v) => (isShare ? v : v > 0 ? Math.log10(v) : v === 0 ? -45 : NaN));
    const middle = o.median(mapped);
    const spread = 1.4826 * o.median(mapped.map((v) => Math.abs(v - middle)));
    const floor = isShare ? 0.02 : 0.05;
    return {
      median: isShare ? middle : Math.pow(10, middle),
      z: mapped.map((v, i) => (values[i] === Infinity ? Infinity : (v - middle) / Math.max(spread, floor))),
    };
  };
})((window.otoscope = window.otoscope || {}));
