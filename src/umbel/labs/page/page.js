"use strict";
// Draws one lab: the question, then a pane for each program, all on one time axis that can be scrubbed.
// A file has what the programs did in its data. Served by ``umbel lab --serve``, the page asks for a run instead.

const lab = JSON.parse(document.getElementById("data").textContent);
const isLive = lab.columns === undefined;
const SVG = "http://www.w3.org/2000/svg";
const ROW = 24, TOP = 22;
const seconds = (at) => `${Number(at.toFixed(3))} s`;

/** Makes an element; its children are elements or texts, never markup. */
function make(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else made.setAttribute(key, value);
  }
  made.append(...children);
  return made;
}

/** The nodes of a text in which `code` stands between backticks. A number stays with its unit. */
function prose(text) {
  return text.replace(/(\d) (m?s)\b/g, "$1\u00a0$2").split("`").map((part, index) => (index % 2 ? make("code", {}, part) : part));
}

/** The nodes of a path, which may be broken after a slash. */
function broken(path) {
  return path.split(/(?<=\/)/).flatMap((part, index) => (index ? [make("wbr"), part] : [part]));
}

function draw(parent, name, attributes, text) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  parent.append(made);
  return made;
}

/** One program: its counter, its bars, what it has said, and its source. */
class Pane {
  constructor(column) {
    this.column = column;
    this.counter = make("b");
    this.counting = make("p", { class: "counter" }, "still running", this.counter);
    this.svg = document.createElementNS(SVG, "svg");
    this.notes = make("ul", { class: "notes" });
    this.told = make("p", { class: "told soft", "aria-live": "polite" }, "Select a bar to see its source line.");
    this.lines = column.source.replace(/\n$/, "").split("\n").map((line, index) =>
      make("span", { "data-line": index + 1 }, line || " "));
    this.code = make("pre", { tabindex: 0, "aria-label": `program of ${column.title}` }, ...this.lines);
    this.program = make("details", matchMedia("(min-width: 760px)").matches ? { open: "" } : {},
      make("summary", { class: "soft" }, ...broken(column.file)), this.code);
    this.element = make("section", { class: "pane" }, make("h2", {}, column.title), this.counting, this.svg, this.notes,
      this.told, this.program);
    this.width = 0;
    this.chosen = null;
  }

  x(at) { return this.left + (at / lab.horizon) * (this.width - this.left - 10); }

  /** Draws everything for second `now`. */
  show(now) {
    this.width = this.svg.clientWidth || 340;
    const rows = this.column.rows;
    const longest = Math.max(...rows.map((row) => row.bar.name.length + row.depth * 2 + (row.count > 1 ? 5 : 0)));
    this.left = Math.min(16 + longest * 6.6, this.width * 0.42);
    const focused = document.activeElement?.dataset?.row;
    const hadFocus = this.svg.contains(document.activeElement);
    this.svg.replaceChildren();
    const height = TOP + rows.length * ROW + 6;
    this.svg.setAttribute("viewBox", `0 0 ${this.width} ${height}`);
    this.svg.setAttribute("height", height);
    this.svg.setAttribute("role", "group");
    this.svg.setAttribute("aria-label", `tasks of ${this.column.title}`);
    this.axis(height);
    this.boxes(now);
    this.moments(now, height);
    rows.forEach((row, index) => this.bar(row, index, now));
    draw(this.svg, "line", { class: "now", x1: this.x(now), x2: this.x(now), y1: TOP - 4, y2: height });
    if (hadFocus && focused !== undefined) this.svg.querySelector(`[data-row="${focused}"]`)?.focus({ preventScroll: true });
    this.count(now);
  }

  /** The moment after which nothing should run, and the deadlines that are set at second `now`, or have passed. */
  moments(now, height) {
    const line = (kind, at) => draw(this.svg, "line", { class: kind, x1: this.x(at), x2: this.x(at), y1: TOP - 4, y2: height });
    if (lab.over_at !== null) line("moment", lab.over_at);
    for (const { start, at, gone } of this.column.deadlines) {
      const isThere = start <= now && (gone === null || gone > now || gone >= at);
      if (isThere && at !== lab.over_at && at <= lab.horizon) line("moment deadline", at);
    }
  }

  axis(height) {
    const id = `hatch-${this.column.key}`;
    const pattern = draw(draw(this.svg, "defs", {}), "pattern",
      { id, width: 7, height: 7, patternUnits: "userSpaceOnUse", patternTransform: "rotate(45)" });
    draw(pattern, "line", { class: "stripe", x1: 0, x2: 0, y1: 0, y2: 7 });
    const room = (this.width - this.left) / lab.horizon;
    const step = [0.1, 0.2, 0.5, 1, 2, 5, 10, 20].find((each) => each * room >= 28) ?? 50;
    for (let at = 0; at <= lab.horizon + 1e-9; at += step) {
      draw(this.svg, "line", { class: "grid", x1: this.x(at), x2: this.x(at), y1: TOP - 6, y2: height });
      draw(this.svg, "text", { class: "tick", x: this.x(at), y: 12, "text-anchor": "middle" }, String(Number(at.toFixed(1))));
    }
  }

  /** A box around each bar with its children: it ends when the bar ends, whoever may still be inside. */
  boxes(now) {
    const rows = this.column.rows;
    rows.forEach((row, index) => {
      let last = index;
      while (last + 1 < rows.length && rows[last + 1].depth > row.depth) last += 1;
      const end = Math.min(row.bar.end ?? lab.horizon, now);
      if (last === index || end < row.bar.start) return;
      draw(this.svg, "rect", { class: "box", x: this.x(row.bar.start) - 3, width: this.x(end) - this.x(row.bar.start) + 6,
        y: TOP + index * ROW - 1, height: (last - index + 1) * ROW + 2, rx: 4 });
    });
  }

  bar(row, index, now) {
    const { bar } = row;
    const y = TOP + index * ROW;
    const group = draw(this.svg, "g", { class: bar.id === this.chosen ? "bar on" : "bar", tabindex: 0, role: "button",
      "data-row": index, "aria-label": this.sentence(row, lab.horizon) });
    const label = bar.name + (row.count > 1 ? ` ×${row.count}` : "");
    draw(group, "text", { x: 4 + row.depth * 10, y: y + 16, }, label);
    const from = this.x(bar.start), until = Math.min(bar.end ?? lab.horizon, now);
    if (until >= bar.start) {
      const late = lab.over_at === null ? Infinity : Math.max(lab.over_at, bar.start);
      const to = this.x(Math.min(until, late));
      const hatched = bar.how === "cancelled" && bar.end <= now;
      draw(group, "rect", { class: hatched ? "" : "ok", x: from, width: Math.max(to - from, 2), y: y + 5, height: 14, rx: 2,
        ...(hatched ? { fill: `url(#hatch-${this.column.key})` } : {}) });
      if (hatched) draw(group, "rect", { class: "edge", x: from, width: Math.max(to - from, 2), y: y + 5, height: 14, rx: 2 });
      if (until > late) draw(group, "rect", { class: "late", x: this.x(late), width: this.x(until) - this.x(late), y: y + 5, height: 14, rx: 2 });
      if ((bar.how === "failed" || bar.how === "destroyed") && bar.end <= now) {
        const x = this.x(bar.end);
        draw(group, "path", { class: "end", d: `M${x - 4} ${y + 7}l8 10m0 -10l-8 10` });
      }
    }
    draw(group, "rect", { class: "hit", x: 1, width: this.width - 2, y: y + 1, height: ROW - 2, rx: 3 });
    group.addEventListener("click", () => this.choose(row));
    group.addEventListener("keydown", (event) => {
      if (event.key === "Enter" || event.key === " ") { event.preventDefault(); this.choose(row); }
    });
  }

  sentence(row, now) {
    const { bar } = row;
    const name = bar.name + (row.count > 1 ? ` (${row.count} of them)` : "");
    if (now < bar.start) return `${name}: starts at ${seconds(bar.start)}.`;
    if (bar.end === null || bar.end > now) return `${name}: running since ${seconds(bar.start)}; it waits at line ${this.place(bar, now)}.`;
    const at = bar.stopped_at ? ` at line ${bar.stopped_at}` : "";
    if (bar.how === "ok") return `${name}: from ${seconds(bar.start)} to ${seconds(bar.end)}.`;
    // Its end is not the time of the cancel: the cleanup ran on.
    const isLate = bar.how === "cancelled" && lab.over_at !== null && bar.start < lab.over_at && bar.end > lab.over_at;
    return isLate ? `${name}: cancelled${at}, ran on until ${seconds(bar.end)}: ${bar.reason}.`
      : `${name}: ${bar.how} at ${seconds(bar.end)}${at}: ${bar.reason}.`;
  }

  /** The source line at which a bar is at second `now`. */
  place(bar, now) {
    if (bar.end !== null && bar.end <= now && bar.stopped_at) return bar.stopped_at;
    return bar.waits.filter((wait) => wait.at <= now).at(-1)?.line ?? bar.line;
  }

  choose(row) {
    this.chosen = row.bar.id;
    this.told.classList.remove("soft");
    this.told.textContent = this.sentence(row, time.now);
    this.light(this.place(row.bar, time.now));
    this.show(time.now);
  }

  /** Marks a line of the source and scrolls to it within its own box. */
  light(line) {
    this.program.open = true;
    this.lines.forEach((each, index) => each.classList.toggle("on", index + 1 === line));
    const lit = this.lines[line - 1];
    if (lit) this.code.scrollTop = lit.offsetTop - this.code.offsetTop - this.code.clientHeight / 2;
  }

  count(now) {
    const running = this.column.running.filter(([at]) => at <= now).at(-1)?.[1] ?? 0;
    this.counter.textContent = running;
    this.counting.classList.toggle("late", running > 0 && lab.over_at !== null && now >= lab.over_at);
    const said = this.column.notes.filter((note) => note.at <= now);
    if (said.length === this.said) return;
    this.said = said.length;
    this.notes.replaceChildren(...said.map((note) => make("li", {}, `${seconds(note.at)}: ${note.text} `,
      ...(note.line ? [make("button", { onclick: () => this.light(note.line), "aria-label": `show line ${note.line}` }, `line ${note.line}`)] : []))));
  }
}

let panes = [];

/** The common time axis. */
const time = {
  now: 0,
  timer: 0,
  button: make("button", { onclick: () => time.toggle() }, "Play"),
  slider: make("input", { type: "range", min: 0, max: lab.horizon, step: lab.horizon / 400, value: 0, "aria-label": "time in seconds",
    oninput: () => { time.stop(); time.set(Number(time.slider.value)); } }),
  output: make("output", {}),
  speed: make("select", { "aria-label": "speed" }, make("option", { value: 1 }, "normal speed"),
    make("option", { value: 0.25 }, "slow motion"), make("option", { value: 4 }, "fast")),
  set(now) {
    time.now = Math.min(now, lab.horizon);
    time.slider.value = time.now;
    time.output.textContent = seconds(Number(time.now.toFixed(2)));
    for (const pane of panes) pane.show(time.now);
  },
  stop() {
    cancelAnimationFrame(time.timer);
    time.timer = 0;
    time.button.textContent = "Play";
  },
  toggle() {
    if (time.timer) { time.stop(); return; }
    if (time.now >= lab.horizon) time.now = 0;
    time.button.textContent = "Pause";
    let last = performance.now();
    const step = (at) => {
      time.set(time.now + ((at - last) / 1000) * Number(time.speed.value));
      last = at;
      if (time.now >= lab.horizon) time.stop();
      else time.timer = requestAnimationFrame(step);
    };
    time.timer = requestAnimationFrame(step);
  },
};

/** What the programs did: from the file, or by a run of now. */
async function columns() {
  if (!isLive) return lab.columns;
  const response = await fetch(`/${lab.number}/run`, { method: "POST" });
  const answer = await response.json();
  if (!response.ok) throw new Error(answer.detail);
  return answer;
}

/** Runs the programs and shows them, from the beginning or at the end of the time axis. */
async function run(plays) {
  again.hidden = true;
  state.textContent = isLive ? "The programs run …" : "";
  try {
    const done = await columns();
    state.textContent = "";
    panes = done.map((column) => new Pane(column));
    time.stop();
    drawn.replaceChildren(...panes.map((pane) => pane.element));
    figures.replaceChildren(...done.map((column) =>
      make("tr", {}, make("th", { scope: "row" }, column.title), make("td", {}, column.figure))));
    result.hidden = false;
    if (plays && !matchMedia("(prefers-reduced-motion: reduce)").matches) { time.set(0); time.toggle(); }
    else time.set(lab.horizon);
  } catch (error) {
    state.textContent = `The lab was not run: ${error.message}`;
  }
  again.hidden = !isLive;
}

function reveal(given) {
  choices.querySelectorAll("button").forEach((button, index) => {
    button.disabled = true;
    if (index === lab.right) button.classList.add("right");
    else if (index === given) button.classList.add("wrong");
  });
  if (given !== null) verdict.textContent = given === lab.right ? "Right." : `Wrong. The answer is: ${lab.choices[lab.right]}. See why:`;
  run(given !== null);
}

const verdict = make("p", { "aria-live": "polite" });
const state = make("p", { role: "status" });
const again = make("button", { onclick: () => run(true), hidden: "" }, "Run again");
const choices = make("div", { class: "choices" },
  ...lab.choices.map((choice, index) => make("button", { onclick: () => reveal(index) }, choice)),
  make("button", { onclick: () => reveal(null) }, "Just show me"));
const swatch = (style, text) => make("span", {}, make("i", { style }), text);
const drawn = make("div", { class: "panes" });
const figures = make("table", { class: "figures" });
const result = make("div", { hidden: "" },
  make("div", { class: "time" }, time.button, time.slider, time.output, time.speed),
  make("p", { class: "soft" }, lab.over_at === null ? "" : `The red line: at ${seconds(lab.over_at)}, ${lab.over}. Nothing should run after it.`),
  drawn,
  make("p", { class: "legend" }, swatch("background: var(--ok)", "running"),
    ...(lab.over_at === null ? [] : [swatch("background: var(--late)", "running after it should be over")]),
    swatch("background: repeating-linear-gradient(45deg, var(--cancelled) 0 3px, transparent 3px 6px)", "cancelled"),
    swatch("border-left: 2px dashed var(--late); width: 2px; height: 14px; border-radius: 0", "a deadline"),
    swatch("border: 1px dashed var(--soft)", "a block and the tasks in it"), make("span", {}, "✗ failed or destroyed"),
    make("span", {}, "“still running” counts bars, without those in which another one runs")),
  make("h2", {}, "Answer"), make("p", {}, ...prose(lab.answer)),
  make("p", { class: "soft" }, `Measured: ${lab.measured}`), figures,
  make("h2", {}, "Why"), ...lab.why.map((part) => make("p", {}, ...prose(part))));

document.getElementById("lab").append(
  make("h1", {}, `Lab ${lab.number}: ${lab.title}`), make("p", { class: "soft" }, ...prose(lab.phenomenon)),
  make("p", {}, ...prose(lab.story)),
  make("div", { class: "question" }, make("p", {}, ...prose(lab.question)), choices, verdict, state, again), result);

addEventListener("resize", () => { if (!result.hidden) time.set(time.now); });
addEventListener("keydown", (event) => {
  if (result.hidden || event.target.closest?.("button, select, input, pre, [role=button]")) return;
  if (event.key === " ") { event.preventDefault(); time.toggle(); }
  if (event.key === "ArrowRight" || event.key === "ArrowLeft") {
    time.stop();
    time.set(Math.max(0, time.now + (event.key === "ArrowRight" ? 1 : -1) * lab.horizon / 40));
  }
});
if (location.hash === "#run") reveal(null);
