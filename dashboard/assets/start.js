// Which page this is, the keys, and the start once the layout is there.
(function (o) {
  "use strict";
  const KEYS = [["/", "search or filter"], ["p", "pause and go on"], ["t", "light, dark, as the system"],
    ["[  ]", "previous and next finding"], ["f", "follow: leave the zoom"], ["?", "this help"]];

  function start() {
    const path = location.pathname.slice(o.prefix().length);
    const run = /^run\/([^/]+)(?:\/(findings|curvature|noise))?\/?$/.exec(path);
    o.readAddress();
    o.byId("help").addEventListener("click", showHelp);
    document.addEventListener("keydown", onKey);
    if (run) {
      document.body.dataset.page = "run";
      o.byId("crumbs").replaceChildren(o.h("a", { href: o.prefix() }, "Runs"), o.h("span", { class: "dim" }, "/ run"));
      o.startRun(decodeURIComponent(run[1]), run[2] || "run");
    } else if (path === "") {
      document.body.dataset.page = "runs";
      o.startRuns();
    } else {
      document.body.dataset.page = "run";
      o.byId("run-page").replaceChildren(o.h("section", { class: "card empty" },
        o.h("h1", {}, "No such page"), o.h("p", {}, o.h("a", { href: o.prefix() }, "All runs"))));
    }
  }

  function onKey(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (/^(INPUT|TEXTAREA|SELECT)$/.test(event.target.tagName) && event.target.type !== "radio") return;
    const action = {
      "/": () => (o.byId("search") || o.byId("filter")).focus(),
      p: () => o.byId("pause") && !o.byId("pause").hidden && o.byId("pause").click(),
      t: () => o.setControl("theme", { auto: "light", light: "dark", dark: "auto" }[o.settings.theme]),
      f: () => o.setRange(null),
      "[": () => toFinding(-1),
      "]": () => toFinding(1),
      "?": showHelp,
    }[event.key];
    if (!action || document.querySelector("dialog[open]")) return;
    event.preventDefault();
    action();
  }

  let at = -1;
  function toFinding(move) {
    if (document.body.dataset.view === "findings") return toRow(move);
    const cards = [...document.querySelectorAll(".finding")];
    if (!cards.length) return;
    at = (at + move + cards.length) % cards.length;
    cards[at].scrollIntoView({ behavior: "smooth", block: "center" });
    cards[at].focus({ preventScroll: true });
  }

  /** On the Findings page the one before or behind the open one is folded out. */
  function toRow(move) {
    const rows = [...document.querySelectorAll(".finding-row")];
    const open = rows.findIndex((row) => row.classList.contains("open"));
    const next = open < 0 ? (move > 0 ? 0 : rows.length - 1) : (open + move + rows.length) % rows.length;
    if (next === open || !rows.length) return;
    const id = rows[next].dataset.finding;
    rows[next].querySelector(".title").click();
    const found = document.querySelector(".finding-row.open");
    if (found && found.dataset.finding === id) found.scrollIntoView({ block: "nearest" });
  }

  function showHelp() {
    if (document.querySelector("dialog[open]")) return;
    o.dialog("Keys", [
      o.h("dl", { class: "keys" }, KEYS.flatMap(([key, words]) => [o.h("dt", {}, o.h("kbd", {}, key)), o.h("dd", {}, words)])),
      o.h("p", { class: "dim" }, "Drag over the loss to zoom, double-click to go back. Charts take the arrow keys when they have the focus."),
    ]);
  }

  // Dash mounts the layout after this file has run
  function whenMounted() {
    if (o.byId("shell") && o.byId("dialogs") && window.dash_clientside && window.dash_clientside.set_props) start();
    else requestAnimationFrame(whenMounted);
  }
  whenMounted();
})((window.otoscope = window.otoscope || {}));
