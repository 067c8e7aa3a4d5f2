// Lints: what is wrong with the use of the event loops, and what to do about it.

import {h, rows, text} from "../dom.js";
import {count, duration} from "../format.js";

function facts(lint) {
  const times = lint.count === 1 ? "once" : `${count(lint.count)} times`;
  const last = lint.last < 1.5 ? "just now" : `${duration(lint.last)} ago`;
  const when = lint.ongoing ? "now" : `${times}, ${lint.count === 1 ? "" : `first ${duration(lint.first)} ago, last `}${last}`;
  return `${lint.process} · ${lint.detail} · ${when}`;
}

class LintsView {
  #summary = h("p", {class: "summary", role: "status"}, "Looking …");
  #list = h("ul", {class: "lints"});
  #kinds = h("dl", {class: "kinds"});

  constructor(root) {
    root.append(this.#summary, this.#list,
      h("details", {}, h("summary", {}, "What is looked for"),
        h("p", {class: "hint"}, "While this page or umbel top is open: at each step of the event loops, and once a second at all tasks. A lint is forgotten after 15 minutes."),
        this.#kinds));
  }

  update(_topic, data) {
    const lints = [...data.lints].sort((one, other) => other.ongoing - one.ongoing || one.last - other.last);
    text(this.#summary, lints.length
      ? `${lints.length} ${lints.length === 1 ? "lint" : "lints"}`
      : "No lints: no long steps, no growing nurseries, no open shields, no full queues.");
    rows(this.#list, lints, (lint) => `${lint.process}:${lint.name}:${lint.where}:${lint.ongoing}`,
      () => h("li", {}, h("h2", {}, h("span", {}), h("span", {class: "chip cancelled"})), h("p", {class: "place"}), h("p", {class: "dim"}), h("p", {class: "advice"})),
      (element, lint) => {
        const [heading, place, seen, advice] = element.children;
        element.classList.toggle("ongoing", lint.ongoing);
        text(heading.children[0], lint.title);
        heading.children[1].hidden = !lint.ongoing;
        text(heading.children[1], "now");
        place.hidden = !lint.where;
        text(place, lint.where);
        text(seen, facts(lint));
        text(advice, lint.advice);
      });
    rows(this.#kinds, data.kinds.flatMap((kind) => [[kind.name, "dt", kind.title], [`${kind.name}:`, "dd", `${kind.found} ${kind.advice}`]]),
      ([key]) => key, ([, tag]) => h(tag, {}), (element, [, , words]) => text(element, words));
  }
}

export const view = {
  name: "lints",
  title: "Lints",
  topics: ["lints"],
  mount: (root) => new LintsView(root),
};
