// Places for the nodes and edges of a plan.
//
// A call stands one layer behind the last of the calls that it needs. Where the layers fit the width they are columns
// from left to right, else rows from top to bottom. In columns an edge that passes layers has a narrow place of its own
// in each of them, so that no node hides it; in rows it runs behind the nodes.

export const HEIGHT = 84;
export const REQUEST = Symbol("request");
export const ANSWER = Symbol("answer");

const WIDE = 176;
const NARROW = 150;
const GAP = 46;
const SIBLING_GAP = 14;
const PASSAGE = 6;
const ARROW = 5;

/** Pairs of items: a call or the request, and the call or the answer that waits for it. */
function edgesOf({calls, combine}) {
  const byName = new Map(calls.map((call) => [call.name, call]));
  const needed = new Set();
  const edges = [];
  for (const call of calls) {
    const needs = call.needs.map((name) => byName.get(name)).filter(Boolean);
    for (const each of needs) {
      needed.add(each);
      edges.push([each, call]);
    }
    if (!needs.length) edges.push([REQUEST, call]);
  }
  // With all calls an edge from each one to the answer would say nothing, and hide the others.
  const some = combine !== "all";
  for (const call of calls) if (!needed.has(call) || (some && call.answers)) edges.push([call, ANSWER]);
  return edges;
}

/** The items by layer: the request, the calls, the answer. */
function layersOf(calls) {
  const byName = new Map(calls.map((call) => [call.name, call]));
  const depths = new Map();
  const depth = (call) => {
    if (!depths.has(call)) {
      depths.set(call, 0); // A plan has no cycle; this bounds the walk all the same.
      depths.set(
        call,
        Math.max(0, ...call.needs.filter((name) => byName.has(name)).map((name) => depth(byName.get(name)) + 1)),
      );
    }
    return depths.get(call);
  };
  const layers = [];
  for (const call of calls) (layers[depth(call)] ??= []).push(call);
  return [[REQUEST], ...layers, [ANSWER]];
}

/** Sort each layer by the mean place of what its items wait for, so that edges cross less. */
function sorted(layers, chains) {
  const before = new Map();
  for (const chain of chains)
    for (let at = 1; at < chain.length; at++) before.set(chain[at], [...(before.get(chain[at]) ?? []), chain[at - 1]]);
  const places = new Map();
  for (const layer of layers) {
    const mean = (item) => {
      const known = (before.get(item) ?? []).filter((each) => places.has(each));
      return known.reduce((sum, each) => sum + places.get(each), 0) / Math.max(known.length, 1);
    };
    layer.sort((one, other) => mean(one) - mean(other));
    layer.forEach((item, index) => places.set(item, index - layer.length / 2));
  }
}

/** The edges as chains through passages, which are added to the layers that an edge passes. */
function withPassages(layers, edges) {
  const depths = new Map(layers.flatMap((layer, depth) => layer.map((item) => [item, depth])));
  return edges.map(([from, to]) => {
    const passages = layers.slice(depths.get(from) + 1, depths.get(to)).map((layer) => {
      const passage = {passage: true};
      layer.push(passage);
      return passage;
    });
    return [from, ...passages, to];
  });
}

function heightOf(item) {
  return item.passage ? PASSAGE : HEIGHT;
}

function columns(layers, edges, width) {
  const chains = withPassages(layers, edges);
  sorted(layers, chains);
  const nodeWidth = Math.min(WIDE, (width - (layers.length - 1) * GAP) / layers.length);
  const heights = layers.map((layer) => layer.reduce((sum, item) => sum + heightOf(item) + SIBLING_GAP, -SIBLING_GAP));
  const height = Math.max(...heights);
  const places = new Map();
  layers.forEach((layer, depth) => {
    let y = (height - heights[depth]) / 2;
    for (const item of layer) {
      places.set(item, {x: depth * (nodeWidth + GAP), y});
      y += heightOf(item) + SIBLING_GAP;
    }
  });
  const middle = (item) => places.get(item).y + heightOf(item) / 2;
  const lines = chains.map((chain) =>
    chain
      .slice(1)
      .map((item, index) => {
        const [x1, y1, x2, y2] = [
          places.get(chain[index]).x + nodeWidth,
          middle(chain[index]),
          places.get(item).x,
          middle(item),
        ];
        const end = item.passage ? `${x2},${y2} H${x2 + nodeWidth}` : `${x2 - ARROW},${y2}`;
        return `${index ? "" : `M${x1},${y1}`} C${x1 + GAP / 2},${y1} ${x2 - GAP / 2},${y2} ${end}`;
      })
      .join(""),
  );
  return {places, lines, nodeWidth, width: layers.length * (nodeWidth + GAP) - GAP, height};
}

function rows(layers, edges, width) {
  sorted(layers, edges);
  const most = Math.max(...layers.map((layer) => layer.length));
  const perRow = Math.max(1, Math.min(most, Math.floor((width + SIBLING_GAP) / (NARROW + SIBLING_GAP))));
  const nodeWidth = Math.min(WIDE, (width - (perRow - 1) * SIBLING_GAP) / perRow);
  const whole = perRow * (nodeWidth + SIBLING_GAP) - SIBLING_GAP;
  const places = new Map();
  let y = 0;
  for (const layer of layers) {
    for (let from = 0; from < layer.length; from += perRow) {
      const row = layer.slice(from, from + perRow);
      const left = (whole - (row.length * (nodeWidth + SIBLING_GAP) - SIBLING_GAP)) / 2;
      row.forEach((item, index) => places.set(item, {x: left + index * (nodeWidth + SIBLING_GAP), y}));
      y += HEIGHT + SIBLING_GAP;
    }
    y += GAP - SIBLING_GAP;
  }
  const lines = edges.map(([from, to]) => {
    const [one, other] = [places.get(from), places.get(to)];
    const [x1, y1, x2, y2] = [one.x + nodeWidth / 2, one.y + HEIGHT, other.x + nodeWidth / 2, other.y - ARROW];
    return `M${x1},${y1} C${x1},${y1 + GAP / 2} ${x2},${y2 - GAP / 2} ${x2},${y2}`;
  });
  return {places, lines, nodeWidth, width: whole, height: y - GAP};
}

/**
 * The layout of a plan for a width in pixels.
 *
 * @returns `places`: x and y of each call, of REQUEST and of ANSWER. `lines`: the path of each edge. `nodeWidth`,
 *     `width`, `height`.
 */
export function layout(plan, width) {
  const layers = layersOf(plan.calls);
  const across = layers.length * (NARROW + GAP) - GAP <= width;
  return (across ? columns : rows)(layers, edgesOf(plan), width);
}
