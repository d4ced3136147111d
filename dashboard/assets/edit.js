// The dialog of one run: rename, tag, note, close, delete.
(function (o) {
  "use strict";

  o.dialog = function (title, content) {
    const close = o.h("button", { class: "button", type: "button" }, "Close");
    const box = o.h("dialog", { class: "dialog", "aria-label": title },
      o.h("div", { class: "row tight" }, o.h("h2", {}, title), o.h("span", { class: "space" }), close), content);
    close.addEventListener("click", () => box.close());
    box.addEventListener("close", () => box.remove());
    o.byId("dialogs").append(box);
    box.showModal();
    return box;
  };

  o.editRun = function (run, done) {
    const field = (label, input) => o.h("label", { class: "field" }, label, input);
    const name = o.h("input", { class: "input", value: run.name, maxlength: 200 });
    const tags = o.h("input", { class: "input", value: run.tags.join(", ") });
    const notes = o.h("textarea", { class: "input", rows: 3, maxlength: 4000 });
    notes.value = run.notes;
    const wrong = o.h("p", { class: "error", role: "alert" });
    const typed = o.h("input", { class: "input", placeholder: run.name });
    const save = o.h("button", { class: "button accent", type: "button" }, "Save");
    const close = o.h("button", { class: "button", type: "button" }, "Mark as ended");
    const remove = o.h("button", { class: "button danger", type: "button", disabled: true }, "Delete this run");
    typed.addEventListener("input", () => { remove.disabled = typed.value !== run.name; });
    const box = o.dialog(`Edit ${run.name}`, [
      field("Name", name), field("Tags, separated by commas", tags), field("Note", notes),
      o.h("div", { class: "row tight" }, save, ["stale", "lost"].includes(run.status) ? close : null),
      o.h("hr", {}),
      field("To delete the run and all that was recorded of it, type its name", typed), remove, wrong,
    ]);
    const send = async (path, body) => {
      try {
        await o.ask(`api/runs/${encodeURIComponent(run.id)}/${path}`, body);
        box.close();
        done();
      } catch (error) {
        wrong.textContent = error.message;
      }
    };
    save.addEventListener("click", () => send("labels", {
      name: name.value.trim() || null,
      tags: tags.value.split(",").map((tag) => tag.trim()).filter(Boolean),
      notes: notes.value.trim() || null,
    }));
    close.addEventListener("click", () => send("labels", { closed: true }));
    remove.addEventListener("click", () => send("delete", { name: typed.value }));
  };
})((window.otoscope = window.otoscope || {}));
