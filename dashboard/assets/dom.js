// Elements and icons. Text goes in as text, never as markup: names come from users.
(function (o) {
  "use strict";
  const SVG = "http://www.w3.org/2000/svg";
  const ICONS = {
    critical: "M8 1.5 14.5 5v6L8 14.5 1.5 11V5ZM8 4.5v4.2M8 11v.6",
    warning: "M8 1.8 15 14H1ZM8 6v4M8 11.6v.6",
    info: "M8 1.5a6.5 6.5 0 1 1 0 13 6.5 6.5 0 0 1 0-13ZM8 7v4.5M8 4.4V5",
    check: "M2.5 8.5 6.5 12.5 13.5 4",
    unknown: "M8 1.5a6.5 6.5 0 1 1 0 13 6.5 6.5 0 0 1 0-13ZM6 6.2a2 2 0 1 1 2.6 2c-.5.2-.6.6-.6 1.1M8 11.3v.5",
  };

  /** h("p", {class: "dim", onclick: f}, "text", element, null) -> element */
  o.h = function (tag, attributes, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes || {})) {
      if (value === null || value === undefined || value === false) continue;
      if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
      else if (name === "style") Object.assign(element.style, value);
      else element.setAttribute(name, value === true ? "" : value);
    }
    element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined));
    return element;
  };

  o.icon = function (name) {
    const svg = document.createElementNS(SVG, "svg");
    const path = document.createElementNS(SVG, "path");
    for (const [key, value] of Object.entries({
      viewBox: "0 0 16 16", width: 15, height: 15, fill: "none", stroke: "currentColor",
      "stroke-width": 1.6, "stroke-linecap": "round", "stroke-linejoin": "round",
      "aria-hidden": "true", class: "icon",
    })) svg.setAttribute(key, value);
    path.setAttribute("d", ICONS[name] || ICONS.info);
    svg.append(path);
    return svg;
  };

  /** A small curve of a few numbers; gaps where they are no numbers. Null for fewer than two. */
  o.spark = function (values, label) {
    const known = values.map(o.toNumber).filter(Number.isFinite);
    if (known.length < 2) return null;
    const high = Math.max(...known);
    // the curve of a loss that stands still is flat: two per cent of it are drawn over the whole height
    const size = Math.max(high - Math.min(...known), 0.02 * Math.abs(high)) || 1, low = high - size;
    const width = 80, height = 20;
    let text = "", pen = "M";
    values.forEach((value, i) => {
      const y = o.toNumber(value);
      if (!Number.isFinite(y)) { pen = "M"; return; }
      text += `${pen}${((i / (values.length - 1)) * (width - 2) + 1).toFixed(1)} ${(height - 2 - ((y - low) / size) * (height - 4)).toFixed(1)}`;
      pen = "L";
    });
    const svg = document.createElementNS(SVG, "svg");
    for (const [key, value] of Object.entries({ class: "spark", viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label })) svg.setAttribute(key, value);
    const path = document.createElementNS(SVG, "path");
    path.setAttribute("d", text);
    svg.append(path);
    return svg;
  };

  /** Text whose `names in backticks` are code, with a capital at its beginning. */
  o.rich = function (text) {
    return String(text).split("`").map((part, i) => (i % 2 ? o.h("code", {}, part) : i === 0 ? o.capital(part) : part));
  };

  o.byId = (id) => document.getElementById(id);

  const FOCUSABLE = "a, button, input, select, textarea, summary, [tabindex]";

  /**
   * Replace what an element holds, only when `key` differs from last time. Focus and what was folded out
   * stay where they are; while text in it is selected, or a button says "Copied", it is left alone.
   */
  o.fill = function (element, key, make) {
    const text = typeof key === "string" ? key : JSON.stringify(key);
    if (element.otoscopeKey === text || inUse(element)) return false;
    element.otoscopeKey = text;
    const focused = [...element.querySelectorAll(FOCUSABLE)].indexOf(document.activeElement);
    const open = [...element.querySelectorAll("details")].map((item) => item.open);
    const made = make();
    element.replaceChildren(...[made].flat(Infinity).filter((child) => child !== null && child !== undefined));
    element.querySelectorAll("details").forEach((item, i) => { item.open = Boolean(open[i]); });
    const heir = focused < 0 ? null : element.querySelectorAll(FOCUSABLE)[focused];
    if (heir) heir.focus({ preventScroll: true });
    return true;
  };

  function inUse(element) {
    const selection = document.getSelection();
    const selected = selection && !selection.isCollapsed && element.contains(selection.anchorNode);
    return selected || element.querySelector("[data-label]") !== null;
  }

  o.copy = async function (text, button) {
    let done = true;
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      done = copyTheOldWay(text); // pages served without TLS to another host have no clipboard
    }
    const before = button.dataset.label || button.textContent;
    button.dataset.label = before;
    button.textContent = done ? "Copied" : "Not copied";
    setTimeout(() => {
      button.textContent = before;
      delete button.dataset.label;
    }, 1500);
  };

  function copyTheOldWay(text) {
    const area = o.h("textarea", { class: "offscreen", "aria-hidden": "true" });
    area.value = text;
    document.body.append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    return done;
  }
})((window.otoscope = window.otoscope || {}));
