"use strict";
(() => {
  const facts = JSON.parse(document.getElementById("facts").textContent);
  const COLORS = ["#1f5fa8", "#c2570c", "#1a7f45", "#8e3aa8", "#5b6675", "#b3261e", "#0f8b8d"];
  const STAGES = { read: 0, measure: 1, normalize: 2, predict: 3, cast: 4, encode: 5, write: 6 };

  function show(value) {
    if (value === null || value === undefined) return "–";
    const number = Number(Number(value).toPrecision(4));
    return number && Math.abs(number) < 0.001 ? number.toExponential() : number.toString();
  }

  /* A chart in a holder that it follows in width. */
  function chart(holder, title, label, columns, options = {}) {
    const box = document.createElement("div");
    box.className = "chart";
    const heading = document.createElement("h3");
    heading.textContent = title;
    const host = document.createElement("div");
    box.append(heading, host);
    holder.append(box);
    const series = columns.slice(1).map(([name], index) => ({
      label: name,
      stroke: COLORS[(options.colors ? options.colors[index] : index) % COLORS.length],
      width: 1.6,
      spanGaps: false,
      points: { show: columns[0][1].length < 60 },
      value: (_, value) => show(value),
    }));
    const marks = options.marks || [];
    const plot = new uPlot(
      {
        width: Math.max(240, host.clientWidth),
        height: 230,
        scales: { x: { time: false }, y: options.log ? { distr: 3 } : {} },
        axes: [{ label, labelSize: 22, size: 38 }, { size: 62, values: (_, ticks) => ticks.map((tick) => (tick === null ? "" : show(tick))) }],
        series: [{ label: label.split(",")[0], value: (_, value) => show(value) }, ...series],
        hooks: {
          draw: [
            (u) => {
              u.ctx.save();
              u.ctx.strokeStyle = "rgba(179,38,30,.45)";
              u.ctx.beginPath();
              for (const x of marks) {
                const at = u.valToPos(x, "x", true);
                if (at < u.bbox.left || at > u.bbox.left + u.bbox.width) continue;
                u.ctx.moveTo(at, u.bbox.top);
                u.ctx.lineTo(at, u.bbox.top + u.bbox.height);
              }
              u.ctx.stroke();
              u.ctx.restore();
            },
          ],
        },
      },
      columns.map(([, values]) => values),
      host
    );
    new ResizeObserver(() => plot.setSize({ width: Math.max(240, host.clientWidth), height: 230 })).observe(host);
  }

  function grid(id) {
    const holder = document.getElementById(id);
    if (holder) holder.className = "charts";
    return holder;
  }

  function pick(entry, names) {
    return names.filter((name) => entry[name] && entry[name].some((value) => value !== null)).map((name) => [name, entry[name]]);
  }

  const several = facts.statistics.length > 1;
  const statistics = grid("statistics-charts");
  for (const entry of facts.statistics) {
    const prefix = several ? `Channel ${entry.channel}: ` : "";
    const marks = Object.keys(entry.flags).map(Number);
    const percentiles = Object.keys(entry).filter((name) => /^p\d/.test(name));
    const draw = (title, names) => {
      const columns = pick(entry, names);
      if (columns.length) chart(statistics, prefix + title, facts.positions ? "image, in the order of the output" : "frame, index along t", [[facts.positions ? "image" : "t", entry.t], ...columns], { marks });
    };
    draw("level and percentiles", ["median", "mode", ...percentiles]);
    draw("fraction of pixels: background, saturated, zero", ["background", "saturated", "zero"]);
    draw("focus (variance of the Laplacian)", ["focus"]);
  }

  const histograms = grid("histogram-charts");
  const light = grid("light-charts");
  for (const entry of facts.looked_at.channels) {
    const prefix = facts.looked_at.channels.length > 1 ? `Channel ${entry.channel}: ` : "";
    if (entry.histogram) {
      const positive = (values) => values.map((value) => (value > 0 ? value : null));
      const columns = ["before", "after"].filter((name) => entry.histogram[name]).map((name) => [name, positive(entry.histogram[name])]);
      chart(histograms, `${prefix}histogram`, "intensity, as the output has it", [["value", entry.histogram.values], ...columns], { log: true });
    }
    if (!entry.light) continue;
    for (const axis of ["x", "y"]) {
      const parts = ["before", "after", "profile"].filter((name) => entry.light[name]).map((name) => [name, entry.light[name][`along_${axis}`]]);
      const count = parts[0][1].length;
      const along = Array.from({ length: count }, (_, index) => (100 * (index + 0.5)) / count);
      chart(light, `${prefix}along ${axis}`, "% of the field of view", [["%", along], ...parts.filter(([, values]) => values.length === count)]);
    }
  }

  const over = facts.speed.over_time;
  const speed = grid("speed-charts");
  if (over && speed) {
    chart(speed, "frames per second", "seconds of work", [["s", over.seconds], ["frames/s", over.frames_per_s]]);
    const stages = Object.entries(over.stage_seconds_per_frame);
    chart(speed, "seconds per frame, by stage", "seconds of work", [["s", over.seconds], ...stages], { colors: stages.map(([name]) => STAGES[name]) });
  }
  for (const part of document.querySelectorAll(".bar span")) part.style.background = COLORS[STAGES[part.dataset.stage]];

  /* The plate: a picture of each well, or a number of it as a shade. */
  const wells = facts.overview ? facts.overview.wells : [];
  const cells = [...document.querySelectorAll(".well")];
  const middle = (values) => {
    const found = values.filter((value) => value !== null).sort((a, b) => a - b);
    return found.length ? found[Math.floor(found.length / 2)] : null;
  };
  const shown = document.getElementById("overview-shown");
  if (shown) {
    shown.onchange = () => {
      const picture = ["after", "before"].includes(shown.value);
      const numbers = picture ? [] : wells.map((well) => (shown.value === "flagged" ? well.flagged : middle(well[shown.value])));
      const known = numbers.filter((value) => value !== null);
      const low = Math.min(...known), high = Math.max(...known);
      cells.forEach((cell, index) => {
        for (const image of cell.querySelectorAll("img")) image.hidden = !picture || !image.classList.contains(shown.value);
        const value = numbers[index];
        const part = value === null || value === undefined ? null : high > low ? (value - low) / (high - low) : 0;
        cell.style.background = part === null ? "" : `hsl(212 60% ${95 - 65 * part}%)`;
      });
      document.getElementById("overview-range").textContent = known.length ? `light ${show(low)} to dark ${show(high)}` : "";
    };
    const said = document.getElementById("overview-said");
    cells.forEach((cell, index) => {
      cell.onclick = () => {
        for (const other of cells) other.setAttribute("aria-pressed", other === cell);
        const well = wells[index];
        const parts = [`${well.name}: ${well.finished} of ${well.frames} frames of ${well.images.join(", ")}`];
        parts.push(`median ${show(middle(well.median))} counts`, `focus ${show(middle(well.focus))}`);
        if (well.flagged) parts.push(`${well.flagged} flagged`);
        if (well.failed) parts.push(`${well.failed} failed`);
        said.textContent = parts.join("; ");
      };
    });
  }

  /* One zoom and place for all crops: x and y are in percent of a crop. */
  const crops = document.querySelector(".crops");
  if (!crops) return;
  const view = { s: 1, x: 0, y: 0 };
  function apply() {
    const most = 100 * (1 - view.s);
    view.x = Math.min(0, Math.max(most, view.x));
    view.y = Math.min(0, Math.max(most, view.y));
    for (const name of ["s", "x", "y"]) crops.style.setProperty(`--${name}`, view[name]);
    crops.classList.toggle("zoomed", view.s > 1);
    document.getElementById("zoom-level").textContent = `${Number(view.s.toFixed(1))} ×`;
  }
  function zoom(factor, px = 50, py = 50) {
    const s = Math.min(16, Math.max(1, view.s * factor));
    view.x = px - ((px - view.x) * s) / view.s;
    view.y = py - ((py - view.y) * s) / view.s;
    view.s = s;
    apply();
  }
  const place = (pane, event) => {
    const box = pane.getBoundingClientRect();
    return [(100 * (event.clientX - box.left)) / box.width, (100 * (event.clientY - box.top)) / box.height];
  };
  document.getElementById("zoom-in").onclick = () => zoom(1.6);
  document.getElementById("zoom-out").onclick = () => zoom(1 / 1.6);
  document.getElementById("zoom-reset").onclick = () => zoom(1 / view.s);
  crops.addEventListener("dblclick", (event) => {
    const pane = event.target.closest(".pane");
    if (pane) zoom(2, ...place(pane, event));
  });
  crops.addEventListener("wheel", (event) => {
    const pane = event.target.closest(".pane");
    if (!pane || !(event.ctrlKey || event.metaKey)) return;
    event.preventDefault();
    zoom(event.deltaY < 0 ? 1.2 : 1 / 1.2, ...place(pane, event));
  }, { passive: false });
  let held = null;
  crops.addEventListener("pointerdown", (event) => {
    const pane = event.target.closest(".pane");
    if (pane && view.s > 1) held = { pane, at: place(pane, event) };
  });
  addEventListener("pointermove", (event) => {
    if (!held) return;
    const at = place(held.pane, event);
    view.x += at[0] - held.at[0];
    view.y += at[1] - held.at[1];
    held.at = at;
    apply();
  });
  for (const name of ["pointerup", "pointercancel"]) addEventListener(name, () => (held = null));
  document.getElementById("second").onchange = (event) => {
    for (const image of crops.querySelectorAll("img.after, img.removed")) {
      const alone = !image.parentElement.querySelector(".removed");
      image.hidden = !alone && !image.classList.contains(event.target.value);
    }
  };
})();
