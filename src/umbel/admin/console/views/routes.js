// Routes: their traffic, and of one route the plan as a graph with live numbers.

import {get} from "../commands.js";
import {h, rows, text} from "../dom.js";
import {count, milliseconds, rate, share} from "../format.js";
import {Sparkline} from "../parts/charts.js";
import {Period, stateOf} from "../parts/period.js";
import {PlanGraph} from "../parts/plan_graph.js";

const NO_ROUTE = "(no route)";
const COLUMNS = ["route", "rate", "errors", "partial", "p50", "p95", "p99", "own p50", "own p99", "requests"];

/** The texts of a route's figures, by column. */
function cellsOf(route, figures, seconds) {
  const now = figures ?? {};
  return {
    rate: rate(route.recent?.requests ?? 0, seconds),
    errors: share(now.errors ?? 0, now.requests),
    partial: share(now.partial ?? 0, now.answers),
    p50: milliseconds(now.p50_ms),
    p95: milliseconds(now.p95_ms),
    p99: milliseconds(now.p99_ms),
    "own p50": milliseconds(now.own_p50_ms),
    "own p99": milliseconds(now.own_p99_ms),
    requests: count(route.total.requests),
  };
}

class RouteList {
  #data = null;
  #sparks = new Map();
  #period = new Period(() => this.#draw());
  #summary = h("p", {class: "summary"});
  #body = h("tbody", {});

  constructor(root) {
    root.append(
      h("div", {class: "bar"}, this.#period.element),
      this.#summary,
      h(
        "table",
        {class: "figures"},
        h("caption", {class: "unseen"}, "Routes"),
        h(
          "thead",
          {},
          h(
            "tr",
            {},
            COLUMNS.map((name) => h("th", {scope: "col"}, name)),
          ),
        ),
        this.#body,
      ),
      h(
        "p",
        {class: "hint"},
        "Errors: the share of responses with a status of 500 and above. Partial: the share of composed answers ",
        "without a part. p50, p95, p99: the duration that half, 95 % and 99 % of the requests do not exceed. ",
        "Own: the gateway's own share of it.",
      ),
    );
  }

  update(data) {
    this.#data = data;
    for (const route of data.routes) {
      if (!this.#sparks.has(route.route)) this.#sparks.set(route.route, new Sparkline());
      if (data.window_s) this.#sparks.get(route.route).add((route.recent?.requests ?? 0) / data.window_s);
    }
    this.#draw();
  }

  #draw() {
    const data = this.#data;
    if (!data) return;
    text(
      this.#summary,
      this.#period.text(data) + (data.left_out ? ` ${data.left_out} routes with less traffic are left out.` : ""),
    );
    rows(
      this.#body,
      data.routes,
      (route) => route.route,
      (route) => this.#make(route),
      (element, route) => {
        const figures = this.#period.of(route);
        const cells = cellsOf(route, figures, data.window_s);
        for (const [name, value] of Object.entries(cells))
          text(element.querySelector(`[data-label="${name}"] .value`), value);
        element.querySelector("[data-label=errors]").dataset.state = stateOf(figures?.errors, figures?.requests);
        element.querySelector("[data-label=partial]").dataset.state = stateOf(figures?.partial, figures?.answers);
      },
    );
  }

  #make(route) {
    return h(
      "tr",
      {},
      h(
        "th",
        {scope: "row"},
        route.route ? h("a", {href: `#/routes/${encodeURIComponent(route.route)}`}, route.route) : NO_ROUTE,
      ),
      COLUMNS.slice(1).map((name) =>
        h(
          "td",
          {"data-label": name},
          h("span", {class: "value"}),
          name === "rate" && this.#sparks.get(route.route).element,
        ),
      ),
    );
  }
}

class OneRoute {
  #name;
  #graphs = [];
  #data = null;
  #upstreams = new Map();
  #period = new Period(() => this.#draw());
  #facts = h("dl", {class: "facts"});
  #summary = h("p", {class: "summary"});
  #plans = h("div", {}, h("p", {class: "hint"}, "Loading the plan …"));
  #calls = h("tbody", {});

  constructor(root, context) {
    const [name] = context.path;
    this.#name = name;
    root.append(
      h("p", {class: "back"}, h("a", {href: "#/routes"}, "← All routes")),
      h("h2", {class: "request-title"}, name),
      h(
        "div",
        {class: "bar"},
        this.#period.element,
        h("a", {href: `#/requests?route=${encodeURIComponent(name)}`}, "Kept requests"),
      ),
      this.#summary,
      this.#facts,
      this.#plans,
      h("h3", {}, "Calls"),
      h(
        "table",
        {class: "figures calls"},
        h("caption", {class: "unseen"}, "Calls of the route"),
        h(
          "thead",
          {},
          h(
            "tr",
            {},
            ["call", "rate", "ok", "partial", "failed", "skipped", "cancelled", "reasons since the start"].map((each) =>
              h("th", {scope: "col"}, each),
            ),
          ),
        ),
        this.#calls,
      ),
    );
    this.#load();
  }

  async #load() {
    try {
      const {plans} = await get(`/plan?route=${encodeURIComponent(this.#name)}`);
      this.#graphs = plans.map((plan) => new PlanGraph(plan));
      this.#plans.replaceChildren(
        ...plans.flatMap((plan, index) => [
          h("h3", {}, this.#title(plan)),
          plan.kind === "response"
            ? h("p", {class: "hint"}, "A response of the configuration, without calls.")
            : this.#graphs[index].element,
          plan.calls_total > plan.calls.length
            ? h("p", {class: "hint"}, `${plan.calls_total - plan.calls.length} calls are left out.`)
            : "",
        ]),
      );
      this.#draw();
    } catch (error) {
      this.#plans.replaceChildren(h("p", {class: "hint"}, error.message));
    }
  }

  #title(plan) {
    const parts = [
      plan.kind === "composition" ? "Plan" : plan.kind === "proxy" ? "Proxy" : "Response",
      plan.methods.join(", "),
      plan.host && `host ${plan.host}`,
      plan.match && `if ${plan.match}`,
    ];
    return parts.filter(Boolean).join(" · ");
  }

  update(data) {
    this.#data = data;
    this.#draw();
  }

  updateUpstreams(data) {
    this.#upstreams = new Map(data.upstreams.map((each) => [each.name, each]));
  }

  #draw() {
    const data = this.#data;
    if (!data) return;
    text(this.#summary, this.#period.text(data));
    const route = data.routes.find((each) => each.route === this.#name);
    const calls = route?.calls ?? [];
    if (route) {
      const cells = Object.entries(cellsOf(route, this.#period.of(route), data.window_s));
      rows(
        this.#facts,
        cells,
        ([name]) => name,
        ([name]) => h("div", {}, h("dt", {}, name), h("dd", {})),
        (element, [, value]) => text(element.lastElementChild, value || "–"),
      );
    }
    const seconds = data.window_s;
    for (const graph of this.#graphs)
      graph.update((call) =>
        this.#numbers(
          calls.find((each) => each.call === call.name),
          call,
          seconds,
        ),
      );
    rows(
      this.#calls,
      calls,
      (each) => each.call,
      () =>
        h(
          "tr",
          {},
          h("th", {scope: "row"}),
          ["rate", "ok", "partial", "failed", "skipped", "cancelled", "reasons"].map((name) =>
            h("td", {"data-label": name}, h("span", {class: "value"})),
          ),
        ),
      (element, each) => {
        const figures = this.#period.of(each) ?? {};
        text(element.firstElementChild, each.call);
        text(element.querySelector("[data-label=rate] .value"), rate(sum(each.recent), seconds));
        for (const name of ["ok", "partial", "failed", "skipped", "cancelled"])
          text(element.querySelector(`[data-label=${name}] .value`), count(figures[name] ?? 0));
        text(
          element.lastElementChild.lastElementChild,
          Object.entries(each.kinds)
            .map(([kind, number]) => `${kind} ${count(number)}`)
            .join(", ") || "none",
        );
      },
    );
  }

  #numbers(traffic, call, seconds) {
    const figures = traffic && this.#period.of(traffic);
    const whole = sum(figures);
    const failed = figures?.failed ?? 0;
    const own = traffic ? `${rate(sum(traffic.recent), seconds)}, ${share(failed, whole)} failed` : "no traffic yet";
    const upstream = this.#upstreams.get(call.upstreams[0]);
    const slow = upstream && this.#period.of(upstream)?.p95_ms;
    return {own, upstream: slow ? `p95 ${milliseconds(slow)}` : "", state: stateOf(failed, whole)};
  }
}

function sum(outcomes) {
  return Object.values(outcomes ?? {}).reduce((total, each) => total + each, 0);
}

class RoutesView {
  #root = h("div", {});
  #shown = null;
  #name = null;
  #latest = {};

  constructor(root, context) {
    root.append(this.#root);
    this.navigate(context);
  }

  navigate(context) {
    const [name = null] = context.path;
    if (this.#shown && name === this.#name) return true;
    this.#name = name;
    this.#root.replaceChildren();
    this.#shown = name === null ? new RouteList(this.#root) : new OneRoute(this.#root, context);
    for (const [topic, data] of Object.entries(this.#latest)) this.update(topic, data);
    return true;
  }

  update(topic, data) {
    this.#latest[topic] = data;
    if (topic === "routes") this.#shown.update(data);
    else this.#shown.updateUpstreams?.(data);
  }
}

export const view = {
  name: "routes",
  title: "Routes",
  topics: ["routes", "upstreams"],
  mount: (root, context) => new RoutesView(root, context),
};
