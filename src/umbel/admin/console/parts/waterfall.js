// The waterfall of a timeline: a lane for the request, for each call, and for each attempt of a call.
//
// The lanes are the options of a listbox, so that arrow keys move between them; the details of the selected one stand
// below. What a bar shows stands beside it as text as well. Phases differ in height and pattern, not only in colour.

import {h, s} from "../dom.js";
import {milliseconds} from "../format.js";
import {patterns, Scale, ticks} from "./charts.js";
import {attemptName, reasonText, shortReplica, slowestCall} from "./findings.js";

const HEIGHT = 28;
const ATTEMPTS_SHOWN = 8;

/** The phases in their order: y and height of the bar, and the id of its pattern. */
const PHASES = {
  queue: {title: "waiting for a place", y: 11, height: 6, pattern: "dots"},
  dns: {title: "name resolution", y: 9, height: 10, pattern: "stripes"},
  connect: {title: "connect", y: 9, height: 10},
  tls: {title: "TLS", y: 9, height: 10, pattern: "checks"},
  wait: {title: "waiting for the response", y: 8, height: 12},
  body: {title: "response body", y: 5, height: 18},
};

/** The lanes: {kind, name, start, end, critical, ...}. */
function lanesOf(timeline, unfolded) {
  const lanes = [{kind: "request", key: "request", start: 0, end: timeline.duration_ms}];
  for (const call of timeline.calls) {
    lanes.push({
      kind: "call",
      key: `call ${call.name}`,
      call,
      start: call.start_ms,
      end: call.end_ms,
      critical: call.critical,
    });
    const shown = unfolded.has(call.name) ? call.attempts : notable(call.attempts);
    for (const attempt of shown) {
      const start = Math.min(attempt.start_ms, ...attempt.phases.map((phase) => phase.start_ms));
      lanes.push({
        kind: "attempt",
        key: `call ${call.name} ${call.attempts.indexOf(attempt)}`,
        call,
        attempt,
        start,
        end: attempt.end_ms,
        critical: attempt.critical,
      });
    }
    const hidden = call.attempts.length - shown.length;
    if (hidden) lanes.push({kind: "more", key: `more ${call.name}`, call, hidden});
  }
  return lanes;
}

/** Of many attempts, the critical one, those that did not succeed, and the first ones, in their order. */
function notable(attempts) {
  if (attempts.length <= ATTEMPTS_SHOWN) return attempts;
  const wanted = [...attempts].sort((one, other) => rank(one) - rank(other)).slice(0, ATTEMPTS_SHOWN);
  return attempts.filter((each) => wanted.includes(each));
}

function rank(attempt) {
  return attempt.critical ? 0 : attempt.outcome !== "ok" ? 1 : attempt.cause !== "first" ? 2 : 3;
}

function scaleOf(timeline, lanes) {
  const begun = lanes.filter((lane) => lane.start !== null && lane.start !== undefined);
  const start = Math.min(0, ...begun.map((lane) => lane.start));
  let end = Math.max(...begun.map((lane) => lane.end));
  if (timeline.deadline_ms !== null && timeline.deadline_ms <= 1.2 * end) end = Math.max(end, timeline.deadline_ms);
  // Room behind the last bar for the mark of its end.
  return new Scale(start, end + (end - start) * 0.015);
}

/** How many labels of the axis fit: lanes take the whole width of a phone, and two fifths of a wide page. */
function ticksMost() {
  return Math.max(3, Math.floor(((window.innerWidth < 832 ? 1 : 0.42) * window.innerWidth) / 90));
}

function laneBars(lane, scale, places, timeline) {
  const shapes = places.map((place) =>
    s("line", {class: "tick", x1: `${scale.at(place)}%`, x2: `${scale.at(place)}%`, y1: 0, y2: "100%"}),
  );
  if (timeline.deadline_ms !== null && timeline.deadline_ms <= scale.end) {
    const at = `${scale.at(timeline.deadline_ms)}%`;
    shapes.push(s("line", {class: "deadline", x1: at, x2: at, y1: 0, y2: "100%"}));
  }
  if (lane.start !== null && lane.start !== undefined) shapes.push(...bars[lane.kind](lane, scale));
  if (lane.critical)
    shapes.push(s("rect", {class: "critical", y: HEIGHT - 4, height: 3, ...scale.bar(lane.start, lane.end)}));
  return h("span", {class: "lane-bars", "aria-hidden": "true"}, s("svg", {}, shapes));
}

const bars = {
  request(lane, scale) {
    return [s("rect", {class: "request-bar", y: 7, height: 14, rx: 2, ...scale.bar(lane.start, lane.end)})];
  },
  call(lane, scale) {
    const {call} = lane;
    const bar = scale.bar(lane.start, lane.end);
    const shapes = [s("rect", {class: `call-bar ${call.outcome}`, y: 10, height: 8, rx: 1, ...bar})];
    if (call.outcome === "cancelled")
      shapes.push(s("rect", {class: "hatched", fill: "url(#hatch)", y: 10, height: 8, ...bar}));
    return shapes;
  },
  attempt(lane, scale) {
    const {attempt} = lane;
    const shapes = attempt.phases.map((phase) => {
      const {y, height, pattern} = PHASES[phase.name] ?? PHASES.wait;
      const fill = pattern ? {class: "phase", fill: `url(#${pattern})`} : {class: `phase fill ${phase.name}`};
      return s("rect", {...fill, y, height, ...scale.bar(phase.start_ms, phase.end_ms)});
    });
    if (!shapes.length)
      shapes.push(s("rect", {class: "phase fill wait", y: 8, height: 12, ...scale.bar(lane.start, lane.end)}));
    const end = `${scale.at(lane.end)}%`;
    if (attempt.outcome === "cancelled") {
      shapes.push(
        s("rect", {class: "hatched", fill: "url(#hatch)", y: 5, height: 18, ...scale.bar(lane.start, lane.end)}),
      );
      shapes.push(
        s(
          "svg",
          {class: "end", x: end, y: 14, overflow: "visible"},
          s("path", {class: "end-mark", d: "M-4,-4 L4,4 M-4,4 L4,-4"}),
        ),
      );
    } else if (attempt.outcome === "failed") {
      shapes.push(
        s("svg", {class: "end", x: end, y: 14, overflow: "visible"}, s("path", {class: "end-mark", d: "M0,-8 L0,8"})),
      );
    }
    return shapes;
  },
  more: () => [],
};

function note(lane, timeline) {
  const {call, attempt} = lane;
  if (lane.kind === "request")
    return `${timeline.status} ${timeline.outcome}${timeline.reason ? `: ${timeline.reason}` : ""}`;
  if (lane.kind === "attempt") {
    const said =
      attempt.outcome === "ok" ? String(attempt.status) : `${attempt.outcome}: ${reasonText(attempt.reason)}`;
    return `${said}${attempt.coalesced ? ", shared with another request" : ""}`;
  }
  const parts = [
    call.outcome === "failed" || call.outcome === "partial" ? `${call.outcome}: ${call.kind}` : call.outcome,
  ];
  if (call.reason && call.outcome !== "ok") parts.push(reasonText(call.reason));
  if (call.needs.length) parts.push(`needs ${call.needs.join(", ")}`);
  return parts.join(", ");
}

function label(lane, timeline) {
  if (lane.kind === "request") return [h("span", {class: "lane-name"}, `${timeline.method} ${timeline.path}`)];
  if (lane.kind === "call")
    return [
      h("span", {class: "lane-name"}, lane.call.name),
      lane.call.upstream && h("span", {class: "lane-of"}, `upstream ${lane.call.upstream}`),
    ];
  return [
    h("span", {class: "lane-cause"}, attemptName(lane.attempt)),
    h("span", {class: "lane-of"}, shortReplica(lane.attempt.replica)),
  ];
}

function tookOf(lane) {
  return lane.start === null ? "not begun" : milliseconds(lane.end - lane.start);
}

/** Pairs of a name and a text: all that is known of a lane. */
function details(lane, timeline) {
  const times = lane.start === null ? "not begun" : `${milliseconds(lane.start)} to ${milliseconds(lane.end)}`;
  if (lane.kind === "request") {
    return [
      ["route", timeline.route || "none"],
      ["response", note(lane, timeline)],
      ["received", new Date(timeline.received * 1000).toISOString()],
      ["request body complete", milliseconds(timeline.body_ms)],
      ["the gateway's own share", milliseconds(timeline.own_ms)],
      ["deadline", timeline.deadline_ms === null ? "none" : milliseconds(timeline.deadline_ms)],
      ["client", `${timeline.client}, ${timeline.scheme}`],
      ["request id", timeline.request_id],
      ["trace id", timeline.trace_id],
      ["in a trace", timeline.sampled || "no"],
    ];
  }
  const {call, attempt} = lane;
  if (lane.kind === "call") {
    return [
      ["upstream", call.upstream || "none"],
      ["result", note(lane, timeline)],
      ["time", times],
      ["needs", call.needs.join(", ") || "nothing"],
      ["attempts", String(call.attempts_total)],
      ["critical path", call.critical ? "yes" : "no"],
      ["span id", call.span_id],
    ];
  }
  return [
    ["call", call.name],
    ["cause", attemptName(attempt)],
    ["request", `${attempt.method} ${attempt.replica}`],
    ["result", note(lane, timeline)],
    ["time", times],
    ...attempt.phases.map((phase) => [
      PHASES[phase.name]?.title ?? phase.name,
      milliseconds(phase.end_ms - phase.start_ms),
    ]),
    ["connection", attempt.reused ? "a kept one" : "a new one"],
    ["critical path", attempt.critical ? "yes" : "no"],
    ["trace id", attempt.trace_id],
    ["span id", attempt.span_id],
  ];
}

function axis(scale, places, timeline) {
  const labels = places.map((place) => {
    const at = scale.at(place);
    return s(
      "text",
      {x: `${at}%`, y: 12, class: "tick-label", "text-anchor": at < 4 ? "start" : at > 93 ? "end" : "middle"},
      scale.label(place),
    );
  });
  if (timeline.deadline_ms !== null) {
    const inside = timeline.deadline_ms <= scale.end;
    const at = inside ? scale.at(timeline.deadline_ms) : 100;
    const left = at > 50;
    labels.push(
      s(
        "text",
        {
          x: `${at}%`,
          y: 28,
          class: "deadline-label",
          "text-anchor": left ? "end" : "start",
          dx: inside ? (left ? -5 : 5) : 0,
        },
        `deadline ${milliseconds(timeline.deadline_ms)}${inside ? "" : " →"}`,
      ),
    );
    if (inside) labels.push(s("line", {class: "deadline", x1: `${at}%`, x2: `${at}%`, y1: 17, y2: 34}));
  }
  return s(
    "svg",
    {
      class: "axis",
      width: "100%",
      height: timeline.deadline_ms === null ? 18 : 34,
      role: "img",
      "aria-label": `Time from ${scale.label(Math.max(0, places[0]))} to ${scale.label(places.at(-1))}`,
    },
    labels,
  );
}

export function legend() {
  const sample = (shape, title) =>
    h("li", {}, s("svg", {width: 26, height: HEIGHT, "aria-hidden": "true"}, shape), title);
  const whole = {x: 0, width: 26};
  return h(
    "ul",
    {class: "legend", "aria-label": "Legend"},
    Object.entries(PHASES).map(([name, {title, y, height, pattern}]) =>
      sample(
        s(
          "rect",
          pattern
            ? {fill: `url(#${pattern})`, class: "phase", y, height, ...whole}
            : {class: `phase fill ${name}`, y, height, ...whole},
        ),
        title,
      ),
    ),
    sample(
      [
        s("rect", {class: "phase fill wait", y: 8, height: 12, ...whole}),
        s("rect", {class: "hatched", fill: "url(#hatch)", y: 5, height: 18, ...whole}),
      ],
      "cancelled",
    ),
    sample(s("rect", {class: "critical", y: 12, height: 3, ...whole}), "critical path: what the answer waited for"),
    sample(s("line", {class: "deadline", x1: 13, x2: 13, y1: 0, y2: HEIGHT}), "deadline"),
  );
}

/** The waterfall of a timeline, as an element. */
export class Waterfall {
  #timeline;
  #unfolded = new Set();
  #lanes = [];
  #current = null;
  #list = h("div", {
    class: "lanes",
    role: "listbox",
    "aria-label": "Calls and attempts",
    onkeydown: (event) => this.#key(event),
    onclick: (event) => this.#click(event),
  });
  #details = h("dl", {class: "lane-details"});
  #axis = h("div", {class: "lane axis-lane"});

  constructor(timeline) {
    this.#timeline = timeline;
    this.element = h(
      "section",
      {class: "waterfall", "aria-label": "Waterfall"},
      patterns(),
      legend(),
      this.#axis,
      this.#list,
      h("h2", {}, "Details of the selected lane"),
      this.#details,
    );
    this.#draw();
    const call = slowestCall(timeline)?.call;
    const slowest = this.#lanes.find((lane) => lane.kind === "attempt" && lane.call === call && lane.critical);
    this.#select(slowest ?? this.#lanes[0], false);
  }

  #draw() {
    const timeline = this.#timeline;
    this.#lanes = lanesOf(timeline, this.#unfolded);
    const scale = scaleOf(timeline, this.#lanes);
    const places = ticks(scale.start, scale.end, ticksMost());
    const left = timeline.calls_total - timeline.calls.length;
    this.#axis.replaceChildren(
      h("span", {class: "lane-label dim"}, left ? `${left} shorter calls are left out` : ""),
      axis(scale, places, timeline),
      h("span", {class: "lane-took dim"}, "took"),
      h("span", {class: "lane-note dim"}, "result"),
    );
    this.#list.replaceChildren(
      ...this.#lanes.map((lane) => {
        if (lane.kind === "more") {
          return h(
            "div",
            {class: "lane more", role: "option", "aria-selected": "false", tabindex: "-1", "data-key": lane.key},
            h("span", {class: "lane-label"}, `Show ${lane.hidden} more attempts`),
            laneBars(lane, scale, places, timeline),
          );
        }
        return h(
          "div",
          {
            class: `lane ${lane.kind}${lane.critical ? " on-path" : ""}`,
            role: "option",
            "aria-selected": "false",
            tabindex: "-1",
            "data-key": lane.key,
            "data-outcome": (lane.attempt ?? lane.call)?.outcome,
          },
          h(
            "span",
            {class: "lane-label"},
            lane.critical &&
              h(
                "span",
                {class: "on-path-mark", title: "on the critical path"},
                "◆",
                h("span", {class: "unseen"}, " on the critical path: "),
              ),
            label(lane, timeline),
          ),
          laneBars(lane, scale, places, timeline),
          h("span", {class: "lane-took"}, tookOf(lane)),
          h("span", {class: "lane-note"}, note(lane, timeline)),
        );
      }),
    );
  }

  #select(lane, focus) {
    if (!lane) return;
    if (lane.kind === "more" && !focus) return;
    this.#current = lane.key;
    for (const element of this.#list.children) {
      const selected = element.dataset.key === lane.key;
      element.setAttribute("aria-selected", String(selected));
      element.tabIndex = selected ? 0 : -1;
      if (selected && focus) element.focus();
    }
    if (lane.kind !== "more") {
      this.#details.replaceChildren(
        ...details(lane, this.#timeline)
          .filter(([, value]) => value)
          .flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]),
      );
    }
  }

  #unfold(lane) {
    const at = this.#lanes.indexOf(lane);
    this.#unfolded.add(lane.call.name);
    this.#draw();
    this.#select(this.#lanes[at], true);
  }

  #key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const at = this.#lanes.findIndex((lane) => lane.key === this.#current);
    const to = {ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: this.#lanes.length - 1}[event.key];
    if (to !== undefined) {
      event.preventDefault();
      this.#select(this.#lanes[Math.max(0, Math.min(to, this.#lanes.length - 1))], true);
    } else if ((event.key === "Enter" || event.key === " ") && this.#lanes[at]?.kind === "more") {
      event.preventDefault();
      this.#unfold(this.#lanes[at]);
    }
  }

  #click(event) {
    const key = event.target.closest("[role=option]")?.dataset.key;
    const lane = this.#lanes.find((each) => each.key === key);
    if (lane?.kind === "more") this.#unfold(lane);
    else this.#select(lane, true);
  }
}
