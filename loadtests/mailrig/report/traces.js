"use strict";
// The traces of the page: filter and order of the table of executions, and a trace with its log lines, drawn on demand.
// All text goes in as text (textContent), never as markup.
(() => {
  const whole = JSON.parse(document.getElementById("data").textContent);
  const { strings, sets, parts, list } = whole.traces;
  const viewer = document.getElementById("viewer");
  const table = document.getElementById("executions");
  if (!viewer || !table) return;
  const TICKS = 5;
  const INDENT = 13;
  const BAD = new Set(["killed", "failed", "error", "parent missing"]);
  const LOUD = { WARNING: "is-warn", ERROR: "is-fail", CRITICAL: "is-fail" };
  const indexOf = new Map(list.map((trace, index) => [trace.id, index]));
  let opener = null;

  function make(name, attributes = {}, ...children) {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) {
      if (value === null || value === undefined || value === false) continue;
      if (key === "style") made.style.cssText = value;
      else made.setAttribute(key, value === true ? "" : value);
    }
    made.append(...children.filter((child) => child !== null && child !== undefined));
    return made;
  }

  function duration(us) {
    const size = Math.abs(us);
    if (size < 1e4 && size) return `${(us / 1e3).toFixed(2)} ms`;
    if (size < 1e6 - 500) return `${Math.round(us / 1e3)} ms`;
    if (size < 6e7) return `${(us / 1e6).toFixed(2)} s`;
    const seconds = Math.round(us / 1e6);
    return `${Math.trunc(seconds / 60)} min ${String(Math.abs(seconds % 60)).padStart(2, "0")} s`;
  }

  const texts = (index) => sets[index].map((text) => strings[text]);

  function span(row) {
    const [depth, name, service, part, start, took, wait, held, flags, notes, attributes, id] = row;
    return {
      depth, start, took, wait, held, id,
      name: strings[name], service: strings[service], part: parts[part], notes: texts(notes), attributes: texts(attributes),
      error: Boolean(flags & 1), synthesised: Boolean(flags & 2),
    };
  }

  // --- a trace -------------------------------------------------------------------------------------------------------

  function head(trace) {
    const jaeger = whole.jaeger && /^[0-9a-f]{32}$/.test(trace.id) ? `${whole.jaeger}/trace/${trace.id}` : null;
    const close = make("button", { type: "button", class: "close" }, "Close");
    close.addEventListener("click", shut);
    return make("div", { class: "viewer-head" },
      make("h3", { tabindex: -1 }, "Trace ", make("code", {}, trace.id)),
      make("span", { class: "chart-note" }, `${trace.spans} ${trace.spans === 1 ? "span" : "spans"}, ${duration(trace.took)}`),
      jaeger && make("a", { href: jaeger, target: "_blank", rel: "noopener noreferrer", class: "elsewhere" }, "Jaeger"),
      close);
  }

  function runs(trace, execution) {
    const listed = trace.runs.map(([title, text, id]) => make("li", { class: id === execution ? "is-chosen" : null },
      make("strong", {}, title), " ", text));
    if (trace.more) listed.push(make("li", { class: "note" }, `and ${trace.more} more executions`));
    return listed.length ? make("ul", { class: "runs" }, ...listed) : null;
  }

  function legend(spans) {
    const used = new Set(spans.map((own) => own.part));
    const item = (chip, text) => make("span", { class: "legend-item" }, make("i", { class: `chip ${chip}` }), text);
    return make("div", { class: "legend left" },
      ...parts.filter((part) => used.has(part)).map((part) => item(`p-${part}`, part)),
      spans.some((own) => own.wait > own.held) ? item("p-wait thin", "in the queue") : null,
      spans.some((own) => own.held) ? item("p-held", "held by the worker") : null,
      spans.some((own) => own.synthesised) ? item("is-synthesised", "synthesised: its process was killed") : null);
  }

  function step(length) {
    const rough = length / TICKS;
    const power = 10 ** Math.floor(Math.log10(rough));
    return [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= rough);
  }

  function ruler(length, size) {
    const marks = [];
    for (let at = 0; at <= length * 0.94; at += size) {
      const text = at === 0 ? "0" : length >= 1e6 ? `${+(at / 1e6).toPrecision(6)} s` : `${+(at / 1e3).toPrecision(6)} ms`;
      marks.push(make("span", { style: `left:${(100 * at) / length}%` }, text));
    }
    return make("div", { class: "ruler" }, ...marks);
  }

  function track(own, length) {
    const place = (start, took) => `left:${(100 * start) / length}%;width:${(100 * took) / length}%`;
    const state = (own.error ? " is-error" : "") + (own.synthesised ? " is-synthesised" : "");
    const queued = own.wait - own.held;
    return make("div", { class: "track" },
      queued > 0 ? make("i", { class: "p-wait", style: place(own.start - own.wait, queued) }) : null,
      own.held > 0 ? make("i", { class: "p-held", style: place(own.start - own.held, own.held) }) : null,
      make("b", { class: `p-${own.part}${state}`, style: place(own.start, own.took) }));
  }

  function line(own, length) {
    const name = make("button", { type: "button", class: "span-name", "aria-expanded": "false" }, own.name);
    const tags = own.notes.map((note) => make("span", { class: BAD.has(note) ? "tag tag-bad" : "tag" }, note));
    const row = make("tr", { class: own.error ? "is-error" : null, "data-span": own.id },
      make("th", { scope: "row" }, make("div", { style: `padding-left:${Math.min(own.depth, 20) * INDENT}px` }, name, ...tags)),
      make("td", { class: "service" }, own.service),
      make("td", { class: "time" }, track(own, length)),
      make("td", { class: "number" }, duration(own.took)),
      make("td", { class: "number" }, duration(own.start)));
    name.addEventListener("click", () => unfold(row, name, own));
    return row;
  }

  // What a span says, below it; and the log lines that were written in it stand out.
  function unfold(row, button, own) {
    const open = button.getAttribute("aria-expanded") !== "true";
    button.setAttribute("aria-expanded", String(open));
    if (!open) row.nextElementSibling.remove();
    else {
      const facts = own.attributes.length ? own.attributes : ["no attributes"];
      if (own.wait) facts.unshift(`waited ${duration(own.wait - own.held)} in the queue, was held for ${duration(own.held)}`);
      row.after(make("tr", { class: "facts-row" }, make("td", { colspan: shownColumns(row) },
        make("ul", {}, ...facts.map((fact) => make("li", {}, fact)), make("li", {}, `span ${own.id}`)))));
    }
    for (const written of viewer.querySelectorAll("[data-of]")) {
      if (written.dataset.of === own.id) written.classList.toggle("is-chosen", open);
    }
  }

  // A narrow page has fewer; a cell across those that it hides would bring them back.
  function shownColumns(row) {
    return [...row.cells].filter((cell) => getComputedStyle(cell).display !== "none").length;
  }

  function waterfall(trace, spans) {
    const length = Math.max(trace.took, 1);
    const size = step(length);
    const titles = [["span", ""], ["service", ""], [ruler(length, size), "time"], ["took", "number"], ["began at", "number"]];
    const left = trace.spans - spans.length;
    return make("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "spans" },
      make("table", { class: "waterfall", style: `--tick:${(100 * size) / length}%` },
        make("thead", {}, make("tr", {}, ...titles.map(([title, kind]) => make("th", { scope: "col", class: kind || null }, title)))),
        make("tbody", {}, ...spans.map((own) => line(own, length)))),
      left ? make("p", { class: "note" }, `${left} more spans not drawn.`) : null);
  }

  function written([time, level, file, who, message, spanId, exception]) {
    const text = strings[level];
    return make("li", { class: `log ${LOUD[text] || ""}`, "data-of": spanId || null },
      make("div", { class: "log-head" },
        make("span", { class: "log-time" }, `${time < 0 ? "\u2212" : "+"}${duration(Math.abs(time))}`),
        make("span", { class: "log-level" }, text || "–"),
        make("span", {}, [strings[file], strings[who]].filter(Boolean).join(" · "))),
      make("div", {}, strings[message],
        exception >= 0 ? make("details", {}, make("summary", {}, "exception"), make("pre", {}, strings[exception])) : null));
  }

  function logs(trace) {
    const count = trace.logs.length + trace.unshown;
    return make("section", { class: "logs", "aria-label": "log lines" },
      make("h4", {}, `${count} log ${count === 1 ? "line" : "lines"}`),
      trace.logs.length
        ? make("ol", {}, ...trace.logs.map(written))
        : make("p", { class: "nothing" }, "No line of the run's logs names this trace or its task."),
      trace.unshown ? make("p", { class: "note" }, `${trace.unshown} of them are not here: mailrig logs RUN --trace ${trace.id}`) : null);
  }

  // --- opening and closing -------------------------------------------------------------------------------------------

  function open(index, execution) {
    const trace = list[index];
    const spans = trace.rows.map(span);
    viewer.replaceChildren(head(trace), ...[runs(trace, execution), legend(spans)].filter(Boolean),
      make("div", { class: "split" }, waterfall(trace, spans), logs(trace)));
    choose(index, execution);
    viewer.scrollIntoView({ block: "start" });
    viewer.querySelector("h3").focus({ preventScroll: true });
  }

  function choose(index, execution) {
    for (const row of table.tBodies[0].rows) {
      const own = index >= 0 && row.dataset.t === String(index);
      row.classList.toggle("is-chosen", own && (!execution || row.dataset.x === execution));
    }
  }

  function shut() {
    viewer.replaceChildren(make("p", { class: "nothing" }, "No trace is open."));
    choose(-1);
    history.replaceState(null, "", "#traces");
    if (opener && opener.isConnected) {
      opener.scrollIntoView({ block: "center" });
      opener.focus();
    }
  }

  function absent(id) {
    viewer.replaceChildren(make("p", { class: "nothing" }, `This page has no spans of it. In a terminal: mailrig trace RUN ${id}`));
    choose(-1);
    viewer.scrollIntoView({ block: "start" });
  }

  function follow() {
    const match = /^#trace-(.+)$/.exec(location.hash);
    if (!match) return;
    let id = match[1];
    try { id = decodeURIComponent(id); } catch { /* not ours */ }
    if (indexOf.has(id)) open(indexOf.get(id));
    else absent(id);
  }

  function show(index, execution) {
    history.replaceState(null, "", `#trace-${encodeURIComponent(list[index].id)}`);
    open(index, execution);
  }

  document.addEventListener("click", (event) => {
    const row = event.target.closest("#executions tbody tr");
    const link = event.target.closest("a");
    if (link && !(link.hash || "").startsWith("#trace-")) return;
    if (event.ctrlKey || event.metaKey || event.shiftKey || event.button) return;
    if (row && row.dataset.t !== undefined && !String(getSelection())) {
      event.preventDefault();
      opener = row.querySelector("a");
      show(Number(row.dataset.t), row.dataset.x);
    } else if (link) {
      event.preventDefault();
      opener = link;
      history.replaceState(null, "", link.hash);
      follow();
    } else if (event.target.closest("svg.plot .bar, svg.plot .dot")) shape(event.target);
  });

  function shape(target) {
    opener = null;
    if (target.dataset.t !== undefined) return show(Number(target.dataset.t));
    const task = /^task (\S+)$/m.exec(target.dataset.tip || "");
    return task ? absent(task[1]) : undefined;
  }

  addEventListener("hashchange", follow);
  viewer.addEventListener("keydown", (event) => {
    if (event.key === "Escape") shut();
  });

  // --- the table -----------------------------------------------------------------------------------------------------

  const rows = [...table.tBodies[0].rows].map((row) => ({
    row,
    text: `${row.textContent} ${row.dataset.ids}`.toLowerCase(),
  }));

  function filter(box, told) {
    const words = box.value.toLowerCase().split(/\s+/).filter(Boolean);
    let left = 0;
    for (const own of rows) {
      own.row.hidden = !words.every((word) => own.text.includes(word));
      left += !own.row.hidden;
    }
    told.textContent = words.length ? `${left} of ${rows.length}` : "";
  }

  function sort(column, title, kind) {
    const down = title.getAttribute("aria-sort") ? title.getAttribute("aria-sort") !== "descending" : kind === "number";
    for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
    title.setAttribute("aria-sort", down ? "descending" : "ascending");
    const key = ({ row }) => {
      const cell = row.cells[column];
      const value = cell.dataset.value ?? cell.textContent;
      return kind === "number" ? Number(value) : value;
    };
    const sign = down ? -1 : 1;
    rows.sort((one, other) => {
      const [a, b] = [key(one), key(other)];
      return sign * (kind === "number" ? a - b : a < b ? -1 : Number(a > b));
    });
    table.tBodies[0].append(...rows.map(({ row }) => row));
  }

  function controls() {
    const box = make("input", { type: "search", id: "filter", placeholder: "id, task, outcome, tenant, pid", autocomplete: "off", spellcheck: "false" });
    const told = make("span", { class: "chart-note", role: "status" });
    box.addEventListener("input", () => filter(box, told));
    document.getElementById("executions-note").after(
      make("p", { class: "filter" }, make("label", { for: "filter" }, "Filter "), box, " ", told));
    [...table.tHead.rows[0].cells].forEach((title, column) => {
      if (!title.dataset.sort) return;
      const button = make("button", { type: "button" }, title.textContent);
      button.addEventListener("click", () => sort(column, title, title.dataset.sort));
      title.replaceChildren(button);
    });
    [...table.tHead.rows[0].cells].find((title) => title.textContent === "total").setAttribute("aria-sort", "descending");
  }

  controls();
  viewer.replaceChildren(make("p", { class: "nothing" }, "No trace is open. A row above opens one, and so does a bar of the lanes."));
  follow();
})();
