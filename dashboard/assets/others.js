// Quantities that no page knows: of a probe of the reader's own, or sampled once at the beginning.
(function (o) {
  "use strict";
  const SHOWN = 24, FEW = 10; // samples up to which a table reads better than a chart
  const KNOWN = ["train", "gradients", "activations", "noise", "curvature", "landscape", "density", "tail_index", "validation", "system"];
  const OURS = ["initialization", "head", "inputs", "symmetry", "modes", "replicas"]; // what rules read: folded in until asked for

  o.Others = class Others {
    constructor(box, model) {
      this.box = box;
      this.model = model;
      this.charts = new Map();
      this.filter = o.h("input", { type: "search", class: "input", placeholder: "filter, e.g. logits", "aria-label": "Filter other quantities by a regular expression" });
      this.filter.value = o.settings.others;
      this.filter.addEventListener("input", () => o.set("others", this.filter.value));
      this.grid = o.h("div", { class: "strips" });
      this.tables = o.h("div", {});
      this.more = o.h("p", { class: "dim" });
      this.card = o.h("section", { class: "card", id: "others-card", hidden: true, "aria-label": "Other quantities" },
        o.h("div", { class: "row" }, o.h("h2", {}, "Other quantities"), o.h("span", { class: "space" }), this.filter), this.tables, this.grid, this.more);
      box.replaceChildren(this.card);
    }

    families() { return Object.keys(this.model.tables).filter((name) => !KNOWN.includes(name)); }

    update() {
      const families = this.families();
      this.card.hidden = families.length === 0;
      if (!families.length) return;
      let matches = () => true, wrong = "";
      try {
        const pattern = new RegExp(o.settings.others, "i");
        matches = (family, column) => pattern.test(`${family} ${column}`);
      } catch (error) {
        wrong = `The filter is not a regular expression: ${error.message}`;
      }
      const asked = o.settings.others !== "";
      const few = families.filter((name) => this.model.tables[name].steps.length <= FEW || (!asked && OURS.includes(name)));
      this.drawTables(few, matches);
      const all = families.filter((name) => !few.includes(name))
        .flatMap((family) => this.model.tables[family].columns.map((column) => ({ family, column, key: `${family}\n${column}` })))
        .filter(({ family, column }) => matches(family, column));
      const shown = all.slice(0, SHOWN);
      this.more.textContent = wrong || (all.length > shown.length ? `The first ${shown.length} of ${all.length}; the filter finds the others.` : "");
      this.drawCharts(shown);
    }

    drawCharts(shown) {
      const keys = shown.map((item) => item.key);
      for (const [key, cell] of this.charts) {
        if (!keys.includes(key)) { o.forget(cell.chart.canvas); cell.box.remove(); this.charts.delete(key); }
      }
      for (const { family, column, key } of shown) {
        if (!this.charts.has(key)) this.charts.set(key, this.makeCell(family, column));
        const cell = this.charts.get(key);
        this.grid.append(cell.box);
        cell.chart.update();
      }
    }

    makeCell(family, column) {
      const box = o.h("div", {});
      const chart = new o.LineChart(box, this.model, { name: `${family}-${column}`.replace(/[^\w.-]+/g, "-"), label: `${column} of ${family}`, family, height: 110,
        lines: (table, colours) => [{ name: column, values: table.column(column), gaps: false, colour: colours.line, width: 1.4 }] });
      return { chart, box: o.h("div", { class: "strip other" }, o.h("div", { class: "dim" }, o.words(family)), box) };
    }

    /** What was sampled once or twice: a row a layer, or a row a quantity of the whole run. */
    drawTables(families, matches) {
      const key = families.map((name) => [name, this.model.tables[name].steps.length, this.model.epoch]);
      o.fill(this.tables, [key, o.settings.others], () => families.map((family) => {
        const table = this.model.tables[family], last = table.steps.length - 1;
        const found = merged(table.columns.map((name, i) => ({ name, layer: table.layers[i], value: o.lastFinite(table.data[i]) })).filter(({ name }) => matches(family, name)));
        if (!found.length) return null;
        const plain = found.filter(({ layer }) => layer === null), layers = [...new Set(found.filter(({ layer }) => layer !== null).map(({ layer }) => layer))];
        const quantities = [...new Set(found.filter(({ layer }) => layer !== null).map(({ name, layer }) => name.slice(0, -layer.length - 1)))];
        const value = (layer, quantity) => { const item = found.find(({ name }) => name === `${quantity}/${layer}`); return o.number(item ? item.value : NaN); };
        const alike = quantities.length === 1 && new Set(layers.map((layer) => value(layer, quantities[0]))).size === 1;
        const rows = plain.map(({ name, value: number, shown }) => [o.words(name), shown || o.number(number), null]);
        if (alike) rows.push([o.words(quantities[0]), value(layers[0], quantities[0]), layers.length > 1 ? `in all ${layers.length} layers` : layers[0]]);
        const step = o.h("span", { class: "dim" }, ` step ${o.step(table.steps[last])}`), title = o.capital(o.words(family));
        const content = [
          rows.length ? o.h("div", { class: "stats" }, o.numberRow(rows)) : null,
          layers.length && !alike ? o.h("div", { class: "scroll", tabindex: 0, role: "group", "aria-label": `${o.words(family)} of the layers` }, o.h("table", {},
            o.h("thead", {}, o.h("tr", {}, o.h("th", { scope: "col" }, "Layer"), quantities.map((name) => o.h("th", { scope: "col" }, o.words(name))))),
            o.h("tbody", {}, layers.map((layer) => o.h("tr", {}, o.h("th", { scope: "row" }, layer), quantities.map((name) => o.h("td", {}, value(layer, name)))))))) : null];
        return OURS.includes(family) && o.settings.others === ""
          ? o.h("details", { class: "once" }, o.h("summary", {}, o.h("strong", {}, title), step), content)
          : o.h("div", { class: "once" }, o.h("h3", {}, title, step), content);
      }));
    }

    point(value) { for (const cell of this.charts.values()) cell.chart.point(value); }
  };

  /** The shares of single classes as one item: from the rarest to the most frequent. */
  function merged(found) {
    const isShare = ({ name }) => /^class_share_\d+$/.test(name);
    const shares = found.filter(isShare).map(({ value }) => value).filter(Number.isFinite);
    const others = found.filter((item) => !isShare(item));
    if (shares.length < 2) return found;
    return [...others, { name: `share of each of ${shares.length} classes`, layer: null, value: NaN, shown: `${o.percent(Math.min(...shares))}–${o.percent(Math.max(...shares))}` }];
  }
})((window.otoscope = window.otoscope || {}));
