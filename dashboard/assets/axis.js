// Scales, ticks and colours of everything that is drawn on a canvas.
(function (o) {
  "use strict";
  o.colours = function () {
    return o.isDark()
      ? { text: "#c9c9c9", dim: "#9b9b9b", grid: "#3b3b3b", line: "#91a7ff", raw: "rgba(145,167,255,.30)",
          second: "#63e6be", third: "#ffa94d", fourth: "#d0a2f7", shade: "rgba(99,230,190,.10)", mark: "#ff8787", fault: "rgba(250,82,82,.13)", panel: "#2e2e2e", event: "#868e96" }
      : { text: "#333", dim: "#6b7280", grid: "#e9ecef", line: "#3b5bdb", raw: "rgba(59,91,219,.25)",
          second: "#087f5b", third: "#c2410c", fourth: "#7048e8", shade: "rgba(8,127,91,.08)", mark: "#c92a2a", fault: "rgba(224,49,49,.08)", panel: "#fff", event: "#868e96" };
  };

  /** Say at a corner of a chart how high a curve goes that leaves it, on a ground of its own: it is in front. */
  o.drawBeyond = function (context, value, x, y, align) {
    const text = `↑ up to ${o.number(value, 2)}`, colours = o.colours();
    const wide = context.measureText(text).width + 6;
    context.fillStyle = colours.panel;
    context.fillRect(align === "left" ? x - 3 : x + 3 - wide, y - 8, wide, 16);
    context.fillStyle = colours.dim;
    context.textAlign = align;
    context.textBaseline = "middle";
    context.fillText(text, x, y);
  };

  /** Height of a chart that has nothing to show but words. */
  o.EMPTY = 72;

  /** Size a canvas to its box in device pixels; returns {context, width, height} in CSS pixels. */
  o.canvas = function (element, height) {
    const width = Math.max(50, Math.floor(element.clientWidth));
    const ratio = window.devicePixelRatio || 1;
    element.style.height = height + "px";
    if (element.width !== Math.round(width * ratio) || element.height !== Math.round(height * ratio)) {
      element.width = Math.round(width * ratio);
      element.height = Math.round(height * ratio);
    }
    const context = element.getContext("2d");
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, width, height);
    context.font = "11px " + getComputedStyle(document.body).fontFamily;
    return { context, width, height };
  };

  o.ticks = function (low, high, about) {
    const rough = (high - low) / Math.max(1, about);
    if (!(rough > 0)) return [low];
    const power = Math.pow(10, Math.floor(Math.log10(rough)));
    const size = [1, 2, 2.5, 5, 10].find((m) => m * power >= rough) * power;
    const found = [];
    for (let x = Math.ceil(low / size) * size; x <= high + size * 1e-9; x += size) {
      found.push(Math.abs(x) < size * 1e-9 ? 0 : x);
    }
    return found;
  };

  o.logTicks = function (low, high) {
    const found = [];
    const wide = Math.log10(high / low) > 3;
    for (let p = Math.floor(Math.log10(low)); p <= Math.ceil(Math.log10(high)); p++) {
      for (const m of wide ? [1] : [1, 2, 5]) {
        const x = m * Math.pow(10, p);
        if (x >= low && x <= high) found.push(x);
      }
    }
    return found.length > 1 ? found : [low, high];
  };

  /** Where a value lies between two pixels; log for a logarithmic scale. */
  o.scale = function (low, high, from, to, log) {
    const map = log ? Math.log10 : (x) => x;
    const a = map(low), b = map(high);
    const size = b - a || 1;
    const scale = (x) => from + ((map(x) - a) / size) * (to - from);
    scale.back = (pixel) => {
      const at = a + ((pixel - from) / (to - from)) * size;
      return log ? Math.pow(10, at) : at;
    };
    return scale;
  };

  /** The horizontal values of a table and how its ticks read: steps, time since the start, samples. */
  o.horizontal = function (table, model) {
    if (o.settings.x === "samples") {
      const seen = samplesSeen(table.steps, model.tables.train);
      if (seen) return { values: seen, label: o.large };
    }
    if (o.settings.x !== "time") return { values: table.steps, label: o.step };
    const zero = model.started() || table.times[0] || 0;
    return { values: table.times.map((t) => t - zero), label: (s) => o.age(s) };
  };

  /** Samples trained on up to each step, from the counts in `train`; null where there are none. */
  function samplesSeen(steps, train) {
    const counts = train && train.column("samples");
    if (!counts || !counts.some((n) => n > 0)) return null;
    const sums = [];
    let total = 0, last = counts.find((n) => n > 0);
    counts.forEach((count, i) => {
      if (count > 0) last = count;
      // a reduced row stands for all steps since the row before it
      total += last * (train.steps[i] - (i ? train.steps[i - 1] : 0));
      sums.push(total);
    });
    let at = 0;
    return steps.map((step) => {
      while (at < train.steps.length - 1 && train.steps[at] < step) at++;
      const here = train.steps[at], size = counts[at] > 0 ? counts[at] : last;
      return sums[at] + (step - here) * size;
    });
  }

  /** The ticks of a vertical scale with their lines; its `ends` are lowest and highest value. */
  o.drawAxisY = function (context, scale, left, right, log, percent) {
    const colours = o.colours();
    context.strokeStyle = colours.grid;
    context.fillStyle = colours.dim;
    context.textAlign = "right";
    context.textBaseline = "middle";
    context.lineWidth = 1;
    const ticks = log ? o.logTicks(...scale.ends) : o.ticks(...scale.ends, 5);
    const texts = percent ? o.tickTexts(ticks.map((tick) => 100 * tick)).map((text) => `${text} %`) : o.tickTexts(ticks);
    ticks.forEach((tick, i) => {
      const at = Math.round(scale(tick)) + 0.5;
      context.beginPath();
      context.moveTo(left, at);
      context.lineTo(right, at);
      context.stroke();
      context.fillText(texts[i], left - 6, at);
    });
  };

  o.drawAxisX = function (context, scale, low, high, bottom, width, label) {
    const colours = o.colours();
    context.fillStyle = colours.dim;
    context.textAlign = "center";
    context.textBaseline = "top";
    let right = -Infinity;
    for (const tick of o.ticks(low, high, Math.max(3, Math.floor(width / 90)))) {
      const text = label(tick), half = context.measureText(text).width / 2;
      const x = Math.min(scale(tick), context.canvas.clientWidth - half);
      if (x - half < right + 8) continue;
      right = x + half;
      context.fillText(text, x, bottom + 5);
    }
  };

  const WARM = [230, 97, 1], COOL = [94, 60, 153];
  const WARM_DARK = [253, 150, 60], COOL_DARK = [160, 140, 230];

  /** Purple below, orange above: readable with every kind of colour blindness. z runs from -5 to 5. */
  o.diverging = function (z) {
    const middle = o.isDark() ? [54, 54, 54] : [247, 247, 247]; // not quite the card's ground
    const end = z >= 0 ? (o.isDark() ? WARM_DARK : WARM) : (o.isDark() ? COOL_DARK : COOL);
    // what is within one spread is plain: ordinary noise should not look like an event
    const share = Math.max(0, Math.min(1, (Math.abs(z) - 1) / 4));
    return middle.map((c, i) => Math.round(c + share * (end[i] - c)));
  };

  const CIVIDIS = [[0, 34, 78], [53, 69, 108], [102, 105, 112], [148, 142, 119], [200, 184, 102], [254, 232, 56]];
  o.sequential = function (share) {
    const at = Math.max(0, Math.min(0.9999, share)) * (CIVIDIS.length - 1);
    const i = Math.floor(at), part = at - i;
    return CIVIDIS[i].map((c, k) => Math.round(c + part * (CIVIDIS[i + 1][k] - c)));
  };
})((window.otoscope = window.otoscope || {}));
