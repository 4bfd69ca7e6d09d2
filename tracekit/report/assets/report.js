// The page's own script: theme, tables (DataTables) and charts (uPlot).  Text from the trace is
// put into the page as text only (textContent, canvas), never as markup.
"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const root = document.documentElement;
  const UNKNOWN = 0, PRIVATE = 1, SHARED = 2, MAPPED = 3, PARTLY = 4, BOTH = 5;
  const WORDS = ["unknown", "private", "shared", "mapped", "partly mapped", "private and mapped"];
  const NAMES = ["unknown", "private", "shared", "mapped", "partly", "both"];
  const colour = (name) => getComputedStyle(root).getPropertyValue(name).trim();

  // --- light and dark ---------------------------------------------------------------------------
  const preferred = matchMedia("(prefers-color-scheme: dark)");
  let chosen = null;
  try { chosen = localStorage.getItem("tracekit-theme"); } catch { /* not kept, then */ }
  const theme = () => chosen || (preferred.matches ? "dark" : "light");
  root.dataset.theme = theme();

  // --- tables -----------------------------------------------------------------------------------
  for (const table of document.querySelectorAll("table.data")) {
    const rows = table.tBodies[0].rows.length;
    const heads = [...table.tHead.rows[0].cells];
    const filtered = heads.map((h, i) => [h, i]).filter(([h]) => "filter" in h.dataset);
    const words = (i) => [...new Set([...table.tBodies[0].rows]
      .flatMap((r) => r.cells[i].textContent.split(",")).map((t) => t.split(":")[0].trim()))]
      .filter((t) => t).sort();
    const choices = filtered.map(([h, i]) => [h.textContent.trim(), i, words(i)]);
    const made = new DataTable(table, {
      order: [], autoWidth: false, paging: rows > 25, pageLength: 25,
      info: rows > 25, searching: rows > 1,
      layout: {
        topStart: () => {
          const box = document.createElement("div");
          box.className = "dt-filters";
          for (const [name, i, found] of choices) {
            if (found.length < 2) continue;
            const label = document.createElement("label");
            const select = document.createElement("select");
            label.append(name, select);
            select.append(new Option("all", ""), ...found.map((t) => new Option(t, t)));
            select.addEventListener("change", () => {
              const wanted = select.value;
              made.column(i).search(
                wanted ? (text) => text.split(",").some((t) => t.split(":")[0].trim() === wanted) : "",
              ).draw();
            });
            box.append(label);
          }
          return box;
        },
        topEnd: rows > 1 ? "search" : null,
        bottomStart: rows > 25 ? "info" : null,
        bottomEnd: rows > 25 ? "paging" : null,
      },
    });
  }

  // --- charts -----------------------------------------------------------------------------------
  const seconds = (t) => `${t.toFixed(6)} s`;
  const count = (v) => Number.isInteger(v)
    ? v.toLocaleString("en", { notation: v >= 1e6 ? "compact" : "standard" }) : "";
  const axis = (more) => ({
    stroke: colour("--faint"),
    grid: { stroke: colour("--line"), width: 1 },
    ticks: { stroke: colour("--line"), width: 1 },
    ...more,
  });
  const timeAxis = (u) => {
    const width = u.scales.x.max - u.scales.x.min;
    const digits = Math.min(6, Math.max(0, 2 - Math.floor(Math.log10(width || 1))));
    return (ticks) => ticks.map((t) => `${t.toFixed(digits)} s`);
  };

  function hatched(ctx, x, y, width, height) {
    ctx.save();
    ctx.beginPath();
    ctx.rect(x, y, width, height);
    ctx.clip();
    ctx.strokeStyle = colour("--c-loss");
    ctx.lineWidth = 2;
    ctx.globalAlpha = 0.8;
    const step = 9;
    for (let at = x - height; at < x + width; at += step) {
      ctx.beginPath();
      ctx.moveTo(at, y + height);
      ctx.lineTo(at + height, y);
      ctx.stroke();
    }
    ctx.restore();
  }

  // Lost events where they were lost, and above the plot a tick at every finding.
  function drawLossAndMarks(u) {
    const { ctx, bbox } = u;
    const clip = (x) => Math.min(Math.max(x, bbox.left), bbox.left + bbox.width);
    for (const [from, until] of data.losses) {
      if (until < u.scales.x.min || from > u.scales.x.max) continue;
      const left = clip(u.valToPos(from, "x", true));
      const right = Math.max(left + 3, clip(u.valToPos(until, "x", true)));
      hatched(ctx, left, bbox.top, right - left, bbox.height);
    }
    for (const [at, severity] of data.marks) {
      if (severity === "note" || at < u.scales.x.min || at > u.scales.x.max) continue;
      const x = u.valToPos(at, "x", true);
      ctx.fillStyle = colour(`--${severity}`);
      ctx.beginPath();
      ctx.moveTo(x - 5, bbox.top - 9);
      ctx.lineTo(x + 5, bbox.top - 9);
      ctx.lineTo(x, bbox.top);
      ctx.fill();
    }
  }

  const near = (x, u) => {
    const slack = (u.scales.x.max - u.scales.x.min) / 100;
    const found = data.marks.filter(([at]) => Math.abs(at - x) < slack).slice(0, 3)
      .map(([at, severity, code]) => `${severity} ${code} at ${seconds(at)}`);
    const lost = data.losses.some(([from, until]) => x >= from - slack && x <= until + slack);
    return (lost ? "; events lost here" : "") + (found.length ? `; ${found.join(", ")}` : "");
  };

  function lines(part, limit) {
    const names = part.series.map((s) => s.name);
    const values = part.series.map((s) => s.values);
    const known = values.flat().filter((v) => v !== null);
    const top = known.reduce((a, b) => Math.max(a, b), 1);
    // The limit is drawn where the counts come near it; else the words below must do.
    const shown = limit && top > limit / 20;
    if (shown) {
      names.push("limit");
      values.push(part.x.map(() => limit));
    }
    return {
      data: [part.x, ...values],
      height: 240,
      options: {
        scales: { x: { time: false }, y: { range: (u, lo, hi) => [0, Math.max(hi ?? 1, 1e-3) * 1.05] } },
        axes: [
          axis({ values: (u, ticks) => timeAxis(u)(ticks), space: 90 }),
          axis({ size: 66, values: (u, ticks) => ticks.map(count) }),
        ],
        series: [{ label: "time" }, ...names.map((label, i) => ({
          label,
          stroke: label === "limit" ? colour("--error") : colour(`--s${i % 5 + 1}`),
          dash: label === "limit" ? [8, 5] : [[], [9, 4], [3, 3], [12, 3, 3, 3], [2, 6]][i % 5],
          width: 2, spanGaps: false, points: { show: part.x.length < 3 },
          paths: uPlot.paths.stepped({ align: -1 }),
        }))],
        legend: { live: false },
        hooks: { draw: [drawLossAndMarks] },
      },
      tell: (u, i) => names.map((n, s) => values[s][i] === null || values[s][i] === undefined
        ? `${n} unknown` : `${n} ${values[s][i].toLocaleString("en", { maximumFractionDigits: 1 })}`).join(", "),
    };
  }

  function memory(part) {
    const rows = part.rows.length;
    const shades = () => NAMES.map((n) => colour(`--c-${n}`));
    const steps = part.x.map((x, i) => [i ? part.x[i - 1] : 2 * x - (part.x[1] ?? x + 1e-6), x]);
    function draw(u) {
      const { ctx, bbox } = u;
      const fills = shades();
      ctx.save();
      ctx.beginPath();
      ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
      ctx.clip();
      const y = (row) => Math.round(u.valToPos(row, "y", true));
      steps.forEach(([from, until], i) => {
        if (until < u.scales.x.min || from > u.scales.x.max) return;
        const left = Math.floor(u.valToPos(from, "x", true));
        const right = Math.ceil(u.valToPos(until, "x", true));
        const column = part.cells[i];
        for (let lo = 0; lo < rows;) {
          let hi = lo + 1;
          while (hi < rows && column[hi] === column[lo]) hi += 1;
          ctx.fillStyle = fills[column[lo]];
          ctx.fillRect(left, y(hi), right - left, y(lo) - y(hi));
          if (+column[lo] === BOTH) {
            ctx.fillStyle = colour("--ink");
            ctx.fillRect(left, y(hi), right - left, 1);
            ctx.fillRect(left, y(lo) - 1, right - left, 1);
          }
          lo = hi;
        }
      });
      ctx.strokeStyle = colour("--page");
      ctx.lineWidth = 2;
      for (const row of part.breaks.slice(1)) {
        ctx.beginPath();
        ctx.moveTo(bbox.left, y(row));
        ctx.lineTo(bbox.left + bbox.width, y(row));
        ctx.stroke();
      }
      for (const [from, until, lo, hi, , severity] of part.overlays) {
        if (until < u.scales.x.min || from > u.scales.x.max) continue;
        const left = u.valToPos(from, "x", true);
        const width = Math.max(3, u.valToPos(until, "x", true) - left);
        const height = Math.max(4, y(lo) - y(hi + 1));
        const top = (y(lo) + y(hi + 1) - height) / 2;
        if (severity === "error") {
          ctx.fillStyle = colour("--c-both");
          ctx.fillRect(left, top, width, height);
        }
        ctx.strokeStyle = colour("--ink");
        ctx.lineWidth = 1.5;
        ctx.strokeRect(left - 1, top - 1, width + 2, height + 2);
      }
      ctx.restore();
      drawLossAndMarks(u);
    }
    const labels = new Map();
    const gap = rows / 14;
    for (const row of [...part.breaks, ...Array.from({ length: 12 }, (_, i) => Math.round(rows * i / 12))]) {
      if (row < rows && ![...labels.keys()].some((have) => Math.abs(have - row) < gap)) {
        labels.set(row, part.rows[row][0]);
      }
    }
    return {
      data: [part.x, part.x.map(() => null)],
      height: 380,
      options: {
        scales: { x: { time: false, range: (u, lo, hi) => [lo ?? part.x[0], hi ?? part.x.at(-1)] }, y: { range: [0, rows] } },
        axes: [
          axis({ values: (u, ticks) => timeAxis(u)(ticks), space: 90, grid: { show: false } }),
          axis({
            size: 98, splits: () => [...labels.keys()].sort((a, b) => a - b), grid: { show: false },
            values: (u, ticks) => ticks.map((t) => labels.get(t) ?? ""), gap: 3,
          }),
        ],
        series: [{ label: "time" }, { label: part.label }],
        legend: { show: false },
        hooks: { draw: [draw] },
      },
      tell: (u, i) => {
        const top = u.cursor.top ?? u.over.clientHeight / 2;
        const row = Math.min(rows - 1, Math.max(0, Math.floor(u.posToVal(top, "y"))));
        const here = part.overlays.filter(([from, until, lo, hi]) =>
          row >= lo && row <= hi && part.x[i] >= from && (steps[i]?.[0] ?? from) <= until)
          .map(([, , , , code]) => code);
        const codes = [...new Set(here)].slice(0, 4).join(", ");
        return `[${part.rows[row][0]}, ${part.rows[row][1]}) ${WORDS[+part.cells[i][row]]}`
          + (codes ? `; ${codes}` : "");
      },
    };
  }

  const makers = {
    rates: (index) => lines(data.rates[index]),
    entries: () => lines(data.entries, data.entries.limit),
    memory: (index) => memory(data.memory[index]),
  };
  const drawn = [];

  function chart(figure) {
    const place = figure.querySelector(".plot");
    const readout = figure.querySelector(".readout");
    const made = makers[figure.dataset.chart](+(figure.dataset.index ?? 0));
    if (!made.data[0].length) return;
    const tell = (u) => {
      const i = u.cursor.idx;
      if (i === null || i === undefined) return;
      const x = made.data[0][i];
      readout.textContent = `${seconds(x)}: ${made.tell(u, i)}${near(x, u)}`;
    };
    const u = new uPlot({
      width: place.clientWidth, height: made.height, ...made.options,
      cursor: { drag: { x: true, y: false }, points: { size: 6 } },
      hooks: { ...made.options.hooks, setCursor: [tell] },
      padding: [14, 30, 0, 0],
    }, made.data, place);
    drawn.push({ u, place, made });

    const zoom = (factor) => {
      const { min, max } = u.scales.x;
      const all = made.data[0];
      const middle = u.cursor.idx == null ? (min + max) / 2 : all[u.cursor.idx];
      const half = (max - min) * factor / 2;
      u.setScale("x", factor === 0 ? { min: all[0], max: all.at(-1) }
        : { min: Math.max(all[0], middle - half), max: Math.min(all.at(-1), middle + half) });
    };
    if (!figure.querySelector(".zoom")) {
      const box = document.createElement("div");
      box.className = "zoom";
      for (const [name, label, key] of [["+", "Zoom in", "in"], ["\u2212", "Zoom out", "out"], ["all", "Show all", "all"]]) {
        const button = document.createElement("button");
        button.type = "button";
        button.textContent = name;
        button.setAttribute("aria-label", label);
        button.addEventListener("click", () => figure.zoomBy({ in: 0.5, out: 2, all: 0 }[key]));
        box.append(button);
      }
      place.before(box);
      place.addEventListener("keydown", (event) => figure.onKey(event));
    }
    figure.zoomBy = zoom;
    figure.onKey = (event) => {
      const move = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
      if (event.key === "+" || event.key === "-" || event.key === "0") {
        zoom({ "+": 0.5, "-": 2, 0: 0 }[event.key]);
      } else if (move) {
        const { clientWidth, clientHeight } = u.over;
        const left = u.cursor.left >= 0 ? u.cursor.left : clientWidth / 2;
        const top = u.cursor.top >= 0 ? u.cursor.top : clientHeight / 2;
        u.setCursor({
          left: Math.min(clientWidth, Math.max(0, left + move[0] * clientWidth / 100)),
          top: Math.min(clientHeight - 1, Math.max(0, top + move[1] * clientHeight / 40)),
        });
        tell(u);
      } else {
        return;
      }
      event.preventDefault();
    };
  }

  function drawAll() {
    for (const { u } of drawn.splice(0)) u.destroy();
    for (const figure of document.querySelectorAll("figure.chart")) chart(figure);
  }

  document.getElementById("theme").addEventListener("click", () => {
    chosen = theme() === "dark" ? "light" : "dark";
    try { localStorage.setItem("tracekit-theme", chosen); } catch { /* not kept, then */ }
    root.dataset.theme = chosen;
    drawAll();
  });
  preferred.addEventListener("change", () => {
    root.dataset.theme = theme();
    drawAll();
  });
  let waiting = 0;
  addEventListener("resize", () => {
    cancelAnimationFrame(waiting);
    waiting = requestAnimationFrame(() => {
      for (const { u, place, made } of drawn) u.setSize({ width: place.clientWidth, height: made.height });
    });
  });
  drawAll();
  root.dataset.ready = "yes";
})();
