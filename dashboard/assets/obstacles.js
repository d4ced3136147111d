// The three obstacles: what of each is left, as cards and as small bars.
(function (o) {
  "use strict";
  const OBSTACLES = [
    { key: "non_linearity", name: "Non-linearity", value: (v) => `${o.number(v, 2)} step${v === 1 ? "" : "s"} ahead`, share: (v) => 1 / (1 + v) },
    { key: "conditioning", name: "Conditioning", value: (v) => o.number(v, 2) === "1" ? "1 step" : `${o.number(v, 2)} steps`, share: (v) => Math.min(1, Math.log10(Math.max(1, v)) / 2) },
    // the value is 1 + B_noise/B, the steps that one noiseless step takes; shown as the wasted share
    { key: "noise", name: "Noise", value: (v) => `${o.percent(1 - 1 / v)} of a step`, share: (v) => 1 - 1 / v },
  ];

  /** How large an obstacle is: {number, part 0..1, level}; null where it was not measured. */
  function sized(found, share, key) {
    const number = found ? o.toNumber(found.value) : NaN;
    if (!found || !found.measured || !Number.isFinite(number)) return null;
    const remaining = left(key, found), part = Math.max(0.02, Math.min(1, share(Number.isFinite(remaining) ? remaining : number)));
    return { number, part, level: part > 0.6 ? "high" : part > 0.3 ? "middle" : "low" };
  }

  /** The part of the largest obstacle, 0 where none was measured: what the list of runs is sorted by. */
  o.largestObstacle = (obstacles) => Math.max(0, ...OBSTACLES.map(({ key, share }) => sized((obstacles || {})[key], share, key)).filter(Boolean).map((size) => size.part));

  const bar = (size, title) => o.h("div", { class: `bar ${size ? size.level : "none"}`, title, "aria-hidden": "true" },
    size ? o.h("span", { style: { width: 100 * size.part + "%" } }) : null);

  /** The three obstacles as small bars, with their words for those who do not see them. */
  o.obstacleBars = function (obstacles) {
    return o.h("div", { class: "bars" }, OBSTACLES.map(({ key, name, value, share }) => {
      const size = sized((obstacles || {})[key], share, key);
      const words = `${name}: ${size ? value(size.number) : "not measured"}`;
      return [bar(size, words), o.h("span", { class: "offscreen" }, words + "; ")];
    }).flat());
  };

  /** Why an obstacle is not known, and what would measure it; a run may end just behind its last judgement. */
  function unknown(found, ended) {
    const why = (found && found.sentence) || "not yet measured";
    return o.rich(o.capital(ended ? why.replace("not yet measured", "never measured").replace(" so far", "") : why));
  }

  /** The other way to say a value: with the optimizer's scaling, or as a factor of steps. */
  function beside(key, found) {
    const own = o.toNumber(found.preconditioned);
    if (key === "conditioning" && Number.isFinite(own)) return o.h("span", { class: "beside" }, `${o.number(own, 2)} as the optimizer scales it`);
    if (key === "noise") return o.h("span", { class: "beside" }, `${o.number(found.value)} × the steps`);
    return null;
  }

  /** What is left of an obstacle: conditioning as the optimizer's own scaling leaves it. */
  const left = (key, found) => (key === "conditioning" && Number.isFinite(o.toNumber(found.preconditioned)) ? o.toNumber(found.preconditioned) : NaN);

  /** An obstacle's name, which leads to its page. */
  const heading = (key, name) => o.h("h2", {}, o.h("a", { class: "quiet-link", href: `${location.pathname.replace(/\/$/, "")}/${key === "noise" ? "noise" : "curvature"}` }, name));

  o.obstacleCards = function (obstacles, ended) {
    const known = OBSTACLES.filter(({ key, share }) => sized((obstacles || {})[key], share, key));
    if (ended && !known.length) {
      const why = (key) => ((obstacles || {})[key] || {}).sentence;
      const alike = OBSTACLES.every(({ key }) => why(key) === why(OBSTACLES[0].key));
      return o.h("section", { class: "card obstacle unknown wide" }, o.h("h2", {}, "Non-linearity, conditioning, noise"),
        alike ? o.h("span", { class: "dim" }, unknown((obstacles || {})[OBSTACLES[0].key], true))
          : o.h("ul", { class: "missing dim" }, OBSTACLES.map(({ key, name }) => o.h("li", {}, o.h("strong", {}, name), ": ", unknown((obstacles || {})[key], true)))));
    }
    return OBSTACLES.map(({ key, name, value, share }) => {
      const found = (obstacles || {})[key];
      const size = sized(found, share, key);
      if (!size) {
        return o.h("section", { class: "card obstacle unknown" }, heading(key, name), o.h("span", { class: "dim" }, unknown(found, ended)));
      }
      return o.h("section", { class: "card obstacle" },
        o.h("div", { class: "row tight" }, heading(key, name), o.h("span", { class: "space" }),
          o.h("span", { class: "dim" }, found.trend || "")),
        o.h("div", { class: "big" }, value(size.number), beside(key, found)),
        bar(size, null),
        o.h("p", { class: "dim" }, o.capital(found.sentence || "")),
        found.levers && found.levers.length && size.level !== "low" ? o.h("p", { class: "dim" }, `Lowered by ${found.levers.join(", ")}`) : null);
    });
  };
})((window.otoscope = window.otoscope || {}));
