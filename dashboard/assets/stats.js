// The small cards of numbers.
(function (o) {
  "use strict";
  o.statCards = function (model) {
    const said = (note) => (note && model.ended() ? note.replace("not measured yet", "never measured") : note) || "\u00a0";
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
    const cost = o.cost(model.run);
    found.push([model.words("Otoscope costs", "Otoscope cost"), cost > 0 ? o.percent(cost) : model.words("not known yet", "not known"),
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

  /** How near a step is to the edge of stability; of several optimizers the nearest. */
  function edge(table) {
    const known = (table ? table.columns.filter((name) => name.startsWith("edge_ratio")) : []).map((name) => {
      const ratio = table.column(name), at = ratio.findLastIndex(Number.isFinite);
      return { value: at < 0 ? NaN : ratio[at], step: at < 0 ? NaN : table.steps[at] };
    }).filter(({ value }) => Number.isFinite(value)).sort((a, b) => b.value - a.value);
    if (!known.length) return ["Step to stable limit", "–", "not measured yet"];
    const { value, step } = known[0];
    return ["Step to stable limit", `${o.number(value, 2)} ×`, `${value > 1 ? "beyond" : "within"} the edge, step ${o.step(step)}`];
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
