// The plan of a route as a graph: the request, its calls by what they need, and the answer, with live numbers.
//
// A call stands one layer behind the last of the calls that it needs. Where the layers fit the width they are columns from
// left to right, else rows from top to bottom. The nodes are elements of a list, the edges an SVG behind them.

import {h, s, text} from "../dom.js";
import {milliseconds} from "../format.js";

const WIDE = 176;
const NARROW = 118;
const HEIGHT = 74;
const GAP = 46;
const SIBLING_GAP = 14;

/** The calls by layer; within a layer those next to each other that need the same. */
function layersOf(calls) {
  const byName = new Map(calls.map((call) => [call.name, call]));
  const depths = new Map();
  const depth = (call) => {
    if (!depths.has(call.name)) {
      depths.set(call.name, 0); // A plan has no cycle; this bounds the walk all the same.
      depths.set(call.name, Math.max(0, ...call.needs.filter((name) => byName.has(name)).map((name) => depth(byName.get(name)) + 1)));
    }
    return depths.get(call.name);
  };
  const layers = [];
  for (const call of calls) (layers[depth(call)] ??= []).push(call);
  const places = new Map();
  for (const layer of layers) {
    const mean = (call) => call.needs.reduce((sum, name) => sum + (places.get(name) ?? 0), 0) / Math.max(call.needs.length, 1);
    layer.sort((one, other) => mean(one) - mean(other));
    layer.forEach((call, index) => places.set(call.name, index));
  }
  return layers;
}

/** Pairs of names: a call or the request, and the call or the answer that waits for it. */
function edgesOf({calls, combine}) {
  const names = new Set(calls.map((call) => call.name));
  const needed = new Set();
  const edges = [];
  for (const call of calls) {
    const needs = call.needs.filter((name) => names.has(name));
    needs.forEach((name) => { needed.add(name); edges.push([name, call.name]); });
    if (!needs.length) edges.push([REQUEST, call.name]);
  }
  // With all calls an edge from each one to the answer would say nothing, and hide the others.
  const some = combine !== "all";
  for (const call of calls) if (!needed.has(call.name) || (some && call.answers)) edges.push([call.name, ANSWER]);
  return edges;
}

const REQUEST = Symbol("request");
const ANSWER = Symbol("answer");

export class PlanGraph {
  #plan;
  #area = h("div", {class: "plan-area"});
  #nodes = new Map();

  /** @param plan one of `plans` of /plan */
  constructor(plan) {
    this.#plan = plan;
    this.element = h("div", {class: "scroll plan", tabindex: "0", role: "region", "aria-label": "Plan of the route"}, this.#area);
    new ResizeObserver(() => this.#draw()).observe(this.element);
  }

  /** @param {(call) => {upstream: string, own: string, state: string}} numbersOf the live numbers of a call and of its upstream; "", "warn" or "bad" */
  update(numbersOf) {
    for (const call of this.#plan.calls) {
      const node = this.#nodes.get(call.name);
      if (!node) continue;
      const {upstream, own, state} = numbersOf(call);
      const names = call.upstreams.join(", ") || "own response";
      node.dataset.state = state;
      text(node.children[1], upstream ? `${names}, ${upstream}` : names);
      text(node.children[2], own);
    }
    this.#numbersOf = numbersOf;
  }

  #numbersOf = null;
  #width = 0;

  #draw() {
    const {paddingLeft, paddingRight} = getComputedStyle(this.element);
    const width = this.element.clientWidth - parseFloat(paddingLeft) - parseFloat(paddingRight);
    if (!(width > 0) || width === this.#width) return; // NaN: the element was removed.
    this.#width = width;
    const plan = this.#plan;
    const layers = [[REQUEST], ...layersOf(plan.calls), [ANSWER]];
    const most = Math.max(...layers.map((layer) => layer.length));
    const across = layers.length * WIDE + (layers.length - 1) * GAP <= width;
    const nodeWidth = across ? WIDE : Math.max(NARROW, Math.min(WIDE, (width - (most - 1) * SIBLING_GAP) / most));
    const [along, beside] = across ? [nodeWidth + GAP, HEIGHT + SIBLING_GAP] : [HEIGHT + GAP, nodeWidth + SIBLING_GAP];
    const whole = most * beside - SIBLING_GAP;
    const places = new Map();
    layers.forEach((layer, depth) => layer.forEach((item, index) => {
      const own = layer.length * beside - SIBLING_GAP;
      const offset = (whole - own) / 2 + index * beside;
      places.set(item.name ?? item, across ? {x: depth * along, y: offset} : {x: offset, y: depth * along});
    }));
    const length = layers.length * along - GAP;
    const size = across ? {width: length, height: whole} : {width: whole, height: length};
    this.#nodes.clear();
    const items = layers.flat().map((item) => this.#node(item, places.get(item.name ?? item), nodeWidth));
    const lines = edgesOf(plan).map(([from, to]) => {
      const [one, other] = [places.get(from), places.get(to)];
      const bend = GAP / 2;
      const [x1, y1, x2, y2] = across
        ? [one.x + nodeWidth, one.y + HEIGHT / 2, other.x - 5, other.y + HEIGHT / 2]
        : [one.x + nodeWidth / 2, one.y + HEIGHT, other.x + nodeWidth / 2, other.y - 5];
      const d = across ? `M${x1},${y1} C${x1 + bend},${y1} ${x2 - bend},${y2} ${x2},${y2}` : `M${x1},${y1} C${x1},${y1 + bend} ${x2},${y2 - bend} ${x2},${y2}`;
      return s("path", {class: "plan-edge", d, "marker-end": "url(#arrow)"});
    });
    const arrow = s("marker", {id: "arrow", viewBox: "0 0 8 8", refX: 4, refY: 4, markerWidth: 8, markerHeight: 8, orient: "auto", markerUnits: "userSpaceOnUse"}, s("path", {class: "plan-arrow", d: "M0,0 L8,4 L0,8 z"}));
    this.#area.replaceChildren(
      s("svg", {class: "plan-edges", "aria-hidden": "true", width: size.width, height: size.height}, s("defs", {}, arrow), lines),
      h("ul", {class: "plan-nodes"}, items));
    this.#area.style.width = `${size.width}px`;
    this.#area.style.height = `${size.height}px`;
    if (this.#numbersOf) this.update(this.#numbersOf);
  }

  #node(item, place, width) {
    const element = item === REQUEST || item === ANSWER ? this.#end(item) : this.#call(item);
    element.style.left = `${place.x}px`;
    element.style.top = `${place.y}px`;
    element.style.width = `${width}px`;
    element.style.height = `${HEIGHT}px`;
    return element;
  }

  #end(item) {
    const {methods, combine, deadline_s: deadline} = this.#plan;
    return item === REQUEST
      ? h("li", {class: "plan-node end"}, h("strong", {}, "request"), h("span", {class: "dim"}, methods.join(", ") || "any method"))
      : h("li", {class: "plan-node end"}, h("strong", {}, "answer"), h("span", {class: "dim"}, combine === "all" ? "of all calls" : combine), h("span", {class: "dim"}, deadline === null ? "no deadline" : `deadline ${milliseconds(1000 * deadline)}`));
  }

  #call(call) {
    const kinds = [call.each && "each", call.when && "when", call.optional && "optional"].filter(Boolean);
    const about = [call.path && `path ${call.path}`, call.needs.length && `needs ${call.needs.join(", ")}`, call.each && `each ${call.each}`, call.when && `when ${call.when}`, call.at].filter(Boolean).join("\n");
    const element = h("li", {class: `plan-node${call.optional ? " optional" : ""}`, title: about},
      h("span", {class: "plan-name"}, h("strong", {}, call.name), kinds.map((kind) => h("span", {class: "plan-kind"}, kind))),
      h("span", {class: "plan-upstream dim"}),
      h("span", {class: "plan-numbers"}));
    this.#nodes.set(call.name, element);
    return element;
  }
}
