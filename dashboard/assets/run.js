// A run's pages: what all of them share, and the first one, the Run page.
(function (o) {
  "use strict";
  const CARDS = 10, OVER = 4; // findings with a card; of those that are over, fewer
  const BEHIND = 1000; // samples: fewer wait for the next write of an ordinary run
  const NAMES = { run: "Run", findings: "Findings", curvature: "Curvature", noise: "Noise" };

  /** The pages of a run; each makes {views, show(changed), chosen(setting)} for its model. */
  o.pages = Object.assign(o.pages || {}, { run: runPage });

  o.startRun = function (id, page) {
    const model = (o.model = new o.RunModel(id, page));
    document.body.dataset.view = page;
    const shown = o.pages[page](model, act);
    model.views = shown.views;
    const live = (o.live = new o.Live(async () => {
      const changed = await model.pull();
      drawHead(model);
      shown.show(changed);
    }, (error) => notice(error)));

    async function act(kind, finding, body) {
      try {
        await o.ask(`api/runs/${encodeURIComponent(id)}/events`, { kind, finding: finding.id, ...body });
        await live.now();
      } catch (error) {
        notice(error);
      }
    }

    function notice(error) {
      document.body.classList.toggle("away", Boolean(error));
      if (error && error.status === 404) return unknownRun(error);
      o.notice(error ? `${error.message}. Trying again.` : live.paused ? "Paused. Press p to go on." : "");
    }

    function unknownRun(error) {
      live.paused = true;
      o.byId("run-page").replaceChildren(o.h("section", { class: "card empty" },
        o.h("h1", {}, "No such run"), o.h("p", {}, error.message), o.h("p", {}, o.h("a", { href: o.prefix() }, "All runs"))));
    }

    drawTools(live);
    drawTabs(id, page);
    o.onSetting((name) => {
      drawTabs(id, page);
      if (name === "quantity" && page === "run") { model.cursor = ""; live.now(); }
      if (!model.run) return;
      shown.chosen(name);
      o.redrawAll(name === "theme");
      o.byId("follow").hidden = !o.settings.range;
    });
    live.now();
  };

  /** The first page: what is wrong, what to do, and all of the layers. */
  function runPage(model, act) {
    const layers = new o.Layers(model);
    const loss = new o.LossChart(o.byId("loss"), model);
    const heatmap = new o.Heatmap(o.byId("heatmap"), model, layers);
    const strips = new o.Strips(o.byId("strips"), model, layers);
    const others = new o.Others(o.byId("others"), model);

    function show(changed) {
      drawJudgement(); // a card that was in use at the last answer is still to be drawn
      if (changed.judged) redrawMarks();
      if (!changed.data) return;
      o.redraw(loss.canvas);
      heatmap.update();
      strips.update();
      others.update();
      drawNumbers();
    }

    function drawNumbers() {
      o.byId("stats").replaceChildren(...o.statCards(model));
      o.byId("loss-note").textContent = [Number(o.settings.smoothing) > 0 ? "smoothed over raw" : "",
        o.validationLoss(model.tables.validation) ? "validation in green" : ""].filter(Boolean).join(", ");
      o.byId("heatmap-note").textContent = layers.quantity.title +
        (o.settings.colour === "absolute" ? "" : " against each layer's own past");
      o.byId("strips-note").textContent = layers.quantity.title + ", the most unusual first";
    }

    function drawJudgement() {
      const roots = model.roots();
      o.fill(o.byId("ranks"), model.run.ranks, () => o.ranksCard(model.run));
      o.fill(o.byId("verdict"), [model.state, model.verdict, model.run.status, model.marked().map((f) => f.severity)], () => o.verdict(model));
      o.fill(o.byId("obstacles"), [model.obstacles, model.ended()], () => o.obstacleCards(model.obstacles, model.ended()));
      const shown = roots.filter((finding, i) => i < (finding.state === "firing" ? CARDS : OVER)), rest = roots.length - shown.length;
      o.fill(o.byId("findings"), [shown, rest, model.ended(), shown.map((f) => model.told(f))], () => [
        shown.map((finding, index) => o.findingCard(finding, { index, count: roots.length }, model, act)),
        rest ? o.h("p", {}, o.h("a", { href: o.findingLink(model.id, "") }, `${o.many(rest, "further finding")} on the Findings page`)) : null]);
      o.fill(o.byId("judged"), [model.judged, model.notJudged, model.run.overhead, model.answers], () => o.judgedCard(model));
    }

    function redrawMarks() {
      o.redraw(loss.canvas);
      heatmap.update(); // the layers' past ends where a finding begins
      strips.update();
    }

    function chosen(name) {
      if (name === "filter" || name === "strip-scale") strips.update();
      if (name === "others") others.update();
      drawNumbers();
    }

    return { views: [loss, heatmap, strips, others], show, chosen };
  }

  /** Links to the other pages of the run, with what was chosen on this one. */
  function drawTabs(id, page) {
    const base = `${o.prefix()}run/${encodeURIComponent(id)}`;
    o.fill(o.byId("run-tabs"), [base, page, location.search], () => Object.entries(NAMES).map(([name, words]) =>
      o.h("a", { href: base + (name === "run" ? "" : `/${name}`) + location.search, "aria-current": name === page ? "page" : null }, words)));
  }

  function drawTools(live) {
    const copy = o.h("button", { class: "button" }, "Copy link");
    copy.addEventListener("click", () => o.copy(location.href, copy));
    const pause = o.h("button", { class: "button", id: "pause", "aria-pressed": "false", "aria-keyshortcuts": "p" }, "Pause");
    pause.addEventListener("click", () => {
      live.paused = !live.paused;
      pause.setAttribute("aria-pressed", String(live.paused));
      pause.textContent = live.paused ? "Go on" : "Pause";
      o.notice(live.paused ? "Paused. Press p to go on." : "");
      if (!live.paused) live.now();
    });
    o.byId("run-tools").replaceChildren(pause, copy);
    const follow = o.h("button", { class: "button accent", id: "follow", hidden: !o.settings.range, title: "Leave the zoom (f)", onclick: () => o.setRange(null) }, "Follow");
    o.byId("run-tools").prepend(follow);
  }

  function drawHead(model) {
    const run = model.run;
    document.title = `${run.name} · Otoscope`;
    document.body.classList.toggle("stale", run.status === "stale" || run.status === "lost");
    const ended = run.status === "finished" || run.status === "failed"; // nothing comes any more
    o.byId("pause").hidden = ended && !o.live.paused;
    const progress = run.step === 0 ? "no step yet" : `step ${o.step(run.step)}${run.max_steps > 0 ? ` of ${o.step(run.max_steps)}` : ""}`;
    const since = {
      live: () => `last sample ${o.age(run.age_seconds)} ago`,
      stale: () => `no data for ${o.age(run.age_seconds)}, last step ${o.step(run.step)}`,
      lost: () => `no data for ${o.age(run.age_seconds)}, last step ${o.step(run.step)}`,
      finished: () => `ended ${o.age(run.age_seconds)} ago`,
      failed: () => `failed ${o.age(run.age_seconds)} ago`,
    }[run.status]();
    const facts = [progress, o.many(run.world_size, "rank"), run.attempt > 1 ? `attempt ${run.attempt}` : null];
    const late = run.status === "stale" || run.status === "lost";
    const { stored, waiting, lost } = run.sending;
    if (stored && !lost && waiting <= BEHIND) facts.push(`all ${o.step(stored)} samples stored`);
    const trouble = [o.lostRanks(run), lost ? `${o.many(lost, "sample")} lost: neither the server nor the disk took them` : "",
      waiting > BEHIND ? `${o.many(waiting, "sample")} wait in the training process: the server is behind` : ""].filter(Boolean);
    o.fill(o.byId("run-head"), [run.name, run.id, run.status, facts, since, run.error, run.tags, trouble], () => [
      o.h("div", { class: "row tight" }, o.h("h1", {}, run.name), o.status(run.status),
        run.tags.map((tag) => o.h("span", { class: "chip" }, tag))),
      o.h("div", { class: "dim" }, facts.filter(Boolean).join(" · ") + " · ", late ? o.h("strong", { class: "late" }, since) : since,
        " · ", o.h("code", { title: "The run's id, for the command line" }, run.id)),
      run.error ? o.h("p", { class: "error" }, o.icon("critical"), o.h("code", {}, `${run.error.type}: ${run.error.message}`)) : null,
      trouble.length ? o.h("p", { class: "error" }, o.icon("warning"), o.capital(trouble.join("; ")) + ".") : null,
      run.step === 0 && run.status === "live" ? o.h("p", { class: "dim" }, "The run has begun; its first sample is on the way.") : null,
    ]);
  }

  o.status = (name) => o.h("span", { class: `badge status ${name}` }, name);

  o.notice = function (text) {
    o.fill(o.byId("notice"), text, () => (text ? o.h("div", { class: "notice" }, o.icon("warning"), text) : null));
  };
})((window.otoscope = window.otoscope || {}));
