// What the heatmap and the strips share: the layers' values, their robust z, how unusual each is.
(function (o) {
  "use strict";
  const NAMES = {
    gradient: { family: "gradients", title: "gradient size", share: false },
    update: { family: "gradients", title: "update against weight", share: false },
    saturated: { family: "activations", title: "share of saturated outputs", share: true },
    dead: { family: "activations", title: "share of dead units", share: true },
    output: { family: "activations", title: "output size", share: false },
    entropy: { family: "activations", title: "attention entropy", share: true },
    rank: { family: "activations", title: "effective rank of the output", share: true },
  };

  o.Layers = class Layers {
    constructor(model) {
      this.model = model;
      this.rows = [];
      this.table = null;
      this.made = "";
    }

    get quantity() { return NAMES[o.settings.quantity]; }

    /** Why no layer has the chosen quantity, in words. */
    absence() {
      const { family, title } = this.quantity, table = this.model.tables[family];
      if (!table || !table.steps.length) return this.model.absence(family, `the layers' ${title}`);
      return `${this.model.words("Not measured yet", "Never measured")}: ${title} of the layers.`;
    }

    /** Compute again where the table has grown: [{layer, values, z, median, score}] in the model's order. */
    update() {
      const table = this.model.tables[this.quantity.family];
      const has = table && table.steps.length > 0 && table.layers.some((layer) => layer !== null);
      // "its own past" ends where the first fault begins
      const end = Math.min(...this.model.marked().map((finding) => finding.first_step));
      const made = has ? [this.model.epoch, o.settings.quantity, table.steps.length, end].join() : "";
      if (made === this.made) return;
      this.made = made;
      this.table = has ? table : null;
      this.weights = has ? o.stepWeights(table.steps, end) : [];
      this.rows = has ? table.perLayer().map((row) => this.describe(row)) : [];
    }

    describe({ layer, values, low, high }) {
      const { z, median } = o.robust(values, this.weights, this.quantity.share);
      const recent = z.slice(-Math.max(3, Math.ceil(z.length / 10)));
      // how unusual: how far the last tenth lies from the layer's own median, and how much was far off
      const now = Math.abs(o.median(recent)) || 0;
      const far = z.filter((v) => Math.abs(v) > 4).length / Math.max(1, z.length);
      return { layer, values, low, high, z, median, last: o.lastFinite(values), score: now + 4 * far };
    }

    show(value) { return this.quantity.share ? o.percent(value) : o.number(value); }
  };

  /** Say in words how far a value is from its layer's median. */
  o.zWords = function (z) {
    if (!Number.isFinite(z)) return "not measured";
    if (Math.abs(z) < 2) return "as usual";
    return `${o.number(Math.abs(z), 2)} spreads ${z > 0 ? "above" : "below"} its median`;
  };
})((window.otoscope = window.otoscope || {}));
