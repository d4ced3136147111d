// The three obstacles, and the small cards of numbers.
(function (o) {
  "use strict";
  const OBSTACLES = [
    { key: "non_linearity", name: "Non-linearity", value: (v) => `${o.number(v, 2)} step${v === 1 ? "" : "s"} ahead`, share: (v) => 1 / (1 + v) },
    { key: "conditioning", name: "Conditioning", value: (v) => o.number(v, 2) === "1" ? "1 step" : `${o.number(v, 2)} steps`, share: (v) => Math.min(1, Math.log10(Math.max(1, v)) / 2) },
    // the value is 1 + B_noise/B, the steps that one noiseless step takes; shown as the wasted share
    { key: "noise", name: "Noise", value: (v) => `${o.percent(1 - 1 / v)} of a step`, share: (v) => 1 - 1 / v },
  ];

  /** How large an obstacle is: {number, part 0..1, level}; null where it was not measured. */
  function sized(found, share) {
    const number = found ? o.toNumber(found.value) : NaN;
    if (!found || !found.measured || !Number.isFinite(number)) return null;
    const part = Math.max(0.02, Math.min(1, share(number)));
    return { number, part, level: part > 0.6 ? "high" : part > 0.3 ? "middle" : "low" };
  }

  const bar = (size, title) => o.h("div", { class: `bar ${size ? size.level : "none"}`, title, "aria-hidden": "true" },
    size ? o.h("span", { style: { width: 100 * size.part + "%" } }) : null);

  /** The three obstacles as small bars, with their words for those who do not see them. */
  o.obstacleBars = function (obstacles) {
    return o.h("div", { class: "bars" }, OBSTACLES.map(({ key, name, value, share }) => {
      const size = sized((obstacles || {})[key], share);
      const words = `${name}: ${size ? value(size.number) : "not measured"}`;
      return [bar(size, words), o.h("span", { class: "offscreen" }, words + "; ")];
    }).flat());
  };

  o.obstacleCards = function (obstacles, ended) {
    return OBSTACLES.map(({ key, name, value, share }) => {
      const found = (obstacles || {})[key];
      const size = sized(found, share);
      if (!size) {
        return o.h("section", { class: "card obstacle unknown" }, o.h("h2", {}, name), o.h("span", { class: "dim" }, ended ? "Not measured" : "Not yet measured"));
      }
      return o.h("section", { class: "card obstacle" },
        o.h("div", { class: "row tight" }, o.h("h2", {}, name), o.h("span", { class: "space" }),
          o.h("span", { class: "dim" }, found.trend || "")),
        o.h("div", { class: "big" }, value(size.number)),
        bar(size, null),
        o.h("p", { class: "dim" }, o.capital(found.sentence || "")),
        found.levers && found.levers.length ? o.h("p", { class: "dim" }, `Lowered by ${found.levers.join(", ")}`) : null);
    });
  };

  o.statCards = function (model) {
    const said = (note) => (note && model.ended() ? note.replace("not measured yet", "not measured") : note) || "\u00a0";
    return facts(model).map(([name, value, note]) =>
      o.h("div", { class: "stat" }, o.h("span", { class: "dim" }, name), o.h("strong", {}, value), o.h("span", { class: "dim" }, said(note))));
  };

  function facts(model) {
    const train = model.tables.train;
    const loss = train && train.column("loss");
    const norm = train && train.column("grad_norm");
    const found = [];
    if (loss) {
      const broken = loss.length > 0 && !Number.isFinite(loss[loss.length - 1]);
      found.push(broken ? ["Loss", "not a number", `since step ${o.step(train.steps[loss.findLastIndex(Number.isFinite) + 1])}`]
        : ["Loss", o.number(o.lastFinite(o.smooth(train.steps, loss, 0.9))), slope(train.steps, loss)]);
    }
    if (norm) {
      const recent = norm.filter(Number.isFinite).slice(-200);
      found.push(["Gradient norm", o.number(o.median(recent.slice(-20))), recent.length ? `95 % under ${o.number(o.quantile(recent, 0.95))}` : "not measured yet"]);
    }
    found.push(edge(model.tables.curvature));
    found.push(worst(model));
    found.push(["Throughput", throughput(train), "samples a second"]);
    const cost = model.run.overhead && model.run.overhead.share;
    found.push(["Otoscope costs", cost > 0 ? o.percent(cost) : "–",
      Number.isFinite(model.run.budget) ? `allowed ${o.percent(model.run.budget)}` : ""]);
    return found;
  }

  /** The change of the smoothed loss over the last 100 rows, in per cent. */
  function slope(steps, loss) {
    const kept = loss.map((value, i) => [steps[i], value]).filter(([, value]) => Number.isFinite(value)).slice(-100);
    if (kept.length < 20) return "slope: too few steps";
    const half = kept.length >> 1;
    const before = o.median(kept.slice(0, half).map((row) => row[1]));
    const after = o.median(kept.slice(half).map((row) => row[1]));
    const change = (after - before) / Math.abs(before);
    const span = o.step(kept[kept.length - 1][0] - kept[0][0] + 1);
    return Number.isFinite(change) ? `${change > 0 ? "+" : ""}${o.percent(change)} in ${span} steps` : "";
  }

  function edge(table) {
    const ratio = table && table.column("edge_ratio");
    const last = ratio ? o.lastFinite(ratio) : NaN;
    if (Number.isNaN(last)) return ["Step to stable limit", "–", "not measured yet"];
    const at = table.steps[ratio.findLastIndex(Number.isFinite)];
    return ["Step to stable limit", `${o.number(last, 2)} ×`, `${last > 1 ? "beyond" : "within"} the edge, step ${o.step(at)}`];
  }

  function worst(model) {
    const shares = model.worst;
    if (!shares.dead && !shares.saturated) return ["Dead units, at most", "–", "not measured yet"];
    const saturated = shares.saturated ? `saturated at most ${o.percent(shares.saturated.value)}` : "";
    if (!shares.dead) return ["Saturated, at most", o.percent(shares.saturated.value), `in ${shares.saturated.layer}`];
    const where = shares.dead.value > 0 ? `in ${shares.dead.layer}` : "";
    return ["Dead units, at most", o.percent(shares.dead.value), [where, saturated].filter(Boolean).join(" · ")];
  }

  /** Samples of all ranks over the time that the last rows took, breaks between steps and all. */
  function throughput(train) {
    const samples = train && train.column("samples");
    if (!samples || samples.length < 3) return "–";
    const last = train.steps.length - 1, from = Math.max(0, last - 100);
    const size = o.median(samples.slice(-100)), time = (train.times[last] - train.times[from]) / (train.steps[last] - train.steps[from]);
    return time > 0 && size > 0 ? o.number(size / time, 3) : "–";
  }
})((window.otoscope = window.otoscope || {}));
