// The Findings page: all findings of a run over its loss, in a table, and the argument of the chosen one.
(function (o) {
  "use strict";
  const SEVERITIES = ["critical", "warning", "info"];
  const STATES = { open: "Open", aside: "Put aside", over: "Over" };
  const MANY = 60; // rows shown unasked
  o.pages = Object.assign(o.pages || {}, { findings: findingsPage });

  function findingsPage(model, act) {
    const views = [], said = o.h("div", { role: "status" }), box = o.h("div", {}), lanes = o.h("div", { class: "lanes" });
    const filters = o.h("div", { class: "row tight filters" }), list = o.h("div", { class: "scroll" }), empty = o.h("div", {});
    const shading = Object.create(model, { marked: { value: () => [chosen()].filter(Boolean) } });
    const timeline = o.h("section", { class: "card", "aria-label": "Findings over the training loss" },
      o.h("div", { class: "row tight" }, o.h("h2", {}, "Findings over the training loss"), o.h("span", { class: "dim" }, "a bar runs from the first step to the last; choose one for its argument")),
      box, lanes);
    const table = o.h("section", { class: "card", "aria-label": "Findings" }, filters, list);
    o.byId("view-findings").replaceChildren(said, empty, timeline, table);
    const loss = new o.LossChart(box, shading);
    const detail = new o.FindingDetail(model, act, views);
    let all = false, unseen = Boolean(o.settings.finding);
    views.push(loss);

    function chosen() { return model.findings.find((finding) => finding.id === o.settings.finding) || null; }

    function show(changed) {
      if (changed.data) o.redraw(loss.canvas);
      const none = model.findings.length === 0;
      table.hidden = none;
      timeline.hidden = none;
      o.fill(said, [model.state, model.verdict, model.run.status, model.marked().map((f) => f.severity)], () => o.verdict(model));
      o.fill(empty, [none, model.judged, model.notJudged], () => (none ? nothing(model) : null));
      draw();
    }

    function draw() {
      const rows = listed(model), open = rows.find(({ finding }) => finding.id === o.settings.finding);
      // a long list begins with what is open; a link leads to its finding wherever that stands
      const shown = all ? rows : rows.filter((row, i) => i < MANY || row === open);
      const now = model.findings.map((f) => [f, model.told(f)]);
      o.drawLanes(lanes, model, (id) => choose(id, true));
      o.fill(filters, [now.length, rows.length, ["severity", "state", "rule"].map((name) => o.settings[name]), rules(model)], () => filterRow(model, rows.length));
      detail.show(open ? open.finding : null);
      o.fill(list, [shown.map(({ finding, nested }) => [finding.id, nested, finding.severity, finding.state, finding.title, finding.last_step, finding.outcome, finding.stale, model.told(finding)]), rows.length, o.settings.finding], () => [
        o.h("table", { class: "findings" },
          o.h("thead", {}, o.h("tr", {}, ["Severity", "Finding", "State", "Where", "Steps", "Outcome"].map((name) => o.h("th", { scope: "col" }, name)))),
          o.h("tbody", {}, shown.map((row) => [tableRow(model, row, choose), row === open ? detail.row : null]))),
        rows.length ? null : o.h("p", { class: "dim" }, "No finding matches what is chosen above."),
        shown.length < rows.length ? o.h("button", { class: "button", onclick: () => { all = true; draw(); } }, `Show all ${rows.length}`) : null]);
      if (unseen && open) {
        unseen = false;
        requestAnimationFrame(() => detail.row.previousElementSibling.scrollIntoView({ block: "start" }));
      }
    }

    function choose(id, move) {
      const leave = !move && o.settings.finding === id;
      unseen = Boolean(move);
      if (move && !listed(model).some(({ finding }) => finding.id === id)) for (const name of ["severity", "state", "rule"]) o.set(name, "");
      o.set("finding", leave ? "" : id);
      if (unseen) draw(); // the same one again: go there all the same
    }

    return { views, show, chosen: () => { draw(); o.redraw(loss.canvas); } };
  }

  /** What the page says of a run without a finding. */
  function nothing(model) {
    const judged = model.judged.length;
    return [o.h("section", { class: "card" },
      o.h("h2", {}, judged ? "No finding" : model.words("Nothing could be judged yet", "Nothing could be judged")),
      o.h("p", { class: "dim" }, judged ? `${o.many(judged, "check")} judged this run and none had anything to say. What it cannot see is told below.` : model.words("Checks begin when their first samples have come.", "It ended before the first samples that a check needs."))),
    o.judgedCard(model)];
  }

  const rules = (model) => [...new Set(model.findings.map((finding) => finding.rule))].sort();
  const stateOf = (finding, told) => (finding.state !== "firing" ? "over" : told ? "aside" : "open");

  /** The findings that match what was chosen, each root with what it caused under it. */
  function listed(model) {
    const { severity, state, rule } = o.settings;
    const matches = (f) => (!severity || f.severity === severity) && (!rule || f.rule === rule) && (!state || stateOf(f, model.told(f)) === state);
    const roots = model.roots(), placed = new Set(); // one that an ended cause left behind stands under what holds it now
    return roots.flatMap((root) => {
      const row = matches(root) ? [{ finding: root, nested: false }] : [];
      const effects = root.caused.map((id) => model.findings.find((f) => f.id === id)).filter((f) => f && !roots.includes(f) && !placed.has(f.id) && matches(f));
      effects.forEach((f) => placed.add(f.id));
      return [...row, ...effects.map((finding) => ({ finding, nested: row.length > 0 }))];
    });
  }

  function filterRow(model, matching) {
    const select = (name, label, choices) => {
      const field = o.h("select", { class: "input", "aria-label": label }, choices.map(([value, words]) => o.h("option", { value, selected: o.settings[name] === value }, words)));
      field.addEventListener("change", () => o.set(name, field.value));
      return field;
    };
    const total = model.findings.length;
    return [o.h("h2", {}, matching === total ? o.many(total, "finding") : `${matching} of ${o.many(total, "finding")}`), o.h("span", { class: "space" }),
      select("severity", "Severity", [["", "Every severity"], ...SEVERITIES.map((name) => [name, o.capital(name)])]),
      select("state", "State", [["", "Every state"], ...Object.entries(STATES)]),
      select("rule", "Rule", [["", "Every rule"], ...rules(model).map((rule) => [rule, o.capital(o.rule(rule))])])];
  }

  function tableRow(model, { finding, nested }, choose) {
    const open = finding.id === o.settings.finding, told = model.told(finding);
    const cell = (name, ...content) => o.h("td", { "data-name": name }, ...content);
    const button = o.h("button", { class: "plain title", "aria-expanded": String(open) }, o.rich(finding.title));
    return o.h("tr", { class: `finding-row ${finding.severity}${nested ? " nested" : ""}${open ? " open" : ""}${told || finding.state !== "firing" ? " aside" : ""}`, "data-finding": finding.id,
      onclick: () => choose(finding.id) },
      cell(null, o.severity(finding.severity)),
      o.h("th", { scope: "row" }, nested ? o.h("span", { class: "dim" }, "caused: ") : null, button, o.h("span", { class: "dim rule" }, o.rule(finding.rule))),
      cell("State", o.stateWords(finding, told)),
      cell("Where", o.where(finding)),
      cell("Steps", `${o.step(finding.first_step)}–${o.step(finding.last_step)}${finding.attempt > 1 ? `, attempt ${finding.attempt}` : ""}`),
      o.h("td", { "data-name": "Outcome", class: finding.outcome || finding.followed ? null : "none" }, finding.outcome || (finding.followed ? "being followed" : "–")));
  }

  /** What stands with a finding, in words. */
  o.stateWords = (finding, told) => {
    if (finding.state !== "firing") return finding.closed ? "closed by hand" : "resolved";
    if (told) return told.charAt(0).toLowerCase() + told.slice(1);
    return finding.stale ? "open, no newer data" : "open";
  };

  /** Layers and ranks of a finding, the many in few words. */
  o.where = (finding) => {
    const parts = [];
    if (finding.layers.length) parts.push(finding.layers.length > 2 ? `${finding.layers.length} layers: ${finding.layers[0]} … ${finding.layers[finding.layers.length - 1]}` : finding.layers.join(", "));
    if (finding.ranks.length) parts.push(`${finding.ranks.length > 1 ? "ranks" : "rank"} ${o.ranges(finding.ranks)}`);
    const named = /^optimizer:(.*)/.exec(finding.scope || "");
    if (named) parts.push(`optimizer ${named[1]}`);
    return parts.join("; ") || "whole run";
  };

  /** [0, 1, 2, 5] -> "0–2, 5" */
  o.ranges = (numbers) => {
    const sorted = [...numbers].sort((a, b) => a - b), runs = [];
    for (const n of sorted) {
      const last = runs[runs.length - 1];
      if (last && n === last[1] + 1) last[1] = n; else runs.push([n, n]);
    }
    return runs.map(([a, b]) => (a === b ? String(a) : `${a}–${b}`)).join(", ");
  };
})((window.otoscope = window.otoscope || {}));
