// What a timeline says, in sentences: where its time went, what was cancelled and why, what failed.

import {milliseconds, share} from "../format.js";

const LINES_MAX = 6;

/** The cancel reasons that are words of the program, for people. */
const REASONS = {
  "lost-hedge": "another attempt was answered first",
  decided: "the answer was decided without it",
  "client-gone": "the client left",
  "the call's own limit": "the time limit of the call passed",
};

/** What a phase is, as a part of a sentence. */
const PHASES = {
  queue: "waiting for a free place",
  dns: "resolving the name of",
  connect: "connecting to",
  tls: "in the TLS handshake with",
  wait: "waiting for the response of",
  body: "receiving the body of",
};

export function reasonText(reason) {
  return REASONS[reason] ? `${reason} (${REASONS[reason]})` : reason;
}

/** The address of a replica without its scheme. */
export function shortReplica(replica) {
  return replica.replace(/^https?:\/\//, "");
}

export function attemptName(attempt) {
  return `${attempt.cause}${attempt.item === null ? "" : `, item ${attempt.item}`}`;
}

/** An attempt within a sentence: "offers: first attempt for item 2, to 10.0.0.7:80, after 94.3 ms". */
function attemptText(call, attempt) {
  const cause = attempt.cause === "first" ? "first attempt" : attempt.cause;
  const forItem = attempt.item === null ? "" : ` for item ${attempt.item}`;
  return `${call.name}: ${cause}${forItem}, to ${shortReplica(attempt.replica)}, ${took(attempt)}`;
}

/** The call that added most to the duration, with its milliseconds: {call, own}; undefined without calls. */
export function slowestCall(timeline) {
  return criticalParts(timeline).sort((one, other) => other.own - one.own)[0];
}

/** The calls on the critical path, each with the milliseconds that it alone adds to the answer. */
function criticalParts(timeline) {
  let until = 0;
  return timeline.calls
    .filter((call) => call.critical && call.start_ms !== null)
    .sort((one, other) => one.start_ms - other.start_ms)
    .map((call) => {
      const own = Math.max(0, call.end_ms - Math.max(call.start_ms, until));
      until = Math.max(until, call.end_ms);
      return {call, own};
    });
}

/** The longest phase of an attempt: {name, ms}. */
function longestPhase(attempt) {
  return attempt.phases
    .map((phase) => ({name: phase.name, ms: phase.end_ms - phase.start_ms}))
    .sort((one, other) => other.ms - one.ms)[0];
}

function whereFrom(call) {
  return call.upstream ? `${call.name} (upstream ${call.upstream})` : call.name;
}

function slowest(timeline) {
  const most = slowestCall(timeline);
  if (!most) {
    const body = timeline.body_ms;
    return body !== null && body > timeline.duration_ms / 2
      ? [`The client: its request body took ${milliseconds(body)} of ${milliseconds(timeline.duration_ms)}.`]
      : ["No call: the gateway answered by itself."];
  }
  const {call, own} = most;
  const whole = timeline.duration_ms;
  const lines = [`${whereFrom(call)}: ${milliseconds(own)} of ${milliseconds(whole)} (${share(own, whole)}).`];
  const attempt = call.attempts.find((each) => each.critical);
  if (attempt) lines.push(howAnswered(call, attempt));
  return lines;
}

/** How a call got its result: from its first attempt, or from a later one, and after what. */
function howAnswered(call, attempt) {
  const forItem = attempt.item === null ? "" : `, for item ${attempt.item}`;
  const start = attempt.item === null ? "" : `For item ${attempt.item}: `;
  const replica = shortReplica(attempt.replica);
  const before = call.attempts
    .filter((each) => each.item === attempt.item && each.start_ms < attempt.start_ms && each.outcome !== "ok")
    .at(-1);
  const own = `the ${attempt.cause} to ${replica} took ${milliseconds(attempt.end_ms - attempt.start_ms)}.`;
  if (before && attempt.cause === "hedge") {
    const within = milliseconds(attempt.start_ms - before.start_ms);
    return `${start}${shortReplica(before.replica)} did not answer within ${within}; ${own}`;
  }
  if (before) return `${start}${shortReplica(before.replica)} failed ${took(before)} (${before.reason}); ${own}`;
  const phase = longestPhase(attempt);
  if (!phase) return `Its attempt at ${replica} took ${milliseconds(attempt.end_ms - attempt.start_ms)}${forItem}.`;
  const where = phase.name === "queue" ? "" : ` ${replica}`;
  return `Of that, ${milliseconds(phase.ms)} ${PHASES[phase.name]}${where}${forItem}.`;
}

function took(each) {
  return each.start_ms === null ? "before it began" : `after ${milliseconds(each.end_ms - each.start_ms)}`;
}

function cancelled(timeline) {
  return timeline.calls.flatMap((call) => {
    const own = call.attempts
      .filter((each) => each.outcome === "cancelled")
      .map((each) => `${attemptText(call, each)}: ${reasonText(each.reason)}.`);
    return call.outcome === "cancelled" && !own.length
      ? [`${call.name}, ${took(call)}: ${reasonText(call.reason)}.`]
      : own;
  });
}

function failed(timeline) {
  return timeline.calls.flatMap((call) => {
    const attempts = call.attempts
      .filter((each) => each.outcome === "failed")
      .map((each) => `${attemptText(call, each)}: ${each.reason}.`);
    const own =
      call.outcome === "failed" || call.outcome === "partial"
        ? [`${whereFrom(call)}: ${call.kind}, ${call.reason}.`]
        : [];
    return [...own, ...attempts];
  });
}

function bounded(lines) {
  return lines.length > LINES_MAX
    ? [...lines.slice(0, LINES_MAX), `And ${lines.length - LINES_MAX} more, below.`]
    : lines;
}

/** What became of the deadline. It bounds the calls; an answer may end later, when the event loop or the client is slow. */
function afterDeadline({deadline_ms: deadline, deadline_reached: reached, duration_ms: took}) {
  if (reached) return ": reached, and what was unfinished was cut.";
  return took > deadline
    ? `: nothing was cut, but the answer ended ${milliseconds(took - deadline)} after it.`
    : ", not reached.";
}

/** Pairs of a title and sentences; what did not happen has no pair. */
export function findings(timeline) {
  const deadline =
    timeline.deadline_ms === null ? [] : [`${milliseconds(timeline.deadline_ms)}${afterDeadline(timeline)}`];
  return [
    ["Slowest", slowest(timeline)],
    ["Cancelled", bounded(cancelled(timeline))],
    ["Failed", bounded(failed(timeline))],
    ["Deadline", deadline],
  ].filter(([, lines]) => lines.length);
}
