// A chart of one quantity against another: the scan of a landscape, time against compute, a density.
(function (o) {
  "use strict";
  const LEFT = 58, RIGHT = 14, TOP = 14, BOTTOM = 38;

  o.XYChart = class XYChart {
    /**
     * options: {name, label, height, empty, read() -> null or {x, y: {ends, log, map, ticks, text, title},
     * curves: [{name, xs, ys, colour, dash, dots, width}], marks: [{x, y, text, colour}],
     * shade: [from, to], verticals: [{x, text}], keys: [[name, colour, dash]], words, csv}}
     */
    constructor(box, model, options) {
      this.model = model;
      this.options = options;
      this.height = options.height || 230;
      this.canvas = o.h("canvas", { tabindex: 0, role: "img", class: "chart", "aria-label": options.label });
      this.cursor = o.h("div", { class: "cursor", hidden: true });
      this.empty = o.h("p", { class: "empty-chart dim", hidden: true });
      this.legend = o.h("div", { class: "legend dim" });
      this.readout = o.h("div", { class: "readout", "aria-live": "polite" });
      this.foot = o.h("div", { class: "row foot" }, this.readout, o.h("span", { class: "space" }),
        o.exports(model, options.name, this.canvas, () => (this.shown ? this.shown.csv : null)));
      box.replaceChildren(this.legend, o.h("div", { class: "plot" }, this.canvas, this.cursor, this.empty), this.foot);
      this.canvas.style.height = this.height + "px";
      o.panel(this.canvas, () => this.draw());
      this.canvas.addEventListener("pointermove", (event) => this.x && this.read(this.nearest(event.offsetX)));
      this.canvas.addEventListener("pointerleave", () => this.read(-1));
      this.canvas.addEventListener("keydown", (event) => {
        const move = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
        if (!move || !this.x) return;
        event.preventDefault();
        const xs = this.shown.curves[0].xs;
        this.read(Math.max(0, Math.min(xs.length - 1, (this.at >= 0 ? this.at : 0) + move)));
      });
    }

    update() { o.redraw(this.canvas); }

    draw() {
      const shown = (this.shown = this.options.read(o.colours()));
      const { context, width } = o.canvas(this.canvas, shown ? this.height : o.EMPTY);
      this.empty.hidden = Boolean(shown);
      this.empty.textContent = o.emptyWords(this.model, this.options.empty);
      this.foot.hidden = !shown;
      this.x = null;
      if (!shown) { o.fill(this.legend, "", () => []); return; }
      this.x = axis(shown.x, LEFT, width - RIGHT);
      this.y = axis(shown.y, this.height - BOTTOM, TOP);
      const clampY = (value) => Math.max(-1e4, Math.min(1e4, this.y(value)));
      this.drawFrame(context, width, shown);
      context.save();
      context.beginPath();
      context.rect(LEFT - 4, TOP - 6, width - LEFT - RIGHT + 8, this.height - TOP - BOTTOM + 12);
      context.clip();
      for (const curve of shown.curves) this.drawCurve(context, curve, clampY);
      context.restore();
      const beyond = Math.max(...shown.curves.flatMap((curve) => (curve.dots ? curve.ys : [])).filter(Number.isFinite));
      if (beyond > shown.y.ends[1]) o.drawBeyond(context, beyond, width - RIGHT - 2, TOP + 4, "right");
      for (const mark of shown.marks || []) this.drawMark(context, mark, width);
      const keys = shown.keys || shown.curves.filter((curve) => curve.name).map((curve) => [curve.name, curve.colour, curve.dash || []]);
      o.fill(this.legend, [keys, shown.words], () => [...keys.map(([name, colour, dash]) => o.h("span", { class: "key" }, o.swatch(colour, dash), name)),
        shown.words ? o.h("span", { class: "said-of-chart" }, shown.words) : null]);
      this.canvas.setAttribute("aria-label", `${this.options.label}. ${shown.words || ""}`);
    }

    drawFrame(context, width, shown) {
      const colours = o.colours(), bottom = this.height - BOTTOM;
      if (shown.shade) {
        context.fillStyle = colours.shade;
        const from = this.x(shown.shade[0]), to = Math.min(width - RIGHT, this.x(shown.shade[1]));
        context.fillRect(from, TOP - 4, Math.max(0, to - from), bottom - TOP + 4);
      }
      this.y.ends = shown.y.ends;
      o.drawAxisY(context, this.y, LEFT, width - RIGHT, shown.y.log);
      const ticks = shown.x.ticks || (shown.x.log ? o.logTicks(...shown.x.ends) : o.ticks(...shown.x.ends, Math.max(2, width / 110)));
      const texts = shown.x.text ? ticks.map(shown.x.text) : o.tickTexts(ticks);
      context.textAlign = "center";
      context.textBaseline = "top";
      let right = -Infinity;
      ticks.forEach((tick, i) => {
        const x = this.x(tick), half = context.measureText(texts[i]).width / 2;
        if (x - half < right + 5) return;
        right = x + half;
        context.fillText(texts[i], Math.min(x, width - half), bottom + 5);
      });
      context.fillText(shown.x.title, (LEFT + width - RIGHT) / 2, bottom + 21);
      for (const line of shown.verticals || []) {
        const x = Math.round(this.x(line.x)) + 0.5;
        context.strokeStyle = colours.event;
        context.setLineDash([3, 4]);
        context.beginPath();
        context.moveTo(x, TOP - 4);
        context.lineTo(x, bottom);
        context.stroke();
        context.setLineDash([]);
        context.textAlign = "left";
        context.textBaseline = "top";
        context.fillText(line.text, x + 4, TOP - 4);
      }
    }

    drawCurve(context, curve, y) {
      context.strokeStyle = context.fillStyle = curve.colour;
      context.lineWidth = curve.width || 1.8;
      context.setLineDash(curve.dash || []);
      context.lineJoin = "round";
      context.beginPath();
      let down = false;
      curve.xs.forEach((x, i) => {
        if (!Number.isFinite(curve.ys[i])) { down = false; return; }
        if (down) context.lineTo(this.x(x), y(curve.ys[i])); else context.moveTo(this.x(x), y(curve.ys[i]));
        down = true;
      });
      context.stroke();
      context.setLineDash([]);
      if (!curve.dots) return;
      curve.xs.forEach((x, i) => {
        if (!Number.isFinite(curve.ys[i])) return;
        context.beginPath();
        context.arc(this.x(x), y(curve.ys[i]), 3.2, 0, 7);
        context.fill();
      });
    }

    drawMark(context, mark, width) {
      const x = this.x(mark.x), y = this.y(mark.y), colours = o.colours();
      context.fillStyle = mark.colour;
      context.strokeStyle = colours.panel;
      context.lineWidth = 2;
      context.beginPath();
      context.arc(x, y, mark.size || 4, 0, 7);
      context.fill();
      context.stroke();
      context.fillStyle = mark.strong ? colours.text : colours.dim;
      const right = x + 10 + context.measureText(mark.text).width < width - 2;
      context.textAlign = right ? "left" : "right";
      context.textBaseline = right ? "bottom" : "top";
      context.fillText(mark.text, right ? x + 7 : x - 7, right ? y - 3 : y + 5);
    }

    nearest(pixel) {
      const xs = this.shown.curves[0].xs.map((x) => this.x(x));
      return xs.reduce((best, x, i) => (Math.abs(x - pixel) < Math.abs(xs[best] - pixel) ? i : best), 0);
    }

    /** Say what the curves hold at a place; a negative one says nothing. */
    read(at) {
      this.at = at;
      this.cursor.hidden = at < 0 || !this.x;
      if (this.cursor.hidden) { this.readout.textContent = ""; return; }
      const { x, curves } = this.shown, value = curves[0].xs[at];
      this.cursor.style.left = this.x(value) + "px";
      this.cursor.style.height = this.height - BOTTOM + "px";
      const same = curves.filter((curve) => curve.name && curve.xs.length === curves[0].xs.length);
      this.readout.textContent = `${x.name} ${o.number(value)} · ` +
        same.map((curve) => `${curve.name} ${o.number(curve.ys[at], 4)}`).join(" · ");
    }

    point() { /* its axis is not that of the steps */ }
  };

  /** A scale over the ends of an axis; `map` bends it (the root of a multiple, say). */
  function axis(about, from, to) {
    const map = about.map || ((x) => x);
    const scale = o.scale(map(about.ends[0]), map(about.ends[1]), from, to, about.log);
    return Object.assign((x) => scale(map(x)), { ends: about.ends });
  }
})((window.otoscope = window.otoscope || {}));
