// The Run page: holds what the deltas brought, and tells every part when it changed.
(function (o) {
  "use strict";

  const SHOWN_BY = { dead_units: "dead", saturated_activations: "saturated", vanishing_gradients: "gradient",
    exploding_gradients: "gradient", lr_too_high: "update", lr_too_low: "update", frozen_layer: "update" };

  const BEHIND = 1000; // samples: fewer wait for the next write of an ordinary run

  class RunModel {
    constructor(id) {
      this.id = id;
      this.cursor = "";
      this.epoch = 0; // counts the answers that replaced everything
      this.run = null;
      this.tables = {};
      this.events = [];
      this.findings = [];
      this.judged = [];
      this.notJudged = {};
      this.worst = {}; // the layers with the largest dead and saturated share
      this.views = [];
    }

    async pull() {
      const asked = new URLSearchParams({ since: this.cursor, quantity: o.settings.quantity });
      const quantity = o.settings.quantity;
      const answer = await o.ask(`api/runs/${encodeURIComponent(this.id)}/delta?${asked}`);
      if (quantity !== o.settings.quantity) return this.pull(); // the question changed meanwhile
      return this.take(answer);
    }

    /** Take an answer in; returns what changed. */
    take(answer) {
      if (answer.reset) { this.tables = {}; this.events = []; this.epoch += 1; }
      this.cursor = answer.cursor;
      this.run = answer.run;
      this.worst = answer.worst || this.worst;
      for (const [family, part] of Object.entries(answer.series)) {
        if (this.tables[family]) this.tables[family].add(part);
        else this.tables[family] = new o.Table(part);
        if (this.tables[family].full) this.cursor = "";
      }
      // progress is told once in a while: a run that was killed has often trained further than it told
      const trained = this.tables.train && this.tables.train.steps;
      if (trained && trained.length) this.run.step = Math.max(this.run.step, trained[trained.length - 1]);
      this.events.push(...answer.events);
      const judged = "findings" in answer;
      if (judged) {
        Object.assign(this, { state: answer.state, verdict: answer.verdict, obstacles: answer.obstacles || {},
          findings: answer.findings || [], judged: answer.judged || [], notJudged: answer.not_judged || {} });
      }
      return { judged: judged || answer.events.length > 0 || answer.reset, data: answer.reset || Object.keys(answer.series).length > 0 };
    }

    ended() { return Boolean(this.run) && ["finished", "failed"].includes(this.run.status); }

    started() { return this.run ? this.run.started : 0; }

    /** Findings that no other one caused: those that wait for an answer, those put aside, those that are over. */
    roots() {
      const caused = new Set(this.findings.flatMap((finding) => finding.caused));
      const place = (f) => (f.state !== "firing" ? 2 : this.told(f) ? 1 : 0);
      return this.findings.filter((finding) => !caused.has(finding.id)).sort((a, b) => place(a) - place(b));
    }

    /** Findings whose steps the charts mark. */
    marked() { return this.roots().filter((f) => f.state === "firing" && !this.told(f)); }

    /** Layers that a marked finding or one that it caused is about. */
    layersInTrouble() {
      const ids = new Set(this.marked().flatMap((f) => [f.id, ...f.caused]));
      return new Set(this.findings.filter((f) => ids.has(f.id)).flatMap((f) => f.layers));
    }

    /** What a person decided about a finding, until the judgement itself says so. */
    told(finding) {
      const last = this.events.filter((event) => event.body && event.body.finding === finding.id &&
        ["acknowledged", "snoozed", "normal"].includes(event.kind)).pop();
      const snoozed = (until) => (until > this.run.step ? `Snoozed until step ${o.step(until)}` : "");
      if (last && last.kind === "normal") return "Marked as normal"; // what was decided last counts
      if (last && last.kind === "acknowledged") return "Acknowledged";
      const until = snoozed(finding.snoozed_until_step) || (last ? snoozed(last.body.until_step) : "");
      if (until) return until;
      if (finding.acknowledged) return "Acknowledged";
      return "";
    }

    /** First and last row inside the chosen range. */
    window(table) {
      const end = table.steps.length - 1;
      if (!o.settings.range) return [0, end];
      const [from, to] = o.settings.range;
      let first = table.steps.findIndex((step) => step >= from);
      let last = end;
      while (last > 0 && table.steps[last] > to) last--;
      if (first < 0 || last <= first) { first = 0; last = end; }
      return [first, last];
    }

    /** The horizontal ends of every chart: those of the steps trained, so that all charts line up. */
    span(table) {
      const shown = this.tables.train && this.tables.train.steps.length ? this.tables.train : table;
      const [first, last] = this.window(shown);
      const { values } = o.horizontal(shown, this);
      return [values[first], Math.max(values[last], values[first] + 1)];
    }

    /** The horizontal value of a step. */
    place(table, xs, step) {
      return o.settings.x === "step" ? step : xs[o.nearest(table.steps, step)];
    }

    /** Show one cursor in every chart. */
    point(value) { for (const view of this.views) view.point(value); }

    showOnCharts(finding) {
      if (SHOWN_BY[finding.rule]) o.setControl("quantity", SHOWN_BY[finding.rule]);
      const back = Math.max(50, Math.round((finding.last_step - finding.first_step) / 2));
      o.setRange([Math.max(0, finding.first_step - back), finding.last_step + back]);
      o.byId("loss-card").scrollIntoView({ behavior: "smooth", block: "center" });
    }
  }

  o.startRun = function (id) {
    const model = (o.model = new RunModel(id));
    const layers = new o.Layers(model);
    const loss = new o.LossChart(o.byId("loss"), model);
    const heatmap = new o.Heatmap(o.byId("heatmap"), model, layers);
    const strips = new o.Strips(o.byId("strips"), model, layers);
    model.views = [loss, heatmap, strips];
    const live = new o.Live(async () => show(await model.pull()), (error) => notice(error));
    o.live = live;

    function show(changed) {
      drawHead(model);
      drawJudgement(); // a card that was in use at the last answer is still to be drawn
      if (changed.judged) redrawMarks();
      if (!changed.data) return;
      o.redraw(loss.canvas);
      heatmap.update();
      strips.update();
      drawNumbers();
    }

    function drawNumbers() {
      o.byId("stats").replaceChildren(...o.statCards(model));
      o.byId("loss-note").textContent = [Number(o.settings.smoothing) > 0 ? "smoothed over raw" : "",
        model.tables.validation ? "validation in green" : ""].filter(Boolean).join(", ");
      o.byId("heatmap-note").textContent = layers.quantity.title +
        (o.settings.colour === "absolute" ? "" : " against each layer's own past");
      o.byId("strips-note").textContent = layers.quantity.title + ", the most unusual first";
    }

    function drawJudgement() {
      const roots = model.roots();
      o.fill(o.byId("ranks"), model.run.ranks, () => o.ranksCard(model.run));
      o.fill(o.byId("verdict"), [model.state, model.verdict, model.run.status, model.marked().map((f) => f.severity)], () => o.verdict(model));
      o.fill(o.byId("obstacles"), [model.obstacles, model.ended()], () => o.obstacleCards(model.obstacles, model.ended()));
      o.fill(o.byId("findings"), [roots, model.ended(), roots.map((f) => model.told(f))], () =>
        roots.map((finding, index) => o.findingCard(finding, { index, count: roots.length }, model, act)));
      o.fill(o.byId("judged"), [model.judged, model.notJudged, model.run.overhead], () => o.judgedCard(model));
    }

    function redrawMarks() {
      o.redraw(loss.canvas);
      heatmap.update(); // the layers' past ends where a finding begins
      strips.update();
    }

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
    o.onSetting((name) => {
      if (name === "quantity") { model.cursor = ""; live.now(); }
      if (!model.run) return;
      if (name === "filter" || name === "strip-scale") strips.update();
      o.redrawAll();
      drawNumbers();
      o.byId("follow").hidden = !o.settings.range;
    });
    live.now();
  };

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
    const follow = o.h("button", { class: "button accent small", id: "follow", hidden: !o.settings.range, onclick: () => o.setRange(null) }, "Follow");
    o.byId("loss-tools").replaceChildren(follow);
  }

  function drawHead(model) {
    const run = model.run;
    document.title = `${run.name} · Otoscope`;
    document.body.classList.toggle("stale", run.status === "stale" || run.status === "lost");
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
