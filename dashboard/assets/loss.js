// The loss chart: smoothed over faded raw, validation, event marks, the findings' steps shaded.
(function (o) {
  "use strict";
  const LEAP = 3;
  const HEIGHT = 250, LEFT = 52, RIGHT = 12, TOP = 18, BOTTOM = 24;
  const MARKED = { __proto__: null, lr: "learning rate", resumed: "resumed", gap: "gap in the record", excluded: "rank left out",
    stalled: "stalled", probe_off: "probe switched off", action: "setting changed", exception: "exception",
    finished: "finished", note: "note", override: "threshold changed", profile: "profile changed" };

  o.LossChart = class LossChart extends o.LineChart {
    constructor(box, model) {
      super(box, model, { name: "train", label: "Training loss", family: "train", height: HEIGHT,
        empty: "No step yet: the first sample draws the curve.", log: () => o.settings.yscale === "log" });
      this.lowest = o.h("span", { class: "dim" });
      this.marks = o.h("ol", { class: "marks" });
      this.legend.remove();
      this.foot.lastChild.before(this.lowest);
      box.append(this.marks);
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
      this.drawFrame(context, width, y, low, high, label, log);
      context.save();
      this.clip(context, width);
      this.drawFindings(context, table);
      const colours = o.colours();
      const smoothed = Number(o.settings.smoothing) > 0;
      this.drawBest(context, table, smooth, y, width, first, last);
      this.drawSpread(context, xs, table, y, colours);
      this.line(context, xs, raw, y, smoothed ? colours.raw : colours.line, 1);
      if (smoothed) this.line(context, xs, smooth, y, colours.line, 2);
      this.drawValidation(context, table, xs, y);
      context.restore();
      this.drawEvents(context, table, xs);
      this.drawBeyond(context, y);
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
      this.drawRule(context, y, width, smooth[best]);
      const name = Number(o.settings.smoothing) > 0 ? "lowest smoothed" : "lowest";
      // below the chart: in it no place is sure to be free of curves
      this.lowest.textContent = `dashed: ${name} ${o.number(smooth[best])}, step ${o.step(table.steps[best])}`;
    }

    drawValidation(context, table, xs, y) {
      const held = this.model.tables.validation;
      const name = o.validationLoss(held);
      this.validation = name;
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
      let right = -Infinity;
      const events = super.drawEvents(context, table, xs, (event, x, i) => {
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
      const i = o.nearest(xs, value);
      this.cursor.style.left = this.x(xs[i]) + "px";
      this.cursor.style.height = HEIGHT - BOTTOM + "px";
      const validation = this.validation ? this.model.tables.validation : null;
      const before = validation ? validation.steps.filter((step) => step <= table.steps[i]).length - 1 : -1;
      this.readout.textContent = `step ${o.step(table.steps[i])} · loss ${o.number(table.column("loss")[i], 4)}` +
        (before >= 0 ? ` · ${this.validation} ${o.number(validation.column(this.validation)[before], 4)}` : "");
    }
  };

  /** Whether a rate that rises does so at once: that is no warm-up. */
  const leaps = (body) => body.phase === "warmup" && body.from > 0 && body.to > LEAP * body.from;

  function eventText(event) {
    const body = event.body || {};
    const detail = {
      lr: () => `${o.number(body.from)} → ${o.number(body.to)}${body.phase && !leaps(body) ? `, ${body.phase}` : ""}`,
      action: () => `${body.parameter}: ${o.setting(body.from)} → ${o.setting(body.to)}`,
      exception: () => `${body.type || ""}: ${String(body.message || "").slice(0, 120)}`,
      probe_off: () => `${body.probe}: ${body.why}`,
      note: () => body.text,
      resumed: () => `from step ${o.step(body.from_step)}`,
    }[event.kind];
    return `${o.capital(MARKED[event.kind])} at step ${o.step(event.step)}${detail ? ": " + detail() : ""}`;
  }

  /** The column of a validation that is its loss: a module that logs its training loss leaves that behind, too. */
  o.validationLoss = (table) => {
    const losses = (table ? table.columns : []).filter((name) => /loss/i.test(name) && !/train/i.test(name));
    return losses.find((name) => /val/i.test(name)) || losses[0] || null;
  };

  /** The events that the charts mark, the last ones. */
  o.markedEvents = (model) => model.events.filter((event) => MARKED[event.kind] && event.step > 0).slice(-30);
})((window.otoscope = window.otoscope || {}));
