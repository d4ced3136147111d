// The chosen finding: its argument, the charts of what was seen with their thresholds, causes and effects.
(function (o) {
  "use strict";
  const AGAIN = 15000; // ms until the charts of a finding that stands are asked for again

  /** A recorded series around a finding: the threshold as a line, what was seen as dots, its steps shaded. */
  class SeenChart extends o.LineChart {
    constructor(box, model, chart, finding) {
      const table = new o.Table({ columns: chart.lines, layers: chart.lines.map(() => null), steps: chart.steps, times: chart.times, values: chart.values });
      const own = Object.create(model, {
        window: { value: () => [0, table.steps.length - 1] },
        span: { value: () => { const xs = o.horizontal(table, model).values; return [xs[0], Math.max(xs[xs.length - 1], xs[0] + 1)]; } },
        marked: { value: () => [finding] },
      });
      super(box, own, { name: `${finding.rule}-${chart.quantity}`.replace(/[^\w.-]+/g, "-"), label: `${chart.title}, around step ${o.step(finding.first_step)}`, family: chart.family, height: 170,
        log: () => chart.log,
        rules: chart.thresholds.map((value) => ({ value, name: `threshold ${o.number(value)}`, strong: true })),
        lines: (held, colours) => chart.lines.map((name, i) => ({ name, values: held.data[i], width: 1.6, gaps: true, plain: true,
          colour: [colours.line, colours.third, colours.second, colours.fourth, colours.dim, colours.event][i % 6] })) });
      this.chart = chart;
      this.held = table;
    }

    table() { return this.held; }

    /** Thresholds and what was seen are always in sight; a blow-up's last values may be cut. */
    scaleOf(lines) {
      const usable = (v) => Number.isFinite(v) && (!this.log || v > 0);
      const all = lines.flatMap((line) => line.values).filter(usable);
      const must = [...this.chart.thresholds, ...this.chart.points.map((point) => point[1])].filter(usable);
      const kept = [...must, o.quantile(all, all.length > 100 ? 0.005 : 0), o.quantile(all, all.length > 100 ? 0.985 : 1)];
      let low = Math.min(...kept), high = Math.max(...kept);
      if (this.log) { low /= 1.3; high *= 1.3; } else {
        const pad = (high - low || Math.abs(high) || 1) * 0.08;
        low = low >= 0 && low - pad < 0 ? 0 : low - pad;
        high += pad;
      }
      this.y = o.scale(low, high, this.height - 24, 18, this.log);
      this.y.ends = [low, high];
      this.y.beyond = all.length ? all.reduce((a, b) => Math.max(a, b)) : 0;
      return this.y;
    }

    drawEvents(context, table, xs) {
      super.drawEvents(context, table, xs);
      const colours = o.colours();
      for (const [step, value] of this.chart.points) {
        if (this.log && value <= 0) continue;
        context.beginPath();
        context.arc(this.x(this.model.place(table, xs, step)), Math.max(8, Math.min(this.height - 24, this.y(value))), 4, 0, 7);
        context.fillStyle = colours.panel;
        context.fill();
        context.strokeStyle = colours.mark;
        context.lineWidth = 2;
        context.stroke();
      }
    }
  }

  o.FindingDetail = class FindingDetail {
    constructor(model, act, views) {
      Object.assign(this, { model, act, views, finding: null, charts: [], asked: "", at: 0 });
      this.argument = o.h("div", {});
      this.pictures = o.h("div", { class: "pictures" });
      this.below = o.h("div", {});
      this.numbers = o.thresholdsPanel(model);
      this.row = o.h("tr", { class: "detail" }, o.h("td", { colspan: 6 },
        o.h("div", { class: "argument" }, o.h("div", {}, this.argument, this.below), this.pictures), this.numbers.box));
    }

    show(finding) {
      const before = this.finding;
      this.finding = finding;
      if (!finding) return this.clear();
      if (before && before.id !== finding.id) this.clear();
      const { model } = this, told = model.told(finding);
      this.row.className = `detail ${finding.severity}`;
      o.fill(this.argument, [finding, model.ended()], () => o.argument(finding));
      o.fill(this.below, [finding.id, told, finding.outcome, model.ended(), model.findings.map((f) => [f.id, f.title, f.caused]), finding.gone_by_itself, finding.followed], () => [
        ancestry(model, finding), o.outcome(finding),
        told ? o.h("p", { class: "told" }, o.icon("check"), told) : null,
        o.h("div", { class: "row tight buttons" }, o.answers(finding, model, this.act), linkButton(model, finding))]);
      this.numbers.show(finding.rule);
      this.ask(finding);
    }

    clear() {
      for (const chart of this.charts) { o.forget(chart.canvas); this.views.splice(this.views.indexOf(chart), 1); }
      this.charts = [];
      this.asked = "";
      this.pictures.replaceChildren();
    }

    /** Ask for the charts: at once for another finding, from time to time while one stands. */
    async ask(finding) {
      const key = `${finding.id} ${finding.state}`, due = finding.state === "firing" && !this.model.ended() && Date.now() - this.at > AGAIN;
      if (this.asked === key && !due) return;
      const first = this.asked === "";
      this.asked = key;
      this.at = Date.now();
      if (first) this.pictures.replaceChildren(o.h("p", { class: "dim" }, "The charts of what was seen are on their way."));
      try {
        const answer = await o.ask(`api/runs/${encodeURIComponent(this.model.id)}/evidence?finding=${encodeURIComponent(finding.id)}`);
        if (this.finding && answer.finding === this.finding.id) this.draw(answer.charts);
      } catch (error) {
        this.at = 0; // the next answer of the run asks again
        this.pictures.replaceChildren(o.h("p", { class: "error", role: "alert" }, `The charts cannot be shown: ${error.message}.`));
      }
    }

    draw(charts) {
      const asked = this.asked;
      this.clear();
      this.asked = asked;
      const boxes = charts.map((chart) => {
        const box = o.h("div", {});
        const seen = new SeenChart(box, this.model, chart, this.finding);
        this.charts.push(seen);
        this.views.push(seen);
        return o.h("figure", { class: "picture" }, o.h("figcaption", {}, o.h("h3", {}, chart.title,
          chart.whole ? o.h("span", { class: "dim" }, " whole run: few samples around the finding") : null)), box);
      });
      this.pictures.replaceChildren(...(boxes.length ? boxes : [o.h("p", { class: "dim" }, "No recorded series belongs to what was seen.")]));
      for (const chart of this.charts) chart.update();
    }
  };

  /** What caused a finding and what it caused, as links. */
  function ancestry(model, finding) {
    const chip = (other) => o.h("a", { class: "chip", href: o.findingLink(model.id, other.id), "data-to": other.id, onclick: (event) => {
      event.preventDefault();
      o.set("finding", other.id);
    } }, o.icon(other.severity), o.rich(other.title));
    const line = (name, others) => (others.length ? o.h("div", { class: "caused" }, o.h("span", { class: "dim" }, name), others.map(chip)) : null);
    return [line("Caused by", model.findings.filter((other) => other.caused.includes(finding.id))),
      line("Caused by it", finding.caused.map((id) => model.findings.find((other) => other.id === id)).filter(Boolean))];
  }

  function linkButton(model, finding) {
    const copy = o.h("button", { class: "button" }, "Copy link to it");
    copy.addEventListener("click", () => o.copy(location.origin + o.findingLink(model.id, finding.id), copy));
    return copy;
  }
})((window.otoscope = window.otoscope || {}));
