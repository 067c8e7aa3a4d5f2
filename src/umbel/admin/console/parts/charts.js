// Parts of charts: a scale with round steps, fills that differ without colour, and small lines.
//
// Places along a scale are percentages, so a chart fits its element without being drawn again.

import {s} from "../dom.js";

/** At most `most` round values from `start` to `end`: multiples of 1, 2 or 5 times a power of ten. */
export function ticks(start, end, most) {
  const length = end - start;
  if (!(length > 0)) return [start];
  let step = 10 ** Math.floor(Math.log10(length / most));
  for (const factor of [1, 2, 5, 10]) {
    if (length / (step * factor) <= most) {
      step *= factor;
      break;
    }
  }
  const found = [];
  for (let number = Math.ceil(start / step); number * step <= end; number++) found.push(number * step);
  return found;
}

/** The scale of a time axis in milliseconds. */
export class Scale {
  constructor(start, end) {
    this.start = start;
    this.end = Math.max(end, start + 0.001);
  }

  /** The place of a value, in percent of the width. */
  at(value) {
    return Math.min(100, Math.max(0, (100 * (value - this.start)) / (this.end - this.start)));
  }

  /** The attributes of a bar: x and width. */
  bar(start, end) {
    const x = this.at(start);
    return {x: `${x}%`, width: `${Math.max(this.at(end) - x, 0.15)}%`};
  }

  /** Labels for ticks, all in the same unit. */
  label(value) {
    return this.end >= 10_000 ? `${Number((value / 1000).toPrecision(6))} s` : `${Number(value.toPrecision(6))} ms`;
  }
}

/** Patterns to fill bars with: hatch (cancelled), dots, stripes, checks. An element for the document, invisible. */
export function patterns() {
  const pattern = (id, size, ...shapes) =>
    s("pattern", {id, width: size, height: size, patternUnits: "userSpaceOnUse"}, shapes);
  return s(
    "svg",
    {class: "unseen", "aria-hidden": "true", width: 0, height: 0},
    s(
      "defs",
      {},
      pattern("hatch", 7, s("path", {class: "hatch-line", d: "M-1,1 l2,-2 M0,7 l7,-7 M6,8 l2,-2"})),
      pattern(
        "dots",
        4,
        s("rect", {class: "fill queue faint", width: 4, height: 4}),
        s("circle", {class: "fill queue", cx: 2, cy: 2, r: 1.1}),
      ),
      pattern(
        "stripes",
        4,
        s("rect", {class: "fill dns faint", width: 4, height: 4}),
        s("rect", {class: "fill dns", width: 2, height: 4}),
      ),
      pattern(
        "checks",
        6,
        s("rect", {class: "fill tls faint", width: 6, height: 6}),
        s("rect", {class: "fill tls", width: 3, height: 3}),
        s("rect", {class: "fill tls", x: 3, y: 3, width: 3, height: 3}),
      ),
    ),
  );
}

/** A bar of `part` in `whole`, as a picture of a number that stands beside it as text. */
export function meter(part, whole, kind = "") {
  const width = whole > 0 ? Math.min(100, (100 * part) / whole) : 0;
  return s(
    "svg",
    {class: `meter ${kind}`, "aria-hidden": "true", width: "100%", height: 6},
    s("rect", {class: "meter-back", width: "100%", height: 6, rx: 3}),
    s("rect", {class: "meter-part", width: `${width}%`, height: 6, rx: 3}),
  );
}

/** The latest values as a line, the last one at the right; a picture beside the number as text. */
export class Sparkline {
  #values = [];
  #most;
  #line = s("polyline", {class: "spark-line", "vector-effect": "non-scaling-stroke"});

  constructor(most = 60) {
    this.#most = most;
    this.element = s(
      "svg",
      {class: "spark", "aria-hidden": "true", viewBox: `0 0 ${most - 1} 20`, preserveAspectRatio: "none"},
      this.#line,
    );
  }

  add(value) {
    this.#values.push(value);
    if (this.#values.length > this.#most) this.#values.shift();
    const top = Math.max(...this.#values, 1e-9);
    const from = this.#most - this.#values.length;
    this.#line.setAttribute(
      "points",
      this.#values.map((each, index) => `${from + index},${(19 - (18 * each) / top).toFixed(2)}`).join(" "),
    );
  }
}
