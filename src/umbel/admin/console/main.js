// The console: the frame around the views, the router, and the state of the connection.

import {h, text} from "./dom.js";
import {Live} from "./live.js";
import {VIEWS} from "./views.js";

const names = {connecting: "connecting", live: "live", lost: "no connection"};

/** A part of an address, decoded; as it is if its escapes are no UTF-8, for an address may be typed. */
function decoded(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

class Console {
  #state = h("output", {class: "connection", "data-state": "connecting"}, names.connecting);
  #said = h("div", {class: "unseen", role: "status", "aria-live": "polite"});
  #problem = h("p", {class: "problem", role: "alert", hidden: true});
  #place = h("main", {id: "view", tabindex: "-1"});
  #links = new Map();
  #live = new Live((state, detail) => this.#show(state, detail));
  #mounted = null;
  #shown = null;
  #topics = new Set(document.body.dataset.topics?.split(" ") ?? []);
  #commands = new Set(document.body.dataset.commands?.split(" ").filter(Boolean) ?? []);
  #views = VIEWS.filter((view) => view.topics.every((topic) => this.#topics.has(topic)) && (!view.needs || this.#topics.has(view.needs)));

  start() {
    const links = this.#views.map((view) => {
      const link = h("a", {href: `#/${view.name}`}, view.title);
      this.#links.set(view.name, link);
      return h("li", {}, link);
    });
    document.body.append(
      h("a", {class: "skip", href: "#view", onclick: (event) => { event.preventDefault(); this.#place.focus(); }}, "Skip to content"),
      h("header", {}, h("a", {class: "brand", href: `#/${this.#views[0].name}`}, "Umbel"), h("nav", {"aria-label": "Views"}, h("ul", {}, links)), this.#state),
      this.#problem, this.#place, this.#said);
    document.getElementById("fallback").hidden = true;
    document.body.classList.add("scripted");
    window.addEventListener("hashchange", () => this.#route());
    document.addEventListener("keydown", (event) => this.#key(event));
    this.#route();
  }

  // #/tree?q=x: the name of the view, and parameters that it reads from context.parameters.
  #route() {
    const [path, query = ""] = location.hash.replace(/^#\/?/, "").split("?");
    const [name, ...rest] = path.split("/");
    const view = this.#views.find((each) => each.name === name) ?? this.#views[0];
    const context = {
      path: rest.map(decoded),
      parameters: new URLSearchParams(query),
      navigate: (hash) => { location.hash = hash; },
      announce: (said) => text(this.#said, said),
      topics: this.#topics,
      commands: this.#commands,
    };
    if (this.#shown === view && this.#mounted?.navigate?.(context)) return;
    this.#mounted?.unmount?.();
    this.#shown = view;
    for (const [each, link] of this.#links) {
      if (each === view.name) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    }
    document.title = `${view.title} – Umbel`;
    this.#place.replaceChildren(h("h1", {class: "unseen"}, view.title));
    const mounted = this.#mounted = view.mount(this.#place, context) ?? {};
    this.#live.subscribe(view.topics, (topic, data) => { if (this.#mounted === mounted) mounted.update?.(topic, data); });
  }

  // g and then a letter or digit: another view. The views have their own keys.
  #leader = false;
  #key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches?.("input, select, textarea")) return;
    if (this.#leader) {
      this.#leader = false;
      const view = this.#views.find((each, index) => event.key === String(index + 1) || event.key === each.name[0]);
      if (view) { event.preventDefault(); location.hash = `#/${view.name}`; }
    } else if (event.key === "g") this.#leader = true;
  }

  #show(state, detail) {
    if (this.#state.dataset.state !== state) {
      this.#state.dataset.state = state;
      text(this.#state, names[state]);
    }
    this.#problem.hidden = !detail;
    text(this.#problem, detail);
  }
}

new Console().start();
