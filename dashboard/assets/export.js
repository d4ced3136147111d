// A chart as PNG, and the numbers behind it as CSV, made in the browser from what it already has.
(function (o) {
  "use strict";

  function save(blob, name) {
    const address = URL.createObjectURL(blob);
    const link = o.h("a", { href: address, download: name });
    document.body.append(link);
    link.click();
    link.remove();
    setTimeout(() => URL.revokeObjectURL(address), 10000);
  }

  o.asPng = function (canvas, name) {
    const copy = document.createElement("canvas");
    copy.width = canvas.width;
    copy.height = canvas.height;
    const context = copy.getContext("2d");
    context.fillStyle = o.colours().panel;
    context.fillRect(0, 0, copy.width, copy.height);
    context.drawImage(canvas, 0, 0);
    copy.toBlob((blob) => blob && save(blob, name));
  };

  /** Rows of a table: step, UTC time, and one column a quantity; what was not measured is empty. */
  o.csvText = function (table) {
    const lines = [["step", "time", ...table.columns].map(quoted).join(",")];
    table.steps.forEach((step, i) => {
      const values = table.data.map((column) => (Number.isNaN(column[i]) ? "" : String(column[i])));
      lines.push([step, new Date(table.times[i] * 1000).toISOString(), ...values].join(","));
    });
    return lines.join("\r\n") + "\r\n";
  };

  // a name that begins like a formula would be run by a spreadsheet
  function quoted(name) {
    const safe = /^[=+\-@\t\r]/.test(name) ? "'" + name : name;
    return /[",\r\n]/.test(safe) ? `"${safe.replace(/"/g, '""')}"` : safe;
  }

  /** Two small buttons; `what` names the chart, `canvas` and `table` (or CSV as text) give it when asked. */
  o.exports = function (model, what, canvas, table) {
    const name = (kind) => `${model.id}-${what}.${kind}`;
    const button = (text, label, act) => o.h("button", { class: "plain dim", "aria-label": label, onclick: act }, text);
    return o.h("span", { class: "exports" },
      button("PNG", `Save the ${what} chart as PNG`, () => o.asPng(canvas, name("png"))),
      button("CSV", `Save the numbers of the ${what} chart as CSV`, () => {
        const held = table();
        if (held) save(new Blob([typeof held === "string" ? held : o.csvText(held)], { type: "text/csv" }), name("csv"));
      }));
  };
})((window.otoscope = window.otoscope || {}));
