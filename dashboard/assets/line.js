// A chart over the steps: lines with their bars of error, one cursor with all others, zoom, keys, export.
(function (o) {
  "use strict";
  const LEFT = 52, RIGHT = 12, TOP = 18, BOTTOM = 24;
  const FEW = 80; // samples in sight: each is marked by a dot

  /** What every chart over the steps can do; `lines()` says what one shows. */
  o.LineChart = class LineChart {
    /**
     * options: {name: of the exports, label: for screen readers, family, height, empty: words of no sample, or [of a run that trains, of one that ended],
     * lines(table, colours) -> [{name, values, colour, dash, low, high, soft, hidden}], rules: [{value, name}],
     * log: () -> whether the axis is logarithmic, show: number -> text}
     */
    constructor(box, model, options) {
      this.model = model;
      this.options = options;
      this.height = options.height || 210;
      this.canvas = o.h("canvas", { tabindex: 0, role: "img", class: "chart", "aria-label": options.label });
      this.cursor = o.h("div", { class: "cursor", hidden: true });
      this.band = o.h("div", { class: "band", hidden: true });
      this.readout = o.h("div", { class: "readout", "aria-live": "polite" });
      this.empty = o.h("p", { class: "empty-chart dim", hidden: true });
      this.legend = o.h("div", { class: "legend dim" });
      this.plot = o.h("div", { class: "plot" }, this.canvas, this.band, this.cursor, this.empty);
      this.foot = o.h("div", { class: "row foot" }, this.readout, o.h("span", { class: "space" }),
        o.exports(model, options.name, this.canvas, () => this.table()));
      box.replaceChildren(this.legend, this.plot, this.foot);
      this.canvas.style.height = this.height + "px";
      o.panel(this.canvas, () => this.draw());
      this.listen();
    }

    table() { return this.model.tables[this.options.family]; }

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
        } else if (from !== null && this.x && this.options.choose && this.at >= 0) {
          this.options.choose(this.table().steps[this.at]);
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
      const table = this.table();
      if (!table || !table.steps.length) return;
      if (event.key === "Enter" && this.options.choose && this.at >= 0) this.options.choose(table.steps[this.at]);
      if (!move) return;
      event.preventDefault();
      const at = this.at === undefined || this.at < 0 ? table.steps.length - 1 : this.at + move;
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
      if (o.settings.x === "step") return value;
      const table = this.model.tables.train || this.table();
      const { values } = o.horizontal(table, this.model);
      const i = values.findIndex((v) => v >= value);
      return table.steps[i < 0 ? table.steps.length - 1 : i];
    }

    get log() { return Boolean(this.options.log && this.options.log()); }

    update() {
      const lines = this.read();
      if (this.card) this.card.hidden = Boolean(this.options.optional) && !lines.length;
      o.redraw(this.canvas);
    }

    /** The lines that have any sample, told in words also while the chart is out of sight. */
    read() {
      const table = this.table();
      const lines = table ? this.options.lines(table, o.colours()).filter((line) => line.values && line.values.some(Number.isFinite)) : [];
      this.lines = lines;
      this.empty.hidden = lines.length > 0;
      this.empty.textContent = o.emptyWords(this.model, this.options.empty);
      this.foot.hidden = lines.length === 0;
      this.drawLegend(table, lines);
      return lines;
    }

    draw() {
      const table = this.table();
      const lines = this.read();
      const { context, width } = o.canvas(this.canvas, lines.length ? this.height : o.EMPTY);
      this.x = null;
      if (!lines.length) return;
      const { values: xs, label } = o.horizontal(table, this.model);
      const [first, last] = this.model.window(table);
      const [low, high] = this.model.span(table);
      const y = this.scaleOf(lines, first, last);
      this.x = o.scale(low, high, LEFT, width - RIGHT);
      this.drawFrame(context, width, y, low, high, label, this.log);
      context.save();
      this.clip(context, width);
      this.drawFindings(context, this.model.tables.train || table);
      for (const rule of this.options.rules || []) this.drawRule(context, y, width, rule.value, rule.strong);
      lines.forEach((line) => this.drawLine(context, xs, line, y, last - first < FEW));
      context.restore();
      this.drawEvents(context, table, xs);
      this.drawBeyond(context, y);
      this.canvas.setAttribute("aria-label", `${this.options.label}. ` + lines.map((line) => {
        const at = line.values.findLastIndex(Number.isFinite);
        return `${line.name}: ${this.show(line.values[at])} at step ${o.step(table.steps[at])}`;
      }).join("; ") + ". Arrow keys move over it.");
    }

    show(value) { return (this.options.show || (this.options.percent ? o.percent : o.number))(value); }

    /** The vertical scale that holds every line in sight; a soft one only where it flattens no other. */
    scaleOf(lines, first, last) {
      const log = this.log, usable = (v) => Number.isFinite(v) && (!log || v > 0);
      const inSight = (line) => [line.values, line.low || [], line.high || []].flatMap((v) => v.slice(first, last + 1)).filter(usable);
      const kept = lines.filter((line) => !line.soft).flatMap(inSight);
      for (const rule of this.options.rules || []) if (usable(rule.value) && !rule.soft) kept.push(rule.value);
      let low = o.quantile(kept, 0), high = kept.length ? kept.reduce((a, b) => Math.max(a, b)) : NaN;
      if (kept.length > 200) { low = o.quantile(kept, 0.002); high = o.quantile(kept, 0.998); }
      for (const line of lines.filter((one) => one.soft)) {
        const middle = o.median(inSight(line));
        if (!Number.isFinite(middle)) continue;
        if (!(middle > 4 * high && !log)) high = Math.max(high, middle) || middle;
        if (log || middle < low) low = Math.min(low, middle) || middle;
      }
      if (!Number.isFinite(low) || !Number.isFinite(high)) { low = log ? 0.1 : 0; high = 1; }
      if (log) { low /= 1.25; high *= 1.25; } else {
        if (this.options.zero && low > 0) low = 0;
        const pad = (high - low || Math.abs(high) || 1) * 0.08;
        low = low >= 0 && low - pad < 0 ? 0 : low - pad;
        high += pad;
      }
      const y = o.scale(low, high, this.height - BOTTOM, TOP, log);
      y.ends = [low, high];
      return y;
    }

    clip(context, width) {
      context.beginPath();
      context.rect(LEFT - 4, TOP - 8, width - LEFT - RIGHT + 8, this.height - TOP - BOTTOM + 9);
      context.clip();
    }

    drawFrame(context, width, y, low, high, label, log) {
      o.drawAxisY(context, y, LEFT, width - RIGHT, log, this.options.percent);
      o.drawAxisX(context, this.x, low, high, this.height - BOTTOM, width - LEFT, label);
    }

    drawBeyond(context, y) {
      if (y.beyond > 1.2 * y.ends[1]) o.drawBeyond(context, y.beyond, LEFT + 4, TOP, "left");
    }

    drawLine(context, xs, line, y, dotted) {
      if (line.low && line.high) this.drawBars(context, xs, line, y, dotted);
      context.setLineDash(line.dash || []);
      this.line(context, xs, line.values, y, line.colour, line.width || 1.6, line.gaps);
      context.setLineDash([]);
      if (!dotted || line.plain) return;
      context.fillStyle = line.colour;
      xs.forEach((x, i) => {
        if (!Number.isFinite(line.values[i])) return;
        context.beginPath();
        context.arc(this.x(x), Math.max(-1e4, Math.min(1e4, y(line.values[i]))), 2.5, 0, 7);
        context.fill();
      });
    }

    /** How far a value may be off: a bar at each of a few samples, a shade behind many. */
    drawBars(context, xs, line, y, few) {
      const at = (value) => Math.max(-1e4, Math.min(1e4, y(this.log ? Math.max(value, 1e-30) : value)));
      const known = xs.map((_, i) => i).filter((i) => Number.isFinite(line.low[i]) && Number.isFinite(line.high[i]));
      context.strokeStyle = context.fillStyle = line.colour;
      context.globalAlpha = few ? 0.55 : 0.18;
      context.lineWidth = 1;
      context.beginPath();
      if (few) {
        for (const i of known) {
          const x = this.x(xs[i]);
          context.moveTo(x, at(line.low[i]));
          context.lineTo(x, at(line.high[i]));
          for (const end of [line.low[i], line.high[i]]) { context.moveTo(x - 3, at(end)); context.lineTo(x + 3, at(end)); }
        }
        context.stroke();
      } else if (known.length) {
        known.forEach((i, n) => (n ? context.lineTo(this.x(xs[i]), at(line.high[i])) : context.moveTo(this.x(xs[i]), at(line.high[i]))));
        for (const i of known.reverse()) context.lineTo(this.x(xs[i]), at(line.low[i]));
        context.fill();
      }
      context.globalAlpha = 1;
    }

    /** A line through the finite values; one of rare samples goes on over what was not measured. */
    line(context, xs, values, y, colour, thickness, gaps = true) {
      context.strokeStyle = colour;
      context.lineWidth = thickness;
      context.lineJoin = "round";
      context.beginPath();
      let down = false;
      for (let i = 0; i < xs.length; i++) {
        if (!Number.isFinite(values[i]) || (this.log && values[i] <= 0)) { down = down && !gaps; continue; }
        const px = this.x(xs[i]), py = Math.max(-1e4, Math.min(1e4, y(values[i])));
        if (down) context.lineTo(px, py); else context.moveTo(px, py);
        down = true;
      }
      context.stroke();
    }

    drawRule(context, y, width, value, strong) {
      const at = Math.round(y(value)) + 0.5;
      context.strokeStyle = strong ? o.colours().mark : o.colours().event;
      context.setLineDash([5, 5]);
      context.lineWidth = 1;
      context.beginPath();
      context.moveTo(LEFT, at);
      context.lineTo(width - RIGHT, at);
      context.stroke();
      context.setLineDash([]);
    }

    drawFindings(context, table) {
      const colours = o.colours(), { values: xs } = o.horizontal(table, this.model);
      for (const finding of this.model.marked()) {
        const from = this.x(this.model.place(table, xs, finding.first_step));
        const last = finding.state === "resolved" ? finding.last_step : Math.max(finding.last_step, table.steps[table.steps.length - 1]);
        const to = this.x(this.model.place(table, xs, last));
        context.fillStyle = colours.fault;
        context.fillRect(from, TOP - 8, Math.max(2, to - from), this.height - BOTTOM - TOP + 8);
        context.strokeStyle = colours.mark;
        context.setLineDash([3, 3]);
        context.beginPath();
        context.moveTo(from, TOP - 8);
        context.lineTo(from, this.height - BOTTOM);
        context.stroke();
        context.setLineDash([]);
      }
    }

    /** A dotted line where something happened; `told(event, x, index)` writes to it. */
    drawEvents(context, table, xs, told) {
      const colours = o.colours();
      const events = o.markedEvents(this.model);
      events.forEach((event, i) => {
        const x = this.x(this.model.place(table, xs, event.step));
        if (x < LEFT - 1 || x > this.canvas.clientWidth - RIGHT + 1) return;
        context.strokeStyle = colours.event;
        context.setLineDash([2, 4]);
        context.beginPath();
        context.moveTo(x, TOP - 4);
        context.lineTo(x, this.height - BOTTOM);
        context.stroke();
        context.setLineDash([]);
        if (told) told(event, x, i);
      });
      return events;
    }

    /** What each line is, with its value at the cursor or its last. */
    drawLegend(table, lines) {
      const at = this.at >= 0 && table && this.at < table.steps.length ? this.at : -1;
      const rows = lines.map((line) => {
        const i = at >= 0 ? at : line.values.findLastIndex(Number.isFinite);
        return { name: line.name, value: this.show(line.values[i]), colour: line.colour, dash: line.dash || [], title: line.title || "" };
      });
      const rules = lines.length ? (this.options.rules || []).map((rule) => ({ name: rule.name, value: "", colour: rule.strong ? o.colours().mark : o.colours().event, dash: [5, 5], title: "" })) : [];
      o.fill(this.legend, [...rows, ...rules], () => [...rows, ...rules].map((row) =>
        o.h("span", { class: "key", title: row.title || null }, o.swatch(row.colour, row.dash), `${row.name} `, o.h("strong", {}, row.value))));
    }

    /** Move the shared cursor here; `value` null hides it. */
    point(value) {
      const table = this.table();
      this.cursor.hidden = value === null || !this.x;
      if (this.cursor.hidden || !table || !table.steps.length) {
        this.at = -1;
        this.readout.textContent = "";
        return this.drawLegend(table, this.lines || []);
      }
      const { values: xs } = o.horizontal(table, this.model);
      this.at = o.nearest(xs, value);
      this.cursor.style.left = this.x(xs[this.at]) + "px";
      this.cursor.style.height = this.height - BOTTOM + "px";
      this.readout.textContent = `step ${o.step(table.steps[this.at])}`;
      this.drawLegend(table, this.lines || []);
    }
  };

  /** A short piece of a line, as the chart draws it. */
  o.swatch = function (colour, dash) {
    const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    for (const [key, value] of Object.entries({ class: "key-line", viewBox: "0 0 18 8", width: 18, height: 8, "aria-hidden": "true" })) svg.setAttribute(key, value);
    const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
    for (const [key, value] of Object.entries({ d: "M0 4H18", stroke: colour, "stroke-width": 2, "stroke-dasharray": dash.join(" ") })) path.setAttribute(key, value);
    svg.append(path);
    return svg;
  };

  /** Where in a sorted row the value nearest to one stands. */
  o.nearest = function (sorted, value) {
    let low = 0, high = sorted.length - 1;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (sorted[middle] < value) low = middle + 1; else high = middle;
    }
    return low > 0 && value - sorted[low - 1] < sorted[low] - value ? low - 1 : low;
  };
})((window.otoscope = window.otoscope || {}));
