// What a timeline says, in sentences: where its time went, what was cancelled and why, what failed.

import {milliseconds, share} from "../format.js";

const LINES_MAX = 6;

/** The cancel reasons that are words of the program, for people. */
const REASONS = {
  "lost-hedge": "another attempt of the call was answered first",
  decided: "the answer was decided without it",
  "client-gone": "the client left",
  "the call's own limit": "the time limit of the call passed",
};

/** What a phase is, as a part of a sentence. */
const PHASES = {
  queue: "waiting for a free place",
  dns: "resolving the name of",
  connect: "connecting to",
  tls: "the TLS handshake with",
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

/** The calls on the critical path, each with the milliseconds that it alone adds to the answer. */
export function criticalParts(timeline) {
  let until = 0;
  return timeline.calls.filter((call) => call.critical && call.start_ms !== null)
    .sort((one, other) => one.start_ms - other.start_ms)
    .map((call) => {
      const own = Math.max(0, call.end_ms - Math.max(call.start_ms, until));
      until = Math.max(until, call.end_ms);
      return {call, own};
    });
}

/** The longest phase of an attempt: {name, ms}. */
function longestPhase(attempt) {
  return attempt.phases.map((phase) => ({name: phase.name, ms: phase.end_ms - phase.start_ms}))
    .sort((one, other) => other.ms - one.ms)[0];
}

function whereFrom(call) {
  return call.upstream && call.upstream !== call.name ? `${call.name} (upstream ${call.upstream})` : `${call.name}`;
}

function slowest(timeline) {
  const parts = criticalParts(timeline);
  if (!parts.length) {
    const body = timeline.body_ms;
    return body !== null && body > timeline.duration_ms / 2
      ? [`The client: its request body took ${milliseconds(body)} of ${milliseconds(timeline.duration_ms)}.`]
      : ["No call: the gateway answered by itself."];
  }
  const {call, own} = parts.reduce((most, each) => (each.own > most.own ? each : most));
  const lines = [`${whereFrom(call)}: ${milliseconds(own)} of ${milliseconds(timeline.duration_ms)} (${share(own, timeline.duration_ms)}).`];
  const attempt = call.attempts.find((each) => each.critical);
  const phase = attempt && longestPhase(attempt);
  if (phase) {
    const at = phase.name === "queue" ? "" : ` ${shortReplica(attempt.replica)}`;
    lines.push(`Most of it: ${milliseconds(phase.ms)} ${PHASES[phase.name]}${at}${attempt.item === null ? "" : `, for item ${attempt.item}`}.`);
  }
  return lines;
}

function took(each) {
  return each.start_ms === null ? "before it began" : `after ${milliseconds(each.end_ms - each.start_ms)}`;
}

function cancelled(timeline) {
  return timeline.calls.flatMap((call) => {
    const own = call.attempts.filter((each) => each.outcome === "cancelled")
      .map((each) => `${call.name}: ${attemptName(each)} to ${shortReplica(each.replica)}, ${took(each)}: ${reasonText(each.reason)}.`);
    return call.outcome === "cancelled" && !own.length ? [`${call.name}, ${took(call)}: ${reasonText(call.reason)}.`] : own;
  });
}

function failed(timeline) {
  return timeline.calls.flatMap((call) => {
    const attempts = call.attempts.filter((each) => each.outcome === "failed")
      .map((each) => `${call.name}: ${attemptName(each)} to ${shortReplica(each.replica)}, ${took(each)}: ${each.reason}.`);
    const own = call.outcome === "failed" || call.outcome === "partial" ? [`${whereFrom(call)}: ${call.kind}, ${call.reason}.`] : [];
    return [...own, ...attempts];
  });
}

function bounded(lines) {
  return lines.length > LINES_MAX ? [...lines.slice(0, LINES_MAX), `And ${lines.length - LINES_MAX} more, below.`] : lines;
}

/** Pairs of a title and sentences; what did not happen has no pair. */
export function findings(timeline) {
  const deadline = timeline.deadline_ms === null ? []
    : [`${milliseconds(timeline.deadline_ms)}${timeline.deadline_reached ? ": reached, and what was unfinished was cut." : ", not reached."}`];
  return [
    ["Slowest", slowest(timeline)],
    ["Cancelled", bounded(cancelled(timeline))],
    ["Failed", bounded(failed(timeline))],
    ["Deadline", deadline],
  ].filter(([, lines]) => lines.length);
}
