// The layers over time as a heatmap on canvas, with a read-out, keys, and a table for those who need one.
(function (o) {
  "use strict";
  const TOP = 4, BOTTOM = 24, RIGHT = 12, TALLEST = 520;

  o.Heatmap = class Heatmap {
    constructor(box, model, layers) {
      this.model = model;
      this.layers = layers;
      this.canvas = o.h("canvas", { tabindex: 0, role: "img", class: "chart", "aria-label": "Heatmap of the layers" });
      this.cursor = o.h("div", { class: "cursor", hidden: true });
      this.readout = o.h("div", { class: "readout", "aria-live": "polite" });
      this.legend = o.h("div", { class: "legend dim" });
      this.tableBox = o.h("div", { class: "scroll" });
      this.details = o.h("details", {}, o.h("summary", {}, "As a table"), this.tableBox);
      this.empty = o.h("p", { class: "dim", hidden: true });
      this.plot = o.h("div", { class: "plot" }, this.canvas, this.cursor);
      this.foot = o.h("div", { class: "row foot" }, this.legend, this.readout, o.h("span", { class: "space" }),
        o.exports(model, "layers", this.canvas, () => layers.table));
      box.replaceChildren(this.empty, this.plot, this.foot, this.details);
      this.cell = null;
      o.panel(this.canvas, () => this.draw());
      this.canvas.addEventListener("pointermove", (event) => this.hover(event));
      this.canvas.addEventListener("pointerleave", () => { this.cell = null; this.model.point(null, this); });
      this.canvas.addEventListener("keydown", (event) => this.key(event));
      this.details.addEventListener("toggle", () => this.drawTable());
    }

    update() {
      this.layers.update();
      const rows = this.layers.rows;
      this.empty.hidden = rows.length > 0;
      this.plot.hidden = this.details.hidden = this.foot.hidden = rows.length === 0;
      if (!rows.length) {
        this.empty.textContent = this.layers.absence();
        this.readout.textContent = "";
      }
      o.redraw(this.canvas);
      this.drawTable();
    }

    get left() { return Math.min(190, Math.max(90, this.canvas.clientWidth * 0.2)); }

    draw() {
      const rows = this.layers.rows, table = this.layers.table;
      if (!rows.length) return;
      const rowHeight = Math.max(2, Math.min(18, Math.floor(TALLEST / rows.length)));
      const height = TOP + rowHeight * rows.length + BOTTOM;
      const { context, width } = o.canvas(this.canvas, height);
      const { values: xs, label } = o.horizontal(table, this.model);
      const [first, last] = this.model.window(table);
      const [low, high] = this.model.span(table);
      this.x = o.scale(low, high, this.left, width - RIGHT);
      this.rowHeight = rowHeight;
      this.drawCells(context, rows, xs, first, last, width, rowHeight);
      this.drawLabels(context, rows, rowHeight);
      o.drawAxisX(context, this.x, low, high, height - BOTTOM, width - this.left, label);
      this.drawMarks(context, table, xs, height, width);
      const strange = rows.filter((row) => row.score > 4).map((row) => row.layer);
      this.canvas.setAttribute("aria-label",
        `Heatmap of ${this.layers.quantity.title}, ${o.many(rows.length, "layer")}. ` +
        (strange.length ? `Unusual now: ${strange.slice(0, 8).join(", ")}.` : "No layer is unusual now.") +
        " Arrow keys move over it; a table follows.");
      this.drawLegend();
    }

    drawCells(context, rows, xs, first, last, width, rowHeight) {
      const columns = Math.max(1, Math.floor(width - RIGHT - this.left));
      const image = context.createImageData(columns, rows.length);
      const range = this.absoluteRange(rows);
      // a pixel shows the most unusual of the samples that fall into it
      const edges = Array.from({ length: columns }, (_, c) => o.nearest(xs, this.x.back(this.left + c)));
      // the last sample stands until the next is due; beyond it nothing is drawn
      const due = xs[last] + (last > 0 ? xs[last] - xs[last - 1] : 0);
      const start = Math.max(0, Math.floor(this.x(xs[first]) - this.left));
      const end = Math.min(columns, Math.ceil(Math.max(this.x(due), this.x(xs[last]) + 2) - this.left));
      rows.forEach((row, r) => {
        for (let c = start; c < end; c++) {
          const from = Math.max(first, edges[c]), to = Math.min(last, c + 1 < columns ? edges[c + 1] : last);
          let i = from;
          for (let k = from + 1; k < to; k++) if (Math.abs(row.z[k]) > Math.abs(row.z[i])) i = k;
          const [red, green, blue] = this.colour(row, i, range);
          image.data.set([red, green, blue, 255], 4 * (r * columns + c));
        }
      });
      const off = document.createElement("canvas");
      off.width = columns;
      off.height = rows.length;
      off.getContext("2d").putImageData(image, 0, 0);
      context.imageSmoothingEnabled = false;
      context.drawImage(off, this.left, TOP, columns, rows.length * rowHeight);
    }

    colour(row, i, range) {
      const value = row.values[i];
      if (value === Infinity) return o.isDark() ? [255, 255, 255] : [0, 0, 0];
      if (!Number.isFinite(value)) return o.isDark() ? [75, 75, 75] : [206, 212, 218];
      if (o.settings.colour === "absolute") {
        const at = range.log ? Math.log10(value) : value;
        return o.sequential(Number.isFinite(at) ? (at - range.low) / (range.high - range.low || 1) : 0);
      }
      return o.diverging(row.z[i]);
    }

    absoluteRange(rows) {
      const share = this.layers.quantity.share;
      if (share) return { low: 0, high: 1, log: false };
      const all = rows.flatMap((row) => row.values.filter((v) => v > 0 && Number.isFinite(v)).map(Math.log10));
      return { low: o.quantile(all, 0.01), high: o.quantile(all, 0.99), log: true };
    }

    drawLabels(context, rows, rowHeight) {
      const every = Math.max(1, Math.ceil(11 / rowHeight));
      const colours = o.colours(), trouble = this.model.layersInTrouble();
      context.font = `${Math.min(11, Math.max(9, rowHeight - 3))}px ` + getComputedStyle(document.body).fontFamily;
      context.textAlign = "right";
      context.textBaseline = "middle";
      rows.forEach((row, r) => {
        if (r % every) return;
        context.fillStyle = trouble.has(row.layer) ? colours.mark : row.score > 4 ? colours.text : colours.dim;
        context.fillText(fitted(context, row.layer, this.left - 10), this.left - 6, TOP + (r + 0.5) * rowHeight);
      });
      context.font = "11px " + getComputedStyle(document.body).fontFamily;
    }

    drawMarks(context, table, xs, height, width) {
      for (const finding of this.model.marked()) {
        const x = this.x(this.model.place(table, xs, finding.first_step));
        if (x < this.left || x > width - RIGHT) continue;
        // a light ground under the dashes keeps them visible on every colour
        for (const [colour, width, dash] of [[o.colours().panel, 3, []], [o.colours().mark, 1, [3, 3]]]) {
          context.strokeStyle = colour;
          context.lineWidth = width;
          context.setLineDash(dash);
          context.beginPath();
          context.moveTo(x, TOP);
          context.lineTo(x, height - BOTTOM);
          context.stroke();
        }
      }
      context.setLineDash([]);
      context.lineWidth = 1;
    }

    drawLegend() {
      const absolute = o.settings.colour === "absolute", share = this.layers.quantity.share;
      const range = absolute ? this.absoluteRange(this.layers.rows) : null;
      const ends = !absolute ? ["below its median", "above its median"]
        : share ? ["0 %", "100 %"] : [o.number(10 ** range.low, 2), o.number(10 ** range.high, 2)];
      o.fill(this.legend, [absolute, ends, o.isDark()], () => {
        const stops = Array.from({ length: 9 }, (_, i) =>
          `rgb(${(absolute ? o.sequential(i / 8) : o.diverging(1.25 * (i - 4))).join(",")})`);
        return [ends[0], o.h("span", { class: "ramp", style: { background: `linear-gradient(90deg, ${stops})` } }), ends[1],
          o.h("span", { class: "swatch" }), "no number"];
      });
    }

    hover(event) {
      if (!this.x) return;
      const row = Math.floor((event.offsetY - TOP) / this.rowHeight);
      this.cell = { row: Math.max(0, Math.min(this.layers.rows.length - 1, row)) };
      this.model.point(this.x.back(event.offsetX), this);
    }

    key(event) {
      const move = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0],
        PageUp: [0, -20], PageDown: [0, 20] }[event.key];
      const table = this.layers.table;
      if (!move || !table) return;
      event.preventDefault();
      const at = this.cell && this.cell.at !== undefined ? this.cell : { row: 0, at: table.steps.length - 1 };
      this.cell = {
        row: Math.max(0, Math.min(this.layers.rows.length - 1, at.row + move[0])),
        at: Math.max(0, Math.min(table.steps.length - 1, at.at + move[1])),
      };
      this.model.point(o.horizontal(table, this.model).values[this.cell.at], this);
    }

    point(value) {
      const table = this.layers.table;
      this.cursor.hidden = value === null || !this.x || !table;
      if (this.cursor.hidden) { this.readout.textContent = ""; return; }
      const { values: xs } = o.horizontal(table, this.model);
      const i = o.nearest(xs, value);
      this.cursor.style.left = this.x(xs[i]) + "px";
      this.cursor.style.height = TOP + this.rowHeight * this.layers.rows.length + "px";
      const row = this.cell ? this.layers.rows[this.cell.row] : null;
      this.readout.textContent = row
        ? `${row.layer} · step ${o.step(table.steps[i])} · ${this.layers.show(row.values[i])} · ${o.zWords(row.z[i])}` : "";
    }

    drawTable() {
      if (!this.details.open) return;
      const { rows } = this.layers;
      o.fill(this.tableBox, this.layers.made, () => o.h("table", {},
        o.h("caption", {}, `${o.capital(this.layers.quantity.title)} of each layer`),
        o.h("thead", {}, o.h("tr", {}, ["Layer", "Last", "Median", "Now"].map((name) => o.h("th", { scope: "col" }, name)))),
        o.h("tbody", {}, rows.map((row) => o.h("tr", {}, o.h("th", { scope: "row" }, row.layer),
          o.h("td", {}, this.layers.show(row.last)), o.h("td", {}, this.layers.show(row.median)),
          o.h("td", {}, o.zWords(o.lastFinite(row.z))))))));
    }
  };

  /** Cut a name at its front: the end tells layers apart. */
  function fitted(context, text, width) {
    if (context.measureText(text).width <= width) return text;
    let cut = text;
    while (cut.length > 3 && context.measureText("…" + cut).width > width) cut = cut.slice(1);
    return "…" + cut;
  }
  o.fitted = fitted;
})((window.otoscope = window.otoscope || {}));
