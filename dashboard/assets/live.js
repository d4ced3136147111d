// The live path: one timer, one fetch, paused when nobody looks. The browser holds the cursor.
(function (o) {
  "use strict";
  const PERIOD = 1500; // ms
  const SLOWEST = 15000; // ms between tries while the store is away

  /** What a check looks at, as the verdict names it: lr_too_high -> "learning rate". */
  o.rule = (id) => JSON.parse(o.byId("shell").dataset.rules || "{}")[id] || o.words(id);
  o.prefix = () => o.byId("shell").dataset.prefix || "/";

  /** Fetch JSON; throws an error with `status` (0: no answer at all) and the server's own words. */
  o.ask = async function (path, body) {
    const options = body === undefined ? {} : {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(body),
    };
    let answer;
    try {
      answer = await fetch(o.prefix() + path, options);
    } catch {
      throw Object.assign(new Error("Otoscope's page server does not answer"), { status: 0 });
    }
    const json = await answer.json().catch(() => ({}));
    if (!answer.ok) throw Object.assign(new Error(json.error || `error ${answer.status}`), { status: answer.status });
    return json;
  };

  o.Live = class Live {
    /** `tick` is called about every 1.5 s and may fail; `failed(error or null)` is told each time. */
    constructor(tick, failed) {
      this.tick = tick;
      this.failed = failed;
      this.paused = false;
      this.busy = false;
      this.wait = PERIOD;
      this.timer = null;
      document.addEventListener("visibilitychange", () => { if (!document.hidden) this.now(); });
      window.addEventListener("online", () => this.now());
    }

    async now() {
      clearTimeout(this.timer);
      if (this.busy) return;
      this.busy = true;
      try {
        await this.tick();
        this.wait = PERIOD;
        this.failed(null);
      } catch (error) {
        if (error.status === undefined) throw error;
        this.wait = Math.min(SLOWEST, this.wait * 1.6);
        this.failed(error);
      } finally {
        this.busy = false;
        this.next();
      }
    }

    next() {
      clearTimeout(this.timer);
      this.timer = setTimeout(() => {
        if (document.hidden || this.paused) this.next(); else this.now();
      }, this.wait);
    }
  };

  /** Run a drawing once per frame, and only while its panel can be seen. */
  const panels = new Map();
  const seen = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      const panel = panels.get(entry.target);
      panel.visible = entry.isIntersecting;
      if (panel.visible && panel.dirty) o.redraw(entry.target);
    }
  }, { rootMargin: "100px" });

  o.panel = function (element, draw) {
    panels.set(element, { draw, visible: false, dirty: true, asked: false, drawn: false });
    seen.observe(element);
    new ResizeObserver(() => o.redraw(element)).observe(element);
  };

  o.forget = function (element) {
    seen.unobserve(element);
    panels.delete(element);
  };

  o.redraw = function (element, unseen = false) {
    const panel = panels.get(element);
    if (!panel) return;
    panel.dirty = true;
    if (!(panel.visible || (unseen && panel.drawn)) || panel.asked) return;
    panel.asked = true;
    requestAnimationFrame(() => {
      panel.asked = false;
      panel.dirty = false;
      panel.drawn = true;
      panel.draw();
    });
  };

  /** Draw all anew; `unseen`: also what was drawn and is scrolled away, as it is on paper and in pictures. */
  o.redrawAll = (unseen) => { for (const element of panels.keys()) o.redraw(element, unseen); };
})((window.otoscope = window.otoscope || {}));
