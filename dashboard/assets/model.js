// What a page holds of its run: what the deltas brought, and what the charts ask of it.
(function (o) {
  "use strict";
  const SHOWN_BY = { dead_units: "dead", saturated_activations: "saturated", vanishing_gradients: "gradient",
    exploding_gradients: "gradient", lr_too_high: "update", lr_too_low: "update", frozen_layer: "update" };

  o.RunModel = class RunModel {
    /** `page`: which page of the run it is for, `run`, `findings`, `curvature` or `noise`. */
    constructor(id, page) {
      this.id = id;
      this.page = page;
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
      const asked = new URLSearchParams({ since: this.cursor, quantity: o.settings.quantity, page: this.page });
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
      // who was killed behind writing an event writes it again, under the same id
      const known = new Set(this.events.map((event) => event.id));
      this.events.push(...answer.events.filter(({ id }) => !id || (!known.has(id) && known.add(id))));
      const judged = "findings" in answer;
      if (judged) {
        const had = new Map(this.findings.map((finding) => [finding.id, finding]));
        // one that did not change is named by its id alone
        answer.findings = (answer.findings || []).map((told) => (typeof told === "string" ? had.get(told) : told));
        if (answer.findings.includes(undefined)) { this.cursor = ""; answer.findings = answer.findings.filter(Boolean); }
        Object.assign(this, { state: answer.state, verdict: answer.verdict, obstacles: answer.obstacles || {},
          findings: answer.findings, judged: answer.judged || [], notJudged: answer.not_judged || {}, answers: answer.answers || [] });
      }
      return { judged: judged || answer.events.length > 0 || answer.reset, data: answer.reset || Object.keys(answer.series).length > 0 };
    }

    /** Words of what is yet to come; of a run that is over those of what came of it. */
    words(now, then) { return this.ended() ? then : now; }

    ended() { return Boolean(this.run) && ["finished", "failed"].includes(this.run.status); }

    started() { return this.run ? this.run.started : 0; }

    /**
     * Findings that no other one caused, or whose cause is over: those that wait for an answer, those
     * put aside, those that are over.
     */
    roots() {
      const firing = new Set(this.findings.filter((finding) => finding.state === "firing").map((finding) => finding.id));
      const caused = new Set(this.findings.flatMap((finding) => finding.caused.filter((id) => firing.has(finding.id) || finding.closed || !firing.has(id))));
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
        ["acknowledged", "snoozed", "normal", "closed"].includes(event.kind)).pop();
      const snoozed = (until) => (until > this.run.step ? `Snoozed until step ${o.step(until)}` : "");
      if (last && last.kind === "normal") return "Marked as normal"; // what was decided last counts
      if (finding.closed || (last && last.kind === "closed")) return "Closed by hand";
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

    /** Why there is no sample of a family, in words; `what` names the quantity. */
    absence(family, what) {
      const off = this.events.filter((event) => event.kind === "probe_off" && event.attempt === this.run.attempt &&
        String(event.body.probe).toLowerCase() === family).pop();
      if (off) return `${o.capital(what)} cannot be measured in this run: ${off.body.why}.`;
      const on = this.run.probes || [];
      if (on.length && !on.includes(family)) {
        return `${o.capital(what)} is not measured: the ${family} probe is not among those of this run (${on.join(", ")}); probes="all" adds it.`;
      }
      if (this.ended()) return `This run ended before a sample of ${what} was due. A longer run or a larger budget brings one.`;
      const budget = Number.isFinite(this.run.budget) ? ` of ${o.percent(this.run.budget)}` : "";
      return `Not measured yet: the first sample of ${what} comes as soon as the budget${budget} pays for it.`;
    }
  };

  /** What an empty chart says: `words`, or the first of two while the run trains, the second once it is over. */
  o.emptyWords = (model, words) => (Array.isArray(words) ? model.words(...words) : words || model.words("No sample yet.", "Never sampled."));
})((window.otoscope = window.otoscope || {}));
