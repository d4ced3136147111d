// The loss chart: smoothed over faded raw, validation, event marks, the findings' steps shaded.
(function (o) {
  "use strict";
  const HEIGHT = 250, LEFT = 52, RIGHT = 12, TOP = 18, BOTTOM = 24;
  const MARKED = { __proto__: null, lr: "learning rate", resumed: "resumed", gap: "gap in the record", excluded: "rank left out",
    stalled: "stalled", probe_off: "probe switched off", action: "setting changed", exception: "exception",
    finished: "finished", note: "note", override: "threshold changed", profile: "profile changed" };

  o.LossChart = class LossChart {
    constructor(box, model) {
      this.model = model;
      this.canvas = o.h("canvas", { tabindex: 0, role: "img", class: "chart", "aria-label": "Training loss" });
      this.cursor = o.h("div", { class: "cursor", hidden: true });
      this.band = o.h("div", { class: "band", hidden: true });
      this.readout = o.h("div", { class: "readout", "aria-live": "polite" });
      this.lowest = o.h("span", { class: "dim" });
      this.marks = o.h("ol", { class: "marks" });
      this.empty = o.h("p", { class: "empty-chart dim", hidden: true }, "No step yet: the first sample draws the curve.");
      const foot = o.h("div", { class: "row foot" }, this.readout, o.h("span", { class: "space" }), this.lowest,
        o.exports(model, "train", this.canvas, () => model.tables.train));
      box.replaceChildren(o.h("div", { class: "plot" }, this.canvas, this.band, this.cursor, this.empty), foot, this.marks);
      o.panel(this.canvas, () => this.draw());
      this.listen();
    }

    listen() {
      let from = null;
      this.canvas.addEventListener("pointerdown", (event) => {
        from = event.offsetX;
        this.canvas.setPointerCapture(event.pointerId);
      });
      this.canvas.addEventListener("pointermove", (event) => {
        if (!this.x) return;
        this.model.point(this.x.back(event.offsetX), this);
        if (from !== null && Math.abs(event.offsetX - from) > 4) this.showBand(from, event.offsetX);
      });
      this.canvas.addEventListener("pointerup", (event) => {
        if (from !== null && this.x && Math.abs(event.offsetX - from) > 8) {
          const ends = [from, event.offsetX].map((p) => this.stepAt(this.x.back(p))).sort((a, b) => a - b);
          if (ends[1] > ends[0]) o.setRange(ends);
        }
        from = null;
        this.band.hidden = true;
      });
      this.canvas.addEventListener("pointerleave", () => this.model.point(null, this));
      this.canvas.addEventListener("dblclick", () => o.setRange(null));
      this.canvas.addEventListener("keydown", (event) => this.key(event));
    }

    key(event) {
      const move = { ArrowLeft: -1, ArrowRight: 1, PageUp: -20, PageDown: 20 }[event.key];
      const table = this.model.tables.train;
      if (!move || !table || !table.steps.length) return;
      event.preventDefault();
      const at = this.at === undefined ? table.steps.length - 1 : this.at + move;
      this.at = Math.max(0, Math.min(table.steps.length - 1, at));
      this.model.point(o.horizontal(table, this.model).values[this.at], this);
    }

    showBand(a, b) {
      this.band.hidden = false;
      this.band.style.left = Math.min(a, b) + "px";
      this.band.style.width = Math.abs(a - b) + "px";
    }

    /** The step at a horizontal value, which is a step itself or a time. */
    stepAt(value) {
      const table = this.model.tables.train;
      if (o.settings.x === "step") return value;
      const { values } = o.horizontal(table, this.model);
      const i = values.findIndex((v) => v >= value);
      return table.steps[i < 0 ? table.steps.length - 1 : i];
    }

    draw() {
      const table = this.model.tables.train;
      const { context, width } = o.canvas(this.canvas, HEIGHT);
      const raw = table && table.column("loss");
      this.empty.hidden = Boolean(raw && table.steps.length);
      if (!this.empty.hidden) return;
      const log = o.settings.yscale === "log";
      const { values: xs, label } = o.horizontal(table, this.model);
      const [first, last] = this.model.window(table);
      const smooth = o.smooth(table.steps, raw, Number(o.settings.smoothing));
      const [low, high] = this.model.span(table);
      const y = this.vertical(raw.slice(first, last + 1), smooth.slice(first, last + 1), log);
      this.x = o.scale(low, high, LEFT, width - RIGHT);
      this.clip = { context, width };
      this.drawFrame(context, width, y, low, high, label, log);
      context.save();
      context.beginPath();
      context.rect(LEFT, TOP - 8, width - LEFT - RIGHT, HEIGHT - TOP - BOTTOM + 9);
      context.clip();
      this.drawFindings(context, table, xs);
      const colours = o.colours();
      const smoothed = Number(o.settings.smoothing) > 0;
      this.drawBest(context, table, smooth, y, width, first, last);
      this.drawSpread(context, xs, table, y, colours);
      this.line(context, xs, raw, y, smoothed ? colours.raw : colours.line, 1);
      if (smoothed) this.line(context, xs, smooth, y, colours.line, 2);
      this.drawValidation(context, table, xs, y);
      context.restore();
      this.drawEvents(context, table, xs);
      const range = o.settings.range ? `, steps ${o.step(table.steps[first])} to ${o.step(table.steps[last])}` : "";
      this.canvas.setAttribute("aria-label",
        `Training loss${range}: last ${o.number(o.lastFinite(raw))} at step ${o.step(table.steps[table.steps.length - 1])}, ` +
        `lowest ${o.number(raw.filter(Number.isFinite).reduce((a, b) => Math.min(a, b), Infinity))}`);
    }

    vertical(raw, smooth, log) {
      const usable = (v) => Number.isFinite(v) && (!log || v > 0);
      const kept = raw.filter(usable), mean = smooth.filter(usable);
      let low = Math.min(o.quantile(kept, 0.002), ...(mean.length ? [o.quantile(mean, 0)] : []));
      let high = Math.max(o.quantile(kept, 0.995), ...(mean.length ? [o.quantile(mean, 0.999)] : []));
      // a spike or a divergence must not flatten the rest: the axis ends at a wide fence, or above the start
      const third = o.quantile(kept, 0.75), fence = third + 8 * (third - o.quantile(kept, 0.25));
      if (!log) high = Math.min(high, Math.max(fence, 1.3 * o.median(kept.slice(0, 3))));
      if (!Number.isFinite(low) || !Number.isFinite(high)) { low = log ? 0.1 : 0; high = 1; }
      if (log) { low /= 1.1; high *= 1.1; } else {
        const pad = (high - low || Math.abs(high) || 1) * 0.06;
        low = low >= 0 && low - pad < 0 ? 0 : low - pad;
        high += pad;
      }
      const y = o.scale(low, high, HEIGHT - BOTTOM, TOP, log);
      y.ends = [low, high];
      y.beyond = mean.length ? Math.max(...mean.slice(-20000)) : 0;
      return y;
    }

    drawFrame(context, width, y, low, high, label, log) {
      const colours = o.colours();
      context.strokeStyle = colours.grid;
      context.fillStyle = colours.dim;
      context.textAlign = "right";
      context.textBaseline = "middle";
      context.lineWidth = 1;
      const ticks = log ? o.logTicks(...y.ends) : o.ticks(...y.ends, 5), texts = o.tickTexts(ticks);
      ticks.forEach((tick, i) => {
        const at = Math.round(y(tick)) + 0.5;
        context.beginPath();
        context.moveTo(LEFT, at);
        context.lineTo(width - RIGHT, at);
        context.stroke();
        context.fillText(texts[i], LEFT - 6, at);
      });
      if (y.beyond > 1.2 * y.ends[1]) {
        context.textAlign = "left";
        context.fillText(`↑ up to ${o.number(y.beyond, 2)}`, LEFT + 4, TOP);
      }
      o.drawAxisX(context, this.x, low, high, HEIGHT - BOTTOM, width - LEFT, label);
    }

    line(context, xs, values, y, colour, thickness) {
      context.strokeStyle = colour;
      context.lineWidth = thickness;
      context.lineJoin = "round";
      context.beginPath();
      let down = false;
      for (let i = 0; i < xs.length; i++) {
        if (!Number.isFinite(values[i]) || (o.settings.yscale === "log" && values[i] <= 0)) { down = false; continue; }
        const px = this.x(xs[i]), py = Math.max(-1e4, Math.min(1e4, y(values[i])));
        if (down) context.lineTo(px, py); else context.moveTo(px, py);
        down = true;
      }
      context.stroke();
    }

    /** What a reduced row stands for: a line from its lowest to its highest sample. */
    drawSpread(context, xs, table, y, colours) {
      const low = table.column("loss", "low"), high = table.column("loss", "high");
      context.strokeStyle = colours.raw;
      context.lineWidth = 1;
      context.beginPath();
      for (let i = 0; i < xs.length; i++) {
        if (!(high[i] > low[i]) || (o.settings.yscale === "log" && low[i] <= 0)) continue;
        const x = this.x(xs[i]);
        context.moveTo(x, Math.min(1e4, y(low[i])));
        context.lineTo(x, Math.max(-1e4, y(Math.min(high[i], 1e30))));
      }
      context.stroke();
    }

    drawBest(context, table, smooth, y, width, first, last) {
      let best = -1;
      for (let i = first; i <= last; i++) if (Number.isFinite(smooth[i]) && (best < 0 || smooth[i] < smooth[best])) best = i;
      if (best < 0) return;
      const at = Math.round(y(smooth[best])) + 0.5, colours = o.colours();
      context.strokeStyle = colours.event;
      context.setLineDash([5, 5]);
      context.lineWidth = 1;
      context.beginPath();
      context.moveTo(LEFT, at);
      context.lineTo(width - RIGHT, at);
      context.stroke();
      context.setLineDash([]);
      const name = Number(o.settings.smoothing) > 0 ? "lowest smoothed" : "lowest";
      // below the chart: in it no place is sure to be free of curves
      this.lowest.textContent = `dashed: ${name} ${o.number(smooth[best])}, step ${o.step(table.steps[best])}`;
    }

    drawFindings(context, table, xs) {
      const colours = o.colours();
      for (const finding of this.model.marked()) {
        const from = this.x(this.model.place(table, xs, finding.first_step));
        const to = this.x(this.model.place(table, xs, Math.max(finding.last_step, table.steps[table.steps.length - 1])));
        context.fillStyle = colours.fault;
        context.fillRect(from, TOP - 8, Math.max(2, to - from), HEIGHT - BOTTOM - TOP + 8);
        context.strokeStyle = colours.mark;
        context.setLineDash([3, 3]);
        context.beginPath();
        context.moveTo(from, TOP - 8);
        context.lineTo(from, HEIGHT - BOTTOM);
        context.stroke();
        context.setLineDash([]);
      }
    }

    drawValidation(context, table, xs, y) {
      const held = this.model.tables.validation;
      const name = held && held.columns.find((column) => /loss/i.test(column));
      this.validation = name || null;
      if (!name) return;
      const colours = o.colours();
      const at = held.steps.map((step) => this.model.place(table, xs, step));
      this.line(context, at, held.column(name), y, colours.second, 1.5);
      context.fillStyle = colours.second;
      held.column(name).forEach((value, i) => {
        if (!Number.isFinite(value)) return;
        context.beginPath();
        context.arc(this.x(at[i]), y(value), 2.5, 0, 7);
        context.fill();
      });
    }

    drawEvents(context, table, xs) {
      const colours = o.colours();
      const events = this.model.events.filter((event) => MARKED[event.kind] && event.step > 0).slice(-30);
      let right = -Infinity;
      events.forEach((event, i) => {
        const x = this.x(this.model.place(table, xs, event.step));
        if (x < LEFT - 1 || x > this.canvas.clientWidth - RIGHT + 1) return;
        context.strokeStyle = colours.event;
        context.setLineDash([2, 4]);
        context.beginPath();
        context.moveTo(x, TOP - 4);
        context.lineTo(x, HEIGHT - BOTTOM);
        context.stroke();
        context.setLineDash([]);
        if (x < right + 10) return;
        right = x;
        context.fillStyle = event.kind === "exception" ? colours.mark : colours.dim;
        context.textAlign = "center";
        context.textBaseline = "bottom";
        context.fillText(String(i + 1), x, TOP - 5);
      });
      o.fill(this.marks, events.map((event) => event.id).join(), () => events.map((event) => o.h("li", {}, eventText(event))));
    }

    /** Move the shared cursor here; `value` null hides it. */
    point(value) {
      const table = this.model.tables.train;
      this.cursor.hidden = value === null || !this.x;
      if (this.cursor.hidden) { this.readout.textContent = ""; return; }
      const { values: xs } = o.horizontal(table, this.model);
      const i = nearest(xs, value);
      this.cursor.style.left = this.x(xs[i]) + "px";
      this.cursor.style.height = HEIGHT - BOTTOM + "px";
      const validation = this.validation ? this.model.tables.validation : null;
      const before = validation ? validation.steps.filter((step) => step <= table.steps[i]).length - 1 : -1;
      this.readout.textContent = `step ${o.step(table.steps[i])} · loss ${o.number(table.column("loss")[i], 4)}` +
        (before >= 0 ? ` · ${this.validation} ${o.number(validation.column(this.validation)[before], 4)}` : "");
    }
  };

  function eventText(event) {
    const body = event.body || {};
    const detail = {
      lr: () => `${o.number(body.from)} → ${o.number(body.to)}${body.phase ? `, ${body.phase}` : ""}`,
      action: () => `${body.parameter}: ${o.setting(body.from)} → ${o.setting(body.to)}`,
      exception: () => `${body.type || ""}: ${String(body.message || "").slice(0, 120)}`,
      probe_off: () => `${body.probe}: ${body.why}`,
      note: () => body.text,
      resumed: () => `from step ${o.step(body.from_step)}`,
    }[event.kind];
    return `${o.capital(MARKED[event.kind])} at step ${o.step(event.step)}${detail ? ": " + detail() : ""}`;
  }

  function nearest(sorted, value) {
    let low = 0, high = sorted.length - 1;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (sorted[middle] < value) low = middle + 1; else high = middle;
    }
    return low > 0 && value - sorted[low - 1] < sorted[low] - value ? low - 1 : low;
  }
  o.nearest = nearest;
})((window.otoscope = window.otoscope || {}));
