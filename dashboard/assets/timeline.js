// The lanes under the loss: a bar for every finding from its first step to its last, packed by rule.
(function (o) {
  "use strict";
  const MOST = 12; // lanes; what is over takes the last ones

  /** Draw the lanes; `choose(id)` is called with the finding whose bar was taken. */
  o.drawLanes = function (box, model, choose) {
    const table = model.tables.train;
    if (!table || !table.steps.length) return;
    const { values: xs } = o.horizontal(table, model);
    const [low, high] = model.span(table);
    const end = table.steps[table.steps.length - 1];
    const at = (step) => (model.place(table, xs, step) - low) / (high - low);
    const roots = new Set(model.roots()); // what an ended cause left behind stands by itself, as in the table
    const bars = model.findings.map((finding) => ({
      finding, told: model.told(finding), caused: !roots.has(finding), from: at(finding.first_step),
      to: finding.state === "firing" ? Math.max(at(finding.last_step), at(end)) : at(finding.last_step),
    })).filter((bar) => bar.to >= 0 && bar.from <= 1);
    const lanes = [];
    for (const bar of bars) {
      const lane = lanes.find((one) => one.every((other) => other.finding.rule === bar.finding.rule && (bar.from > other.to + 0.01 || bar.to < other.from - 0.01)));
      if (lane) lane.push(bar); else lanes.push([bar]);
    }
    const shown = lanes.slice(0, MOST), hidden = lanes.slice(MOST).flat().length;
    const key = shown.map((lane) => lane.map((bar) => [bar.finding.id, bar.finding.severity, bar.finding.state, bar.told, bar.caused, bar.from.toFixed(3), bar.to.toFixed(3)]));
    o.fill(box, [key, o.settings.finding, hidden], () => [
      ...shown.map((lane) => o.h("div", { class: "lane" }, lane.map((bar) => draw(bar, choose)))),
      hidden ? o.h("p", { class: "dim" }, `${o.many(hidden, "further finding")} in the table below.`) : null]);
  };

  function draw({ finding, told, caused, from, to }, choose) {
    const left = Math.max(0, from), right = Math.min(1, to), over = finding.state !== "firing";
    const words = `${o.capital(finding.severity)}: ${finding.title.replace(/`/g, "")}, steps ${o.step(finding.first_step)} to ${o.step(finding.last_step)}${over ? ", resolved" : ", open"}`;
    const late = left > 0.6; // its words end at the bar's end instead of running out of the picture
    const bar = o.h("button", { class: `lane-bar ${finding.severity}${over || told ? " aside" : ""}${over ? "" : " open"}`, title: words, "aria-label": words,
      "aria-pressed": String(o.settings.finding === finding.id), onclick: () => choose(finding.id),
      style: { left: `${100 * left}%`, width: `max(8px, ${100 * Math.max(0, right - left)}%)` } });
    const label = o.h("span", { class: "lane-label", "aria-hidden": "true", style: late ? { right: `${100 * (1 - left)}%` } : { left: `${100 * left}%` } },
      o.icon(finding.severity), `${caused ? "caused: " : ""}${o.rule(finding.rule)}`);
    return [bar, label];
  }
})((window.otoscope = window.otoscope || {}));
