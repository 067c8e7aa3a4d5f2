// The plan of a route as a graph: the request, its calls by what they need, and the answer, with live numbers.
//
// The nodes are elements of a list, which can be read without the picture; the edges are an SVG behind them.

import {h, s, text} from "../dom.js";
import {milliseconds} from "../format.js";
import {ANSWER, HEIGHT, layout, REQUEST} from "./plan_layout.js";

export class PlanGraph {
  #plan;
  #area = h("div", {class: "plan-area"});
  #nodes = new Map();
  #numbersOf = null;
  #width = 0;

  /** @param plan one of `plans` of /plan */
  constructor(plan) {
    this.#plan = plan;
    this.element = h(
      "div",
      {class: "scroll plan", tabindex: "0", role: "region", "aria-label": "Plan of the route"},
      this.#area,
    );
    new ResizeObserver(() => this.#draw()).observe(this.element);
  }

  /**
   * @param {(call) => {upstream: string, own: string, state: string}} numbersOf the live numbers of a call and of its
   *     upstream, and how they are marked: "", "warn" or "bad"
   */
  update(numbersOf) {
    this.#numbersOf = numbersOf;
    for (const [call, node] of this.#nodes) {
      const {upstream, own, state} = numbersOf(call);
      const names = call.upstreams.join(", ") || "own response";
      node.dataset.state = state;
      text(node.children[1], upstream ? `${names}, ${upstream}` : names);
      text(node.children[2], own);
    }
  }

  #draw() {
    const {paddingLeft, paddingRight} = getComputedStyle(this.element);
    const width = this.element.clientWidth - parseFloat(paddingLeft) - parseFloat(paddingRight);
    if (!(width > 0) || width === this.#width) return; // NaN: the element was removed.
    this.#width = width;
    const {places, lines, ...size} = layout(this.#plan, width);
    this.#nodes.clear();
    const nodes = [REQUEST, ...this.#plan.calls, ANSWER].map((item) =>
      this.#node(item, places.get(item), size.nodeWidth),
    );
    const arrow = s(
      "marker",
      {
        id: "arrow",
        viewBox: "0 0 8 8",
        refX: 4,
        refY: 4,
        markerWidth: 8,
        markerHeight: 8,
        orient: "auto",
        markerUnits: "userSpaceOnUse",
      },
      s("path", {class: "plan-arrow", d: "M0,0 L8,4 L0,8 z"}),
    );
    this.#area.replaceChildren(
      s(
        "svg",
        {class: "plan-edges", "aria-hidden": "true", width: size.width, height: size.height},
        s("defs", {}, arrow),
        lines.map((d) => s("path", {class: "plan-edge", d, "marker-end": "url(#arrow)"})),
      ),
      h("ul", {class: "plan-nodes"}, nodes),
    );
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
      ? h(
          "li",
          {class: "plan-node end"},
          h("strong", {}, "request"),
          h("span", {class: "dim"}, methods.join(", ") || "any method"),
        )
      : h(
          "li",
          {class: "plan-node end"},
          h("strong", {}, "answer"),
          h("span", {class: "dim"}, combine === "all" ? "of all calls" : combine),
          h("span", {class: "dim"}, deadline === null ? "no deadline" : `deadline ${milliseconds(1000 * deadline)}`),
        );
  }

  #call(call) {
    const kinds = [call.each && "each", call.when && "when", call.optional && "optional"].filter(Boolean);
    const about = [
      call.name,
      call.path && `path ${call.path}`,
      call.needs.length && `needs ${call.needs.join(", ")}`,
      call.each && `each ${call.each}`,
      call.when && `when ${call.when}`,
      call.at,
    ]
      .filter(Boolean)
      .join("\n");
    const element = h(
      "li",
      {class: `plan-node${call.optional ? " optional" : ""}`, title: about},
      h("strong", {}, call.name),
      h("span", {class: "plan-upstream dim"}),
      h("span", {class: "plan-numbers"}),
      kinds.length
        ? h(
            "span",
            {class: "plan-kinds"},
            kinds.map((kind) => h("span", {class: "plan-kind"}, kind)),
          )
        : null,
    );
    this.#nodes.set(call, element);
    return element;
  }
}
