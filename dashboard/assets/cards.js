// The verdict, the finding cards in the words of the rules, and what was judged.
(function (o) {
  "use strict";
  const DONE = ["rollback", "stop", "inspect", "shuffle", "remove_softmax", "distributed_sampler", "params", "optimizer"]; // orders, not values
  const FEW = 3; // checks not judged that are told unasked
  const LONG = 8; // lines of a snippet that are shown unasked
  const STATES = {
    needs_action: { word: "Needs action", icon: "critical" },
    healthy: { word: "Healthy so far", over: "Healthy", icon: "check" },
    not_judged: { word: "Not judged yet", over: "Not judged", icon: "unknown" },
  };

  o.verdict = function (model) {
    const state = STATES[model.state] || STATES.not_judged, over = model.words(state.word, state.over || state.word);
    // the sentence begins with the state's own words ("Nothing new" where findings were put
    // aside); they are not said twice
    const spoken = String(model.verdict || "").trim().replace(/ in run ([\w.-]+)/g, (_, run) => ` in run ${o.shortRun(run)}`);
    const opening = spoken.match(new RegExp(`^(${state.word}|Healthy|Not judged yet|Not judged|Nothing new)\\s*[:.]?\\s*`, "i"));
    const word = opening ? opening[1] : over;
    const rest = opening ? spoken.slice(opening[0].length) : spoken;
    if (model.state === "healthy" && model.run.status === "failed") {
      // an error ended it: green would hide that, and no rule of ours looks for the error's cause
      return o.h("div", { class: "verdict failed" }, o.icon("critical"), o.h("strong", {}, "Failed"),
        o.h("span", {}, "with the error above; no fault was found before it ", o.rich(rest)));
    }
    const worst = model.state === "needs_action" && !model.marked().some((f) => f.severity === "critical") ? "warning" : null;
    const at = (rest.match(/^\(step [^)]*\)/) || [""])[0]; // belongs to the state: no sentence begins with a bracket
    return o.h("div", { class: `verdict ${model.state || "not_judged"} ${worst || ""}` },
      o.icon(worst || state.icon), o.h("strong", {}, at ? `${word} ${at}` : word),
      o.h("span", {}, o.rich(rest.slice(at.length).replace(/^\s*:\s*/, ""))));
  };

  o.severity = (name) => o.h("span", { class: `badge ${name}` }, o.icon(name), name);

  /** One finding as a card. `act(kind, finding, body)` sends what a person decided. */
  o.findingCard = function (finding, place, model, act) {
    const told = model.told(finding);
    const aside = Boolean(told) || finding.state === "resolved";
    const card = o.h("section", { class: `card finding ${finding.severity}${aside ? " aside" : ""}`, id: `finding-${place.index}`, tabindex: -1, "data-rule": finding.rule },
      o.h("div", { class: "row tight" }, o.severity(finding.severity),
        o.h("span", { class: "dim" }, when(finding)), o.h("span", { class: "space" }),
        o.h("span", { class: "dim" }, `finding ${place.index + 1} of ${place.count}`)),
      o.h("h2", {}, o.rich(finding.title)),
      said(aside, o.argument(finding)),
      caused(finding, model),
      told ? o.h("p", { class: "told" }, o.icon("check"), told) : null,
      o.outcome(finding),
      o.h("div", { class: "row tight buttons" },
        o.h("button", { class: "button accent", onclick: () => model.showOnCharts(finding) }, "Show on charts"),
        o.answers(finding, model, act),
        o.h("a", { class: "more", href: o.findingLink(model.id, finding.id) }, "Evidence and charts")));
    return card;
  };

  /** The argument of a finding: what was seen, what to set, why, what speaks against it. */
  o.argument = function (finding) {
    const advice = finding.recommendation;
    return o.h("dl", { class: "said" }, [
      part("Seen", seen(finding)),
      advice ? part(DONE.includes(advice.parameter) ? "Do" : "Set", setting(advice, finding)) : null,
      advice ? advice.alternatives.map((other) => part("Or", setting(other, finding))) : null,
      finding.why ? part("Why", o.rich(finding.why)) : null,
      advice ? part(advice.also.some((other) => other.parameter === "rollback") ? "First" : "And", first(advice, finding)) : null,
      finding.may_be_normal ? part("May be normal", o.rich(finding.may_be_normal)) : null,
      advice && advice.verify ? part("Verify", o.rich(advice.verify)) : null,
      advice && advice.risk ? part("Risk", o.rich(advice.risk)) : null,
      finding.not_measured.length ? part("Not measured", o.rich(finding.not_measured.join("; "))) : null,
    ].flat());
  };

  /** What was put aside or is over shows its argument on request. */
  function said(aside, list) {
    return aside ? o.h("details", {}, o.h("summary", {}, "What was said"), list) : list;
  }

  o.when = when;
  function when(finding) {
    if (finding.state === "resolved") return `steps ${o.step(finding.first_step)} to ${o.step(finding.last_step)}, resolved`;
    return `since step ${o.step(finding.first_step)}${finding.stale ? ", no newer data" : ""}`;
  }

  function part(name, content) {
    const filled = Array.isArray(content) ? content.filter((item) => item !== null) : content;
    if (!filled || (Array.isArray(filled) && !filled.length)) return [];
    return [o.h("dt", {}, name), o.h("dd", {}, filled)];
  }

  function seen(finding) {
    const lines = finding.because.map((item) => item.text);
    if (lines.length === 1) return o.rich(lines[0]);
    return o.h("ul", {}, lines.map((line) => o.h("li", {}, o.rich(line))));
  }

  /** `snippet` is code to paste; where there is none the setting itself is. */
  function setting(advice, finding) {
    const text = o.proposal(advice.parameter, advice.proposed, finding);
    const notes = [];
    if (advice.current !== null && advice.current !== undefined) notes.push(`was ${o.brief(advice.current)}`);
    if (advice.range) notes.push(`${o.number(advice.range[0])}–${o.number(advice.range[1])}`);
    if (advice.basis) notes.push(advice.basis);
    const lines = (advice.snippet || "").trim().split("\n").length;
    const pre = advice.snippet && advice.snippet !== text ? o.h("pre", { class: "snippet", tabindex: 0 }, advice.snippet) : null;
    const code = pre && lines > LONG ? o.h("details", {}, o.h("summary", {}, `The ${lines} lines to paste`), pre) : pre;
    const copy = o.h("button", { class: "button accent small", "aria-label": `Copy ${text}` }, "Copy");
    copy.addEventListener("click", () => o.copy(advice.snippet || text, copy));
    return [
      o.h("code", { class: "set" }, text),
      o.h("div", { class: "row tight basis" }, o.h("span", { class: "dim" }, notes.join(" · ")), copy),
      advice.formula ? o.h("div", { class: "dim how" }, "How: ", o.rich(advice.formula)) : null,
      code,
      advice.effect ? o.h("div", { class: "dim" }, o.rich(advice.effect)) : null,
    ];
  }

  function first(advice, finding) {
    return (advice.also || []).map((other) => {
      const text = o.proposal(other.parameter, other.proposed, finding);
      if (DONE.includes(other.parameter)) return o.h("div", {}, `${text}.`);
      return o.h("div", {}, "Together with ", o.h("code", {}, text));
    });
  }

  function caused(finding, model) {
    const chips = finding.caused.map((id) => {
      const other = model.findings.find((item) => item.id === id);
      const words = other ? other.title : o.words(id.split(":")[0]);
      return o.h("a", { class: "chip", href: o.findingLink(model.id, id) }, o.rich(words));
    });
    return chips.length ? o.h("div", { class: "caused" }, o.h("span", { class: "dim" }, "Caused by it"), chips) : null;
  }

  /** The buttons by which a person answers a finding. */
  o.answers = function (finding, model, act) {
    const over = finding.state === "resolved", until = model.run.step + Math.max(500, Math.round(model.run.step / 5));
    return [
      o.h("button", { class: "button", onclick: () => act("normal", finding, {}) }, "This is normal"),
      // a run that ended reaches no later step
      model.ended() || over ? null : o.h("button", { class: "button", title: `Until step ${o.step(until)}`, onclick: () => act("snoozed", finding, { until_step: until }) }, "Snooze"),
      over ? null : o.h("button", { class: "button", onclick: () => act("acknowledged", finding, {}) }, "Acknowledge"),
      model.page === "findings" && finding.state === "firing" ? o.h("button", { class: "button", title: "It is settled: call it resolved", onclick: () => act("closed", finding, {}) }, "Close") : null,
    ];
  };

  /** A value that a setting had or has, in few words; of few layers that have a word each as a person says it. */
  function held(value) {
    if (value === null || value === undefined) return "none";
    const parts = typeof value === "object" && !Array.isArray(value) ? Object.entries(value) : [];
    const plain = parts.length > 0 && parts.length < 3 && parts.every(([, word]) => typeof word === "string");
    return plain ? parts.map(([layer, word]) => `${word} in ${layer}`).join(", ") : o.brief(value);
  }

  /** What became of a finding after a setting was changed. */
  o.outcome = function (finding) {
    const change = finding.followed, known = finding.gone_by_itself;
    if (!finding.outcome && !change) return null;
    const what = change ? `: ${change.parameter} ${held(change.from)} → ${held(change.to)} ` : "";
    const where = !change ? null : change.run ? ["in run ", o.h("a", { href: `${o.prefix()}run/${encodeURIComponent(change.run)}`, title: change.run }, o.shortRun(change.run))] : `at step ${o.step(change.step)}`;
    const rate = known ? `A finding of this rule went away by itself in ${known.gone} of ${known.runs} untouched runs.` : "It is not known how often it goes away by itself.";
    return o.h("p", { class: "outcome" }, o.h("strong", { class: String(finding.outcome || "").replace(" ", "-") }, finding.outcome ? o.capital(finding.outcome) : "Being followed"),
      what, where, ". ", finding.outcome ? o.h("span", { class: "dim" }, rate) : null);
  };

  /** Where a finding stands on the Findings page. */
  o.findingLink = (run, finding) => `${o.prefix()}run/${encodeURIComponent(run)}/findings${finding ? `?finding=${encodeURIComponent(finding)}` : ""}`;

  /** A run's identifier without the part that makes it the only one. */
  o.shortRun = (run) => run.replace(/-[0-9a-hjkmnp-tv-z]{26}$/, "") || run;

  /** The share of a run's time that Otoscope cost; NaN in its first two seconds, which are the beginning's. */
  o.cost = function (run) {
    const { share, seconds } = run.overhead || {};
    return share > 0 && !(seconds / share < 2) ? share : NaN;
  };

  /** The findings that a run answers, by what was changed for them: one change may answer several. */
  function changes(answers) {
    const found = new Map();
    for (const told of answers) {
      const key = JSON.stringify([told.run, told.parameter, told.from, told.to]);
      found.set(key, [...(found.get(key) || []), told]);
    }
    return [...found.values()];
  }

  function answered(all) {
    const { run, parameter, from, to } = all[0];
    const became = (told) => o.h("li", {}, o.h("a", { href: o.findingLink(told.run, told.finding) }, o.rich(told.title)), `: ${told.outcome || "being followed"}`);
    return o.h("div", { class: "answered" },
      o.h("p", {}, "Answers ", o.h("a", { href: o.findingLink(run), title: run }, o.shortRun(run)), ` with ${parameter} ${held(from)} → ${held(to)}. What became of what was found there:`),
      o.h("ul", {}, all.map(became)));
  }

  /** What was judged, what was not and why, and what Otoscope itself costs. */
  o.judgedCard = function (model) {
    const share = o.cost(model.run);
    const missing = Object.entries(model.notJudged || {});
    return o.h("section", { class: "card judged" },
      o.h("div", { class: "row tight" }, o.h("h2", {}, "Judged"), o.h("span", { class: "space" }),
        o.h("span", { class: "dim" }, share > 0 ? `${model.words("costs", "cost")} ${o.percent(share)} of this run` : model.words("what it costs is not known yet", "too short to tell what it cost"))),
      o.h("p", { class: "dim" }, model.judged.length
        ? `${o.many(model.judged.length, "check")} judged: ${model.judged.map(o.rule).join(", ")}.` : model.words("Nothing could be judged yet.", "Nothing could be judged.")),
      changes(model.answers || []).map(answered),
      missing.length > FEW ? o.h("details", {}, o.h("summary", {}, `${missing.length} not judged, and why`),
        o.h("ul", { class: "missing" }, missing.map(([rule, why]) => o.h("li", {}, o.h("strong", {}, o.rule(rule)), `: ${why}`)))) : null,
      missing.length && missing.length <= FEW ? o.h("p", {}, "Not judged: ", missing.map(([rule, why]) => `${o.rule(rule)} (${why})`).join(" · ")) : null);
  };
})((window.otoscope = window.otoscope || {}));
