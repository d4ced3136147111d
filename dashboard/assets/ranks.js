// The ranks of a distributed run: who trains, who is lost, and who is waited for.
(function (o) {
  "use strict";
  const STATES = { live: "live", stale: "stale", lost: "lost", left: "ended", unheard: "not heard of" };
  const seconds = (value) => (Number.isFinite(value) ? `${o.number(1000 * value, 3)} ms` : "–");

  /** One line for the head of the page, null where every rank is well. */
  o.lostRanks = function (run) {
    const lost = run.lost_ranks || [];
    if (!lost.length) return null;
    const which = lost.length > 8 ? `${lost.length} of ${run.world_size} ranks` : `${lost.length > 1 ? "Ranks" : "Rank"} ${lost.join(", ")}`;
    const many = lost.length > 1;
    const what = ["finished", "failed"].includes(run.status) ? "never told of an end" : "fell silent, and the others are judged on";
    return `${which} ${many ? "are" : "is"} lost: ${many ? "they" : "it"} ${what}`;
  };

  o.ranksCard = function (run) {
    const rows = run.ranks || [];
    if (!rows.length) return null;
    const slow = rows.find((row) => row.slowest);
    const head = ["Rank", "State", "Last heard", "Step", "A step takes", "Waits for others"].map((name) => o.h("th", { scope: "col" }, name));
    return o.h("section", { class: "card", "aria-labelledby": "ranks-title" },
      o.h("h2", { id: "ranks-title" }, "Ranks"),
      slow ? o.h("p", {}, `The others wait for rank ${slow.rank}: it waits least.`) : null,
      o.h("div", { class: "scroll" }, o.h("table", { class: "runs ranks" },
        o.h("thead", {}, o.h("tr", {}, head)),
        o.h("tbody", {}, rows.map((row) => o.h("tr", {},
          o.h("th", { scope: "row" }, String(row.rank)),
          cell("State", o.h("span", { class: `badge status ${row.state === "left" ? "finished" : row.state === "unheard" ? "stale" : row.state}` }, STATES[row.state])),
          cell("Last heard", Number.isFinite(row.age_seconds) ? `${o.age(row.age_seconds)} ago` : "never"),
          cell("Step", Number.isFinite(row.step) ? o.step(row.step) : "–"),
          cell("A step takes", seconds(row.step_seconds)),
          cell("Waits for others", seconds(row.wait_seconds))))))),
      rows.length < run.world_size ? o.h("p", { class: "dim" }, `${rows.length} of ${run.world_size} ranks shown, those that do not train first.`) : null);
  };

  const cell = (name, ...content) => o.h("td", { "data-name": name }, content);
})((window.otoscope = window.otoscope || {}));
