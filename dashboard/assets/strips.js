// One small chart a layer: the envelope of what fell into a pixel with its mean over it.
(function (o) {
  "use strict";
  const SHOWN = 24, HEIGHT = 84, LEFT = 40, RIGHT = 6, TOP = 6, BOTTOM = 16;

  o.Strips = class Strips {
    constructor(box, model, layers) {
      this.model = model;
      this.layers = layers;
      this.grid = o.h("div", { class: "strips" });
      this.more = o.h("p", { class: "dim" });
      box.replaceChildren(this.grid, this.more);
      this.cells = new Map();
    }

    /** The layers to show: those that match the filter, the most unusual first. */
    chosen() {
      let matches = () => true;
      this.wrong = "";
      try {
        const pattern = new RegExp(o.settings.filter, "i");
        matches = (row) => pattern.test(row.layer);
      } catch (error) {
        this.wrong = `The filter is not a regular expression: ${error.message}`;
      }
      const found = this.layers.rows.filter(matches);
      const order = [...found].sort((a, b) => b.score - a.score);
      return { rows: order.slice(0, SHOWN), count: found.length };
    }

    update() {
      this.layers.update();
      const { rows, count } = this.chosen();
      this.more.textContent = this.wrong || (this.layers.rows.length === 0
        ? this.layers.absence()
        : count === 0 ? "No layer matches the filter."
        : count > rows.length ? `${rows.length} most unusual of ${count} layers; the filter finds the others.` : "");
      this.range = o.settings["strip-scale"] === "one" ? range(rows.flatMap((row) => extremes(row, 0, row.values.length - 1))) : null;
      const names = rows.map((row) => row.layer);
      if (names.join("\n") !== this.names) {
        this.names = names.join("\n");
        for (const [name, cell] of this.cells) {
          if (!names.includes(name)) { o.forget(cell.canvas); cell.box.remove(); this.cells.delete(name); }
        }
        for (const name of names) {
          if (!this.cells.has(name)) this.cells.set(name, this.makeCell(name));
          this.grid.append(this.cells.get(name).box);
        }
      }
      const trouble = this.model.layersInTrouble();
      for (const row of rows) {
        const cell = this.cells.get(row.layer);
        cell.row = row;
        cell.value.textContent = this.layers.show(row.last);
        cell.badge.hidden = row.score <= 4 && !trouble.has(row.layer);
        cell.badge.textContent = trouble.has(row.layer) ? "in the finding" : "unusual";
        cell.canvas.setAttribute("aria-label", `${row.layer}: ${this.layers.quantity.title} ${this.layers.show(row.last)}, ` +
          `median ${this.layers.show(row.median)}, ${o.zWords(o.lastFinite(row.z))}`);
        o.redraw(cell.canvas);
      }
    }

    makeCell(name) {
      const canvas = o.h("canvas", { tabindex: 0, role: "img", class: "chart" });
      const cursor = o.h("div", { class: "cursor", hidden: true });
      const value = o.h("span", { class: "dim" });
      const badge = o.h("span", { class: "badge quiet", hidden: true }, "unusual");
      const box = o.h("div", { class: "strip" },
        o.h("div", { class: "row tight" }, o.h("span", { class: "strip-name", title: name }, o.h("bdi", {}, name)), badge, o.h("span", { class: "space" }), value),
        o.h("div", { class: "plot" }, canvas, cursor));
      const cell = { box, canvas, cursor, value, badge, row: null };
      o.panel(canvas, () => this.draw(cell));
      canvas.addEventListener("pointermove", (event) => {
        if (cell.x) this.model.point(cell.x.back(event.offsetX), this);
      });
      canvas.addEventListener("pointerleave", () => this.model.point(null, this));
      return cell;
    }

    draw(cell) {
      const table = this.layers.table, row = cell.row;
      if (!table || !row) return;
      const { context, width } = o.canvas(cell.canvas, HEIGHT);
      this.width = width;
      const { values: xs, label } = o.horizontal(table, this.model);
      const [first, last] = this.model.window(table);
      const [low, high] = this.range || range(extremes(row, first, last));
      const y = o.scale(low, high, HEIGHT - BOTTOM, TOP);
      const [from, to] = this.model.span(table);
      cell.x = o.scale(from, to, LEFT, width - RIGHT);
      const colours = o.colours();
      context.fillStyle = colours.dim;
      context.strokeStyle = colours.grid;
      context.textAlign = "right";
      context.textBaseline = "middle";
      const ticks = o.ticks(low, high, 2), texts = o.tickTexts(ticks);
      ticks.forEach((tick, i) => {
        context.beginPath();
        context.moveTo(LEFT, Math.round(y(tick)) + 0.5);
        context.lineTo(width - RIGHT, Math.round(y(tick)) + 0.5);
        context.stroke();
        context.fillText(texts[i], LEFT - 4, y(tick));
      });
      o.drawAxisX(context, cell.x, from, to, HEIGHT - BOTTOM - 2, width - LEFT, label);
      this.envelope(context, cell, xs, row, y, first, last, colours);
      this.marks(context, cell, table, xs, width, colours);
    }

    envelope(context, cell, xs, { values, low, high }, y, first, last, colours) {
      const buckets = new Map();
      for (let i = first; i <= last; i++) {
        if (!Number.isFinite(values[i])) continue;
        const pixel = Math.round(cell.x(xs[i]));
        const bucket = buckets.get(pixel);
        if (!bucket) buckets.set(pixel, { low: low[i], high: high[i], sum: values[i], n: 1 });
        else {
          bucket.low = Math.min(bucket.low, low[i]);
          bucket.high = Math.max(bucket.high, high[i]);
          bucket.sum += values[i];
          bucket.n += 1;
        }
      }
      context.save();
      context.beginPath();
      context.rect(LEFT, 0, this.width - LEFT - RIGHT, HEIGHT - BOTTOM);
      context.clip();
      context.fillStyle = colours.raw;
      for (const [pixel, bucket] of buckets) {
        context.fillRect(pixel - 0.5, y(bucket.high), 1.5, Math.max(1, y(bucket.low) - y(bucket.high)));
      }
      context.strokeStyle = colours.line;
      context.lineWidth = 1.2;
      context.beginPath();
      let started = false;
      for (const [pixel, bucket] of buckets) {
        const at = y(bucket.sum / bucket.n);
        if (started) context.lineTo(pixel, at); else context.moveTo(pixel, at);
        started = true;
      }
      context.stroke();
      context.restore();
    }

    marks(context, cell, table, xs, width, colours) {
      context.strokeStyle = colours.mark;
      context.lineWidth = 1;
      context.setLineDash([3, 3]);
      for (const finding of this.model.marked()) {
        const x = cell.x(this.model.place(table, xs, finding.first_step));
        if (x < LEFT || x > width - RIGHT) continue;
        context.beginPath();
        context.moveTo(x, TOP);
        context.lineTo(x, HEIGHT - BOTTOM);
        context.stroke();
      }
      context.setLineDash([]);
    }

    point(value) {
      const table = this.layers.table;
      if (!table) return;
      const xs = value === null ? null : o.horizontal(table, this.model).values;
      const i = xs ? o.nearest(xs, value) : -1;
      for (const cell of this.cells.values()) {
        cell.cursor.hidden = i < 0 || !cell.x;
        if (i >= 0 && cell.x) {
          cell.cursor.style.left = cell.x(xs[i]) + "px";
          cell.cursor.style.height = HEIGHT - BOTTOM + "px";
        }
        if (cell.row) cell.value.textContent = this.layers.show(i >= 0 ? cell.row.values[i] : cell.row.last);
      }
    }
  };

  const extremes = (row, first, last) => [...row.low.slice(first, last + 1), ...row.high.slice(first, last + 1)];

  function range(values) {
    const low = o.quantile(values, 0.002), high = o.quantile(values, 0.998);
    if (!Number.isFinite(low)) return [0, 1];
    if (low === high) return [Math.min(0, low), high > 0 ? high * 1.2 : 1];
    const pad = (high - low) * 0.08;
    return [low >= 0 && low < 0.6 * high ? 0 : low - pad, high + pad];
  }
})((window.otoscope = window.otoscope || {}));
