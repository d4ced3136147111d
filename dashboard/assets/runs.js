// The Runs page: one row a run, sorted, searched, renamed, closed and deleted.
(function (o) {
  "use strict";
  const FIRST = 200; // rows drawn at once; the rest on request
  const PASTE = "from otoscope.callbacks import Otoscope\ntrainer = Trainer(callbacks=[Otoscope()])";
  const COLUMNS = [
    { key: "name", name: "Run", of: (run) => run.name.toLowerCase() },
    { key: "status", name: "Status", of: (run) => ["live", "stale", "lost", "failed", "finished"].indexOf(run.status) },
    { key: "findings", name: "Findings", of: (run) => -(run.open.critical * 1e6 + run.open.warning * 1e3 + run.open.info) },
    { key: "step", name: "Step", of: (run) => -run.step },
    { key: "loss", name: "Loss", of: (run) => o.toNumber(run.loss_last) },
    { key: "best", name: "Best", of: (run) => o.toNumber(run.loss_best) },
    { key: "obstacles", name: "Obstacles", of: (run) => -o.largestObstacle(run.obstacles) },
    { key: "ranks", name: "Ranks", of: (run) => -run.world_size },
    { key: "started", name: "Started", of: (run) => -run.started },
    { key: "seen", name: "Last seen", of: (run) => run.age_seconds },
  ];

  o.startRuns = function () {
    const state = { runs: null, sort: "seen", reverse: false, search: "", status: "all", shown: FIRST, leftOut: 0 };
    const live = (o.live = new o.Live(async () => {
      const answer = await o.ask("api/runs");
      state.runs = answer.runs;
      state.leftOut = answer.left_out;
      draw();
    }, (error) => {
      document.body.classList.toggle("away", Boolean(error));
      o.notice(error ? `${error.message}. Trying again.` : live.paused ? "Paused. Press p to go on." : "");
    }));
    drawTools(state, draw);
    live.now();

    function draw() {
      const list = o.byId("runs-list");
      if (!state.runs.length) {
        o.byId("runs-tools").hidden = true;
        o.fill(list, "empty", emptyState);
        return;
      }
      o.byId("runs-tools").hidden = false;
      const rows = chosen(state);
      o.fill(list, [rows.map((run) => ({ ...run, age_seconds: o.age(run.age_seconds) })), state], () => [
        rows.length ? table(rows, state, draw, live) : o.h("p", { class: "dim" }, "No run matches."),
        rows.length > state.shown ? o.h("button", { class: "button", onclick: () => { state.shown += 1000; draw(); } }, `Show ${o.step(rows.length - state.shown)} more`) : null,
        state.leftOut ? o.h("p", { class: "dim" }, `${o.step(state.leftOut)} older runs are not listed.`) : null,
      ]);
    }
  };

  function chosen(state) {
    const words = state.search.toLowerCase().split(/\s+/).filter(Boolean);
    const column = COLUMNS.find((item) => item.key === state.sort);
    const sign = state.reverse ? -1 : 1;
    const order = (run) => { const v = column.of(run); return Number.isNaN(v) ? Infinity : v; };
    return state.runs
      .filter((run) => state.status === "all" || run.status === state.status)
      .filter((run) => {
        const text = [run.name, run.id, run.notes, run.status, ...run.tags].join(" ").toLowerCase();
        return words.every((word) => text.includes(word));
      })
      .sort((a, b) => { const x = order(a), y = order(b); return sign * (x < y ? -1 : x > y ? 1 : 0); });
  }

  function emptyState() {
    const copy = o.h("button", { class: "button accent" }, "Copy");
    copy.addEventListener("click", () => o.copy(PASTE, copy));
    return o.h("section", { class: "card empty" },
      o.h("h2", {}, "No run yet"),
      o.h("p", {}, "Add these two lines to a training script; its run shows up here while it trains."),
      o.h("pre", { tabindex: 0 }, PASTE), copy);
  }

  function drawTools(state, draw) {
    const search = o.h("input", { type: "search", id: "search", class: "input", placeholder: "Search name, tag, note", "aria-label": "Search runs", "aria-keyshortcuts": "/" });
    search.addEventListener("input", () => { state.search = search.value; if (state.runs) draw(); });
    const status = o.h("select", { class: "input", "aria-label": "Status" },
      ["all", "live", "stale", "lost", "finished", "failed"].map((name) => o.h("option", { value: name }, name === "all" ? "Any status" : o.capital(name))));
    status.addEventListener("change", () => { state.status = status.value; draw(); });
    o.byId("runs-tools").replaceChildren(search, status);
  }

  function table(rows, state, draw, live) {
    const head = COLUMNS.map((column) => {
      const sorted = column.key === state.sort;
      return o.h("th", { scope: "col", "aria-sort": sorted ? (state.reverse ? "descending" : "ascending") : null },
        o.h("button", { class: "plain", onclick: () => {
          state.reverse = sorted ? !state.reverse : false;
          state.sort = column.key;
          draw();
        } }, column.name, sorted ? (state.reverse ? " ↑" : " ↓") : ""));
    });
    return o.h("div", { class: "card scroll" }, o.h("table", { class: "runs" },
      o.h("thead", {}, o.h("tr", {}, head, o.h("th", { scope: "col" }, o.h("span", { class: "offscreen" }, "Edit")))),
      o.h("tbody", {}, rows.slice(0, state.shown).map((run) => row(run, live)))));
  }

  function row(run, live) {
    const link = o.h("a", { href: `${o.prefix()}run/${encodeURIComponent(run.id)}` }, run.name);
    const open = ["critical", "warning", "info"].filter((name) => run.open[name] > 0);
    const edit = o.h("button", { class: "button small", "aria-label": `Edit ${run.name}` }, "Edit");
    edit.addEventListener("click", () => o.editRun(run, () => live.now()));
    return o.h("tr", { class: run.status },
      o.h("th", { scope: "row" }, link, run.tags.map((tag) => o.h("span", { class: "chip" }, tag)),
        run.notes ? o.h("div", { class: "dim note" }, run.notes) : null),
      cell("Status", o.status(run.status)),
      cell("Findings", open.length ? open.map((name) => o.h("a", { class: `badge ${name}`, href: `${o.prefix()}run/${encodeURIComponent(run.id)}/findings?severity=${name}` }, o.icon(name), `${run.open[name]} ${name}`)) : o.h("span", { class: "dim" }, "none")),
      cell("Step", o.step(run.step) + (run.max_steps > 0 ? ` of ${o.step(run.max_steps)}` : "")),
      cell("Loss", o.spark(run.spark || [], `Loss of ${run.name} from the first step to the last`), " ", o.number(run.loss_last)),
      cell("Best", o.number(run.loss_best)),
      cell("Obstacles", o.obstacleBars(run.obstacles)),
      cell("Ranks", o.step(run.world_size), " ", run.lost_ranks.length ? o.h("span", { class: "badge warning" }, o.icon("warning"), `${run.lost_ranks.length} lost`) : null),
      cell("Started", o.moment(run.started)),
      cell("Last seen", `${o.age(run.age_seconds)} ago`),
      o.h("td", {}, edit));
  }

  // on a phone a row becomes a card, whose cells carry the names of their columns
  const cell = (name, ...content) => o.h("td", { "data-name": name }, content);
})((window.otoscope = window.otoscope || {}));
