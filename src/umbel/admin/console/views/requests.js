// Requests: those that the instance keeps, by route and bucket, and the waterfall of one of them.

import {get} from "../commands.js";
import {h, rows, text} from "../dom.js";
import {clock, count, milliseconds} from "../format.js";
import {meter} from "../parts/charts.js";
import {findings} from "../parts/findings.js";
import {Waterfall} from "../parts/waterfall.js";

const SHOWN_MAX = 200;
const NO_ROUTE = "(no route)";
const BUCKET_TITLES = {
  0: "< 50 ms",
  "50 ms": "≥ 50 ms",
  "100 ms": "≥ 100 ms",
  "200 ms": "≥ 200 ms",
  "500 ms": "≥ 500 ms",
  "1 s": "≥ 1 s",
  "10 s": "≥ 10 s",
};

function address(filters) {
  const given = new URLSearchParams(Object.entries(filters).filter(([, value]) => value !== null));
  return `#/requests${given.size ? `?${given}` : ""}`;
}

/** The list: a table of routes and buckets that filters, and the requests. */
class RequestList {
  #data = null;
  #filters;
  #context;
  #summary = h("p", {class: "summary"});
  #head = h("tr", {});
  #counts = h("tbody", {});
  #requests = h("tbody", {});
  #search = h("input", {
    type: "search",
    placeholder: "Search path, reason, trace id …",
    "aria-label": "Search requests",
    oninput: () => this.#draw(),
  });
  #order = h(
    "select",
    {"aria-label": "Order", onchange: () => this.#draw()},
    h("option", {value: "latest"}, "Latest first"),
    h("option", {value: "slowest"}, "Slowest first"),
  );
  #all = h("a", {href: "#/requests"}, "Show all");

  constructor(root, context) {
    root.append(
      h(
        "table",
        {class: "buckets"},
        h("caption", {}, "Requests since the start, by route and bucket. Choose one to see those that are kept."),
        h("thead", {}, this.#head),
        this.#counts,
      ),
      h("div", {class: "bar"}, this.#search, this.#order, this.#all),
      this.#summary,
      h(
        "table",
        {class: "requests"},
        h("caption", {class: "unseen"}, "Kept requests"),
        h(
          "thead",
          {},
          h(
            "tr",
            {},
            ["request", "took", "status", "outcome", "at", "reason"].map((name) =>
              h("th", {scope: "col", class: `cell-${name}`}, name),
            ),
          ),
        ),
        this.#requests,
      ),
    );
    this.navigate(context);
  }

  navigate(context) {
    this.#context = context;
    this.#filters = {route: context.parameters.get("route"), bucket: context.parameters.get("bucket")};
    if (this.#data) {
      this.#draw();
      context.announce(this.#summary.textContent);
    }
  }

  update(_topic, data) {
    this.#data = data;
    this.#draw();
  }

  #draw() {
    const {
      buckets,
      seen,
      requests,
      dropped,
      silent,
      left_out: leftOut,
    } = this.#data ?? {buckets: [], seen: {}, requests: [], silent: []};
    this.#drawCounts(buckets, seen);
    const query = this.#search.value.trim().toLowerCase();
    const {route, bucket} = this.#filters;
    const found = requests.filter(
      (each) =>
        (route === null || each.route === route) &&
        (bucket === null || each.bucket === bucket) &&
        (!query ||
          [each.method, each.path, each.reason, each.trace_id, each.id, each.status]
            .join(" ")
            .toLowerCase()
            .includes(query)),
    );
    if (this.#order.value === "slowest") found.sort((one, other) => other.duration_ms - one.duration_ms);
    this.#all.hidden = route === null && bucket === null;
    const of = [
      route === null ? "" : `of ${route || NO_ROUTE}`,
      bucket === null ? "" : `in the bucket ${BUCKET_TITLES[bucket] ?? bucket}`,
    ]
      .filter(Boolean)
      .join(" ");
    const first = found.length > SHOWN_MAX ? `The first ${SHOWN_MAX} of ` : "";
    text(
      this.#summary,
      this.#data
        ? `${first}${count(found.length)} kept ${found.length === 1 ? "request" : "requests"} ${of}`.trim() +
            "." +
            (leftOut ? ` ${count(leftOut)} older ones are not listed.` : "") +
            (dropped ? ` ${count(dropped)} were dropped, because the kept ones took too much memory.` : "") +
            silent.map((each) => ` ${each} has not answered.`).join("")
        : "Waiting for the list …",
    );
    const longest = Math.max(...found.map((each) => each.duration_ms), 1);
    rows(
      this.#requests,
      found.slice(0, SHOWN_MAX),
      (each) => each.id,
      (each) => this.#make(each),
      (element, each) => this.#fill(element, each, longest),
    );
  }

  #drawCounts(buckets, seen) {
    const names = Object.keys(seen).sort((one, other) => one.localeCompare(other));
    if (this.#head.childElementCount !== buckets.length + 1) {
      this.#head.replaceChildren(
        h("th", {scope: "col"}, "route"),
        ...buckets.map((bucket) => h("th", {scope: "col"}, BUCKET_TITLES[bucket] ?? bucket)),
      );
    }
    rows(
      this.#counts,
      names,
      (name) => name,
      (name) =>
        h(
          "tr",
          {},
          h("th", {scope: "row"}, h("a", {}, name || NO_ROUTE)),
          buckets.map(() => h("td", {}, h("a", {}))),
        ),
      (element, name) => {
        const cells = [null, ...buckets];
        [...element.children].forEach((cell, index) => {
          const link = cell.firstElementChild;
          const number = index ? (seen[name][cells[index]] ?? 0) : null;
          if (index) {
            text(link, number ? count(number) : "·");
            link.setAttribute(
              "aria-label",
              `${number} requests of ${name || NO_ROUTE} in ${BUCKET_TITLES[cells[index]] ?? cells[index]}`,
            );
            cell.dataset.bucket = cells[index];
            cell.classList.toggle("none", !number);
          }
          if (number === 0) link.removeAttribute("href");
          else link.href = address({route: name, bucket: cells[index]});
          const chosen = this.#filters.route === name && this.#filters.bucket === cells[index];
          if (chosen) link.setAttribute("aria-current", "true");
          else link.removeAttribute("aria-current");
        });
      },
    );
  }

  #make(each) {
    return h(
      "tr",
      {"data-outcome": each.outcome},
      h(
        "th",
        {scope: "row", class: "cell-request"},
        h("a", {href: `#/requests/${encodeURIComponent(each.id)}`}, `${each.method} ${each.path}`),
      ),
      h("td", {class: "cell-took"}, h("span", {class: "amount"}, milliseconds(each.duration_ms)), h("span", {})),
      h("td", {class: "cell-status"}, String(each.status)),
      h("td", {class: `cell-outcome outcome ${each.outcome}`}, each.outcome),
      h("td", {class: "cell-at"}, clock(each.received)),
      h("td", {class: "cell-reason"}, each.reason),
    );
  }

  #fill(element, each, longest) {
    const place = element.children[1].lastElementChild;
    if (place.dataset.of !== String(longest)) {
      place.dataset.of = String(longest);
      place.replaceChildren(meter(each.duration_ms, longest));
    }
  }
}

/** One request: what its timeline says, and its waterfall. */
class OneRequest {
  #root;

  constructor(root, context) {
    this.#root = h("div", {class: "one-request"}, h("p", {class: "hint"}, "Loading …"));
    root.append(h("p", {class: "back"}, h("a", {href: "#/requests"}, "← All requests")), this.#root);
    this.#load(context);
  }

  async #load(context) {
    const [id] = context.path;
    try {
      const {process, timeline} = await get(`/slow/${encodeURIComponent(id)}`);
      const heading = h("h2", {class: "request-title", tabindex: "-1"}, `${timeline.method} ${timeline.path}`);
      this.#root.replaceChildren(
        heading,
        h(
          "p",
          {class: "request-facts"},
          h("strong", {class: `outcome ${timeline.outcome}`}, `${timeline.status} ${timeline.outcome}`),
          ` in `,
          h("strong", {}, milliseconds(timeline.duration_ms)),
          h(
            "span",
            {class: "dim"},
            " · route ",
            timeline.route ? h("a", {href: `#/routes/${encodeURIComponent(timeline.route)}`}, timeline.route) : "none",
            ` · ${clock(timeline.received)} · ${process} · ${id}`,
          ),
        ),
        timeline.reason && timeline.outcome !== "complete" ? h("p", {class: "request-reason"}, timeline.reason) : "",
        h(
          "dl",
          {class: "findings"},
          findings(timeline).map(([title, lines]) => [
            h("dt", {}, title),
            h(
              "dd",
              {},
              lines.map((line) => h("p", {}, line)),
            ),
          ]),
        ),
        new Waterfall(timeline).element,
      );
      heading.focus({preventScroll: true});
      context.announce(`${heading.textContent}, ${milliseconds(timeline.duration_ms)}`);
    } catch (error) {
      const said =
        error.status === 404
          ? "This request is not kept any more: later ones of its route and bucket have taken its place."
          : error.message;
      this.#root.replaceChildren(h("p", {class: "problem", role: "alert"}, said));
    }
  }
}

class RequestsView {
  #root;
  #shown = null;
  #id = null;
  #data = null;

  constructor(root, context) {
    this.#root = h("div", {});
    root.append(this.#root);
    this.navigate(context);
  }

  navigate(context) {
    const [id = null] = context.path;
    if (this.#shown && id === null && this.#id === null) this.#shown.navigate(context);
    else if (!this.#shown || id !== this.#id) {
      this.#root.replaceChildren();
      this.#shown = id === null ? new RequestList(this.#root, context) : new OneRequest(this.#root, context);
      if (this.#data) this.#shown.update?.("slow", this.#data);
    }
    this.#id = id;
    return true;
  }

  update(topic, data) {
    this.#data = data;
    this.#shown.update?.(topic, data);
  }
}

export const view = {
  name: "requests",
  title: "Requests",
  topics: ["slow"],
  mount: (root, context) => new RequestsView(root, context),
};
