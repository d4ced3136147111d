// Numbers, ages and settings as a person reads them.
(function (o) {
  "use strict";

  /** The number behind a JSON value: null is NaN, infinities are strings. */
  o.toNumber = function (value) {
    if (value === null || value === undefined) return NaN;
    return typeof value === "number" ? value : Number(value);
  };

  o.number = function (value, digits = 3) {
    const x = o.toNumber(value);
    if (Number.isNaN(x)) return "–";
    if (!Number.isFinite(x)) return x > 0 ? "∞" : "−∞";
    if (x === 0) return "0";
    const size = Math.abs(x);
    if (size >= 1e6 || size < 1e-4) {
      return x.toExponential(Math.min(digits - 1, 2)).replace(/\.?0+e/, "e").replace("e+", "e").replace("-", "−");
    }
    const places = Math.max(0, digits - 1 - Math.floor(Math.log10(size)));
    return x.toLocaleString("en-US", { maximumFractionDigits: Math.min(places, 8) }).replace("-", "−");
  };

  /** Numbers beside an axis: short, also where they are small, and with as many digits as tell them apart. */
  o.tickTexts = function (values) {
    const written = (digits) => values.map((value) => (value !== 0 && Math.abs(value) < 1e-3
      ? value.toExponential(Math.max(1, digits - 2)).replace(/\.?0+e/, "e").replace(/-/g, "−") : o.number(value, digits)));
    let texts = written(3);
    for (let digits = 4; digits <= 8 && new Set(texts).size < texts.length; digits++) texts = written(digits);
    return texts;
  };

  o.step = (value) => (Number.isFinite(value) ? Math.round(value).toLocaleString("en-US") : "–");

  /** A large count: 950, 12.5 k, 1.2 M. */
  o.large = function (value) {
    const size = Math.abs(value);
    if (size < 1e4) return o.step(value);
    const [unit, name] = size < 1e6 ? [1e3, "k"] : size < 1e9 ? [1e6, "M"] : [1e9, "G"];
    return `${o.number(value / unit)} ${name}`;
  };

  o.percent = function (share, digits = 2) {
    const x = 100 * o.toNumber(share);
    return Number.isNaN(x) ? "–" : o.number(x, digits) + " %";
  };

  /** 252 -> "4 m 12 s" */
  o.age = function (seconds) {
    const s = Math.max(0, Math.round(seconds));
    if (s < 60) return `${s} s`;
    if (s < 3600) return `${Math.floor(s / 60)} m ${s % 60} s`;
    if (s < 86400) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} m`;
    return `${Math.floor(s / 86400)} d ${Math.floor((s % 86400) / 3600)} h`;
  };

  /** Epoch seconds -> "20 Nov, 23:04", in the reader's own time; the year where it is another one. */
  o.moment = function (seconds) {
    if (!(seconds > 0)) return "–";
    const then = new Date(1000 * seconds);
    const year = then.getFullYear() === new Date().getFullYear() ? {} : { year: "numeric" };
    return then.toLocaleString("en-GB", { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit", ...year });
  };

  /** A proposed value as it would be typed: 0.034, [0.9, 0.95], {"std": 0.08}. */
  o.setting = function (value) {
    if (value === null || value === undefined) return "–";
    return typeof value === "string" ? value : typed(value);
  };

  /** A setting in few words: what holds for many layers is said once, the snippet has it in full. */
  o.brief = function (value) {
    if (Array.isArray(value)) return list(value);
    const parts = value !== null && typeof value === "object" ? Object.values(value) : [];
    if (parts.length && parts.every(Array.isArray)) return Object.entries(value).map(([name, part]) => `${name} ${list(part)}`).join(", ");
    if (parts.length < 3) return o.setting(value);
    const kinds = new Set(parts.map((part) => (part && part.kind ? part.kind : o.setting(part))));
    return `${[...kinds].slice(0, 2).join(", ")}${kinds.size > 2 ? ", …" : ""} in ${parts.length} layers`;
  };

  /** Few values one by one; of many numbers how many there are and their ends. */
  function list(values) {
    if (values.length <= 8) return o.setting(values);
    if (!values.every((value) => typeof value === "number")) return `${values.slice(0, 3).join(", ")} and ${values.length - 3} more`;
    return `${values.length} values from ${o.number(Math.min(...values))} to ${o.number(Math.max(...values))}`;
  }

  const DEEDS = { shuffle: "Shuffle the training data", remove_softmax: "Remove the softmax in front of the loss", distributed_sampler: "Give each rank its own samples (DistributedSampler)" };

  /** What a recommendation sets: "lr = 0.034", "go back to step 200", "Shuffle the training data". */
  o.proposal = function (parameter, value, finding) {
    if (value === true && DEEDS[parameter]) return DEEDS[parameter];
    const held = value !== null && typeof value === "object" && !Array.isArray(value);
    const path = held && value.path ? ` (${value.path})` : "";
    if (parameter === "rollback" && held) {
      const then = Object.entries(value.then || {}).map(([name, part]) => `${name} = ${o.brief(part)}`).join(", ");
      return `Go back to step ${o.step(value.step)}${path}${then ? `, then ${then}` : ""}`;
    }
    if (parameter === "stop" && held) return `Stop: the best weights are those of step ${o.step(value.best_step)}${path}`;
    if (parameter === "optimizer" && held) return `${value.name}${value.lr === undefined || value.lr === null ? "" : ` with lr = ${o.setting(value.lr)}`}`;
    if (parameter === "params" && Array.isArray(value)) return `Give the optimizer ${o.many(value.length, "parameter")}: ${list(value)}`;
    if (parameter === "inspect" && Array.isArray(value)) return `Look at ${looked(value, finding)}`;
    return `${parameter} = ${value === true ? "True" : value === false ? "False" : o.brief(value)}`;
  };

  /** Ranks, steps or samples: numbers to look at say by themselves what they are. */
  function looked(items, finding) {
    if (items.some((item) => typeof item === "string") || !finding) return list(items).replace(/^\[|\]$/g, "");
    const steps = [...finding.because.map((item) => item.step), finding.first_step, finding.last_step];
    const noun = items.every((item) => finding.ranks.includes(item)) ? "rank" : items.every((item) => steps.includes(item)) ? "step" : "sample";
    return `${noun}${items.length === 1 ? "" : "s"} ${items.length > 12 ? `${items.slice(0, 12).map(o.step).join(", ")} and ${items.length - 12} more` : items.map(o.step).join(", ")}`;
  }

  function typed(value) {
    if (typeof value === "number") return String(Number(value.toPrecision(4)));
    if (Array.isArray(value)) return `[${value.map(typed).join(", ")}]`;
    if (value === null || typeof value !== "object") return JSON.stringify(value);
    return `{${Object.entries(value).map(([key, part]) => `${JSON.stringify(key)}: ${typed(part)}`).join(", ")}}`;
  }

  /** dead_units -> "dead units" */
  o.words = (name) => String(name).replace(/_/g, " ");
  o.capital = (text) => text.charAt(0).toUpperCase() + text.slice(1);
  o.many = (count, word) => `${o.step(count)} ${word}${count === 1 ? "" : "s"}`;
})((window.otoscope = window.otoscope || {}));
