// Why a rule fired: its numbers with their defaults, changed or reset for this run.
(function (o) {
  "use strict";
  /** {box, show(rule)}: asked for when it is folded out. */
  o.thresholdsPanel = function (model) {
    const body = o.h("div", {}), wrong = o.h("p", { class: "error", role: "alert" });
    const box = o.h("details", { class: "numbers" }, o.h("summary", {}, "Why did this fire? The numbers of the rule"), body, wrong);
    let rule = "", asked = "";
    box.addEventListener("toggle", () => { if (box.open) ask(); });

    function show(next) {
      rule = next;
      if (box.open && asked !== rule) ask();
    }

    async function ask() {
      asked = rule;
      try {
        const answer = await o.ask(`api/runs/${encodeURIComponent(model.id)}/numbers?rule=${encodeURIComponent(rule)}`);
        wrong.textContent = "";
        if (answer.rule === rule) body.replaceChildren(...draw(answer));
      } catch (error) {
        asked = "";
        wrong.textContent = error.message;
      }
    }

    async function change(key, value) {
      try {
        await o.ask(`api/runs/${encodeURIComponent(model.id)}/events`, { kind: "override", key, value });
        await ask();
      } catch (error) {
        wrong.textContent = o.capital(error.message);
      }
    }

    function draw(answer) {
      const rows = answer.numbers.map((number) => {
        const key = `${answer.rule}.${number.name}`, words = number.choices;
        const input = words
          ? o.h("select", { class: "input", "aria-label": key }, words.map((word) => o.h("option", { value: word, selected: word === number.value }, word)))
          : o.h("input", { class: "input number", value: String(number.value), inputmode: "decimal", "aria-label": key });
        const set = o.h("button", { class: "button accent small", hidden: true, "aria-label": `Set ${key} for this run` }, "Set");
        input.addEventListener("input", () => { set.hidden = input.value === String(number.value); });
        const given = () => (words || input.value.trim() === "" || Number.isNaN(Number(input.value)) ? input.value : Number(input.value));
        set.addEventListener("click", () => change(key, given()));
        input.addEventListener("keydown", (event) => { if (event.key === "Enter") change(key, given()); });
        const reset = number.value === number.default ? null
          : o.h("button", { class: "button small", "aria-label": `Reset ${key} to ${number.default}`, onclick: () => change(key, null) }, `Reset to ${number.default}`);
        return o.h("div", { class: `number${reset ? " changed" : ""}`, title: number.range ? `Allowed: ${number.range}` : null },
          o.h("div", {}, o.h("code", {}, number.name), number.what ? o.h("div", { class: "dim" }, number.what) : null),
          o.h("span", { class: "row tight" }, input, set, reset));
      });
      return [o.h("p", { class: "what" }, o.rich(answer.document)), o.h("div", { class: "number-grid" }, rows),
        o.h("p", { class: "dim" }, "A change holds for this run from the next judged step on, and is kept among its events.")];
    }
    return { box, show };
  };
})((window.otoscope = window.otoscope || {}));
