// A card around a chart: title, caption, the definition behind "?", and the numbers over all of them.
(function (o) {
  "use strict";
  /** A card with a chart's place in it: {card, box, note, tools}; "?" folds the definition out. */
  o.chartCard = function (title, { caption, means, wide, id }) {
    const box = o.h("div", {}), note = o.h("span", { class: "dim" }), tools = o.h("span", { class: "controls" });
    const definition = o.h("p", { class: "means", hidden: true }, o.rich(means));
    const ask = o.h("button", { class: "ask", "aria-expanded": "false", "aria-label": `What is meant by: ${title}` }, "?");
    ask.addEventListener("click", () => {
      definition.hidden = !definition.hidden;
      ask.setAttribute("aria-expanded", String(!definition.hidden));
    });
    const card = o.h("section", { class: `card${wide ? " wide" : ""}`, id, "aria-label": title },
      o.h("div", { class: "row tight" }, o.h("h2", {}, title), ask, note, o.h("span", { class: "space" }), tools),
      o.h("p", { class: "dim caption" }, caption), definition, box);
    return { card, box, note, tools };
  };

  /** A card and the chart in it: `make({box, note, tools})` returns the chart. */
  o.chartIn = function (about, make) {
    const made = o.chartCard(about.title, about);
    const chart = make(made);
    chart.card = made.card;
    return { ...made, chart, update: () => chart.update() };
  };

  /** The numbers over the charts: [name, value, note]. */
  o.numberRow = (rows) => rows.filter(Boolean).map(([name, value, note]) =>
    o.h("div", { class: "stat" }, o.h("span", { class: "dim" }, name), o.h("strong", {}, value), note === null ? null : o.h("span", { class: "dim" }, note || "\u00a0")));
})((window.otoscope = window.otoscope || {}));
