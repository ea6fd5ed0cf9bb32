"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const tip = document.getElementById("tip");
  const plots = [...document.querySelectorAll("svg.plot")];

  // A root <title> would pop up as the browser's own tooltip over ours: the name moves to where only readers look.
  for (const plot of plots) {
    const title = plot.querySelector(":scope > title");
    const desc = plot.querySelector(":scope > desc");
    plot.setAttribute("aria-label", title.textContent);
    plot.setAttribute("aria-description", desc.textContent);
    plot.removeAttribute("aria-labelledby");
    title.remove();
  }

  function show(text, event) {
    tip.textContent = text;
    tip.hidden = false;
    const box = tip.getBoundingClientRect();
    const left = event.clientX + 14 + box.width > innerWidth ? event.clientX - box.width - 14 : event.clientX + 14;
    const top = event.clientY + 16 + box.height > innerHeight ? event.clientY - box.height - 12 : event.clientY + 16;
    tip.style.transform = `translate(${Math.max(left, 4)}px, ${Math.max(top, 4)}px)`;
  }

  function value(number, unit) {
    if (unit === "ns") return number >= 1e9 ? `${(number / 1e9).toFixed(2)} s` : `${(number / 1e6).toFixed(number < 1e7 ? 2 : 0)} ms`;
    if (unit === "MiB") return `${number.toFixed(1)} MiB`;
    if (unit === "rate") return `${+number.toFixed(2)} per s`;
    return String(+number.toFixed(2));
  }

  // The last point at or before a time: every value holds until the next.
  function at(series, time) {
    let low = 0;
    let high = series.x.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (series.x[middle] <= time) low = middle + 1;
      else high = middle;
    }
    return low ? series.y[low - 1] : undefined;
  }

  // A line through all charts at the same time; a share below zero takes it away.
  function point(share) {
    document.body.classList.toggle("has-cursor", share >= 0);
    if (share < 0) return;
    for (const plot of plots) {
      const cursor = plot.querySelector(".cursor");
      cursor.setAttribute("x1", `${share * 100}%`);
      cursor.setAttribute("x2", `${share * 100}%`);
    }
  }

  function describe(chart, time) {
    const lines = [`at ${time.toFixed(2)} s`];
    for (const series of chart ? chart.series : []) {
      const number = at(series, time);
      if (number !== undefined) lines.push(`${series.name}: ${value(number, series.unit)}`);
    }
    return lines.join("\n");
  }

  document.addEventListener("pointermove", (event) => {
    const plot = event.target.closest("svg.plot");
    const marked = event.target.closest("[data-tip]");
    let text = marked ? marked.getAttribute("data-tip") : "";
    let share = -1;
    if (plot) {
      // Labels overflow the image, so its box is the plot itself.
      const box = plot.getBoundingClientRect();
      const across = (event.clientX - box.left) / box.width;
      const inside = across >= 0 && across <= 1 && event.clientY <= box.top + Number(plot.dataset.height);
      if (inside) {
        share = across;
        const [start, end] = data.span;
        text ||= describe(data.charts[plot.dataset.chart], start + across * (end - start));
      }
    }
    point(share);
    if (text) show(text, event);
    else tip.hidden = true;
  });
  document.documentElement.addEventListener("pointerleave", () => {
    point(-1);
    tip.hidden = true;
  });
  addEventListener("beforeprint", () => {
    for (const folded of document.querySelectorAll("details")) folded.open = true;
  });
})();
