// What the viewer chose. It lives in the address (so a link shows the same), the theme in the browser.
(function (o) {
  "use strict";
  const DEFAULTS = {
    x: "step", yscale: "linear", smoothing: "0.9", quantity: "gradient", colour: "relative",
    "strip-scale": "own", filter: "", theme: "auto", others: "", eigenvalues: "linear", scan: "",
    finding: "", severity: "", state: "", rule: "",
  };
  const CHOICES = {
    x: ["step", "time", "samples"], yscale: ["linear", "log"], smoothing: ["0", "0.8", "0.9", "0.98"],
    quantity: ["gradient", "update", "saturated", "dead", "output", "entropy", "rank"],
    colour: ["relative", "absolute"], "strip-scale": ["own", "one"], theme: ["auto", "light", "dark"],
    eigenvalues: ["linear", "log"], severity: ["", "critical", "warning", "info"], state: ["", "open", "aside", "over"],
  };
  const OWN = ["others", "eigenvalues", "scan", "finding", "severity", "state", "rule"]; // controls of ours, which Dash does not know
  const THEME_KEY = "mantine-color-scheme-value";
  const listeners = [];
  o.settings = { ...DEFAULTS, range: null };

  o.onSetting = (listener) => listeners.push(listener);

  o.set = function (name, value) {
    if (CHOICES[name] && !CHOICES[name].includes(value)) return;
    if (o.settings[name] === value) return;
    o.settings[name] = value;
    if (name === "theme") applyTheme(value); else writeAddress();
    for (const listener of listeners) listener(name, value);
  };

  /** Set a control of the layout from the script: a key, or the address. */
  o.setControl = function (name, value) {
    o.set(name, value);
    if (!OWN.includes(name)) window.dash_clientside.set_props(name, { value });
  };

  window.dash_clientside = Object.assign({}, window.dash_clientside, {
    otoscope: {
      choose(name, value) { o.set(name, value === null ? "" : value); },
    },
  });

  o.readAddress = function () {
    const asked = new URLSearchParams(location.search);
    for (const name of Object.keys(DEFAULTS)) {
      if (name !== "theme" && asked.has(name)) o.setControl(name, asked.get(name).slice(0, 500));
    }
    if (location.hash.length > 1) o.setControl("finding", decoded(location.hash.slice(1)).slice(0, 500));
    const range = (asked.get("range") || "").split("-").map(Number);
    if (range.length === 2 && range.every(Number.isFinite) && range[0] < range[1]) o.settings.range = range;
    o.setControl("theme", localStorage.getItem(THEME_KEY) || "auto");
    applyTheme(o.settings.theme);
  };

  function decoded(text) {
    try { return decodeURIComponent(text); } catch { return text; } // a lone percent sign is no escape
  }

  o.setRange = function (range) {
    o.settings.range = range;
    writeAddress();
    for (const listener of listeners) listener("range", range);
  };

  function writeAddress() {
    const asked = new URLSearchParams();
    for (const [name, value] of Object.entries(o.settings)) {
      if (name === "theme" || name === "range" || value === DEFAULTS[name]) continue;
      asked.set(name, value);
    }
    if (o.settings.range) asked.set("range", o.settings.range.map((x) => Math.round(x)).join("-"));
    const text = asked.toString();
    history.replaceState(null, "", location.pathname + (text ? "?" + text : ""));
  }

  const system = window.matchMedia("(prefers-color-scheme: dark)");
  system.addEventListener("change", () => applyTheme(o.settings.theme));

  function applyTheme(theme) {
    localStorage.setItem(THEME_KEY, theme);
    const dark = theme === "dark" || (theme === "auto" && system.matches);
    document.documentElement.setAttribute("data-mantine-color-scheme", dark ? "dark" : "light");
    for (const listener of listeners) listener("theme", theme);
  }

  o.isDark = () => document.documentElement.getAttribute("data-mantine-color-scheme") === "dark";
})((window.otoscope = window.otoscope || {}));
